"""The way in for people whom a panel sends, their way back, and the panel's own messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import SESSION_COOKIE, AnyVisitor, AppSettings, CheckedOrigin, Crowdworker, Db, Visitor
from server.errors import WhetstoneError
from server.models import Campaign, Panel, Person
from server.pages import Page, render
from server.routes.session import network_address, set_session_cookie
from server.services.panels import panel_webhooks, panels
from server.services.panels.panels import Study, WayBack
from server.services.people import limits, people
from server.settings import Settings

router = APIRouter(prefix="/panel")


@dataclass(frozen=True)
class SwitchPage(Page):
    """Somebody else is signed in here: a link alone must not take their place."""

    template: ClassVar[str] = "panel/switch.html"
    action: str


@dataclass(frozen=True)
class DonePage(Page):
    """How the submission stands, and at its end the code and the link back."""

    template: ClassVar[str] = "panel/done.html"
    study: Study
    campaign: str
    at_prolific: bool
    back: WayBack | None
    error: str = ""


@router.get("/{slug}")
def enter(request: Request, db: Db, settings: AppSettings, who: AnyVisitor, slug: str) -> Response:
    """The link that the panel gives to each participant."""
    panel = panels.find(db, slug)
    arrived = panels.arrival(panel, request.query_params)
    if who.person is not None:
        known = panels.person_of(db, panel, arrived.participant)
        if known is None or known.id != who.person.id:
            action = f"/panel/{panel.slug}?{urlencode(request.query_params.multi_items())}"
            return render(request, who, SwitchPage(title=panel.name, action=action))
    return _into(request, db, settings, who.person, panel)


@router.post("/{slug}")
def enter_as_another(
    request: Request, db: Db, settings: AppSettings, who: AnyVisitor, _origin: CheckedOrigin, slug: str
) -> Response:
    """The same after the person who was signed in said so."""
    panel = panels.find(db, slug)
    if who.person is not None:
        people.end_session(db, request.cookies[SESSION_COOKIE])
    return _into(request, db, settings, None, panel)


def _into(request: Request, db: Db, settings: Settings, signed_in: Person | None, panel: Panel) -> Response:
    limits.limit_panel_visit(settings, network_address(request))
    person, submission = panels.enter(db, panel, panels.arrival(panel, request.query_params))
    campaign = db.get_one(Campaign, panel.campaign_id)
    where = f"/panel/{panel.slug}/done" if submission.outcome is not None else f"/chat/{campaign.slug}"
    response = RedirectResponse(where, status_code=HTTP_303_SEE_OTHER)
    if signed_in is None or signed_in.id != person.id:
        token, _csrf = people.start_session(db, person)
        set_session_cookie(response, settings, token)
    return response


def _done(
    request: Request, db: Db, who: Visitor, person: Person, panel: Panel, error: WhetstoneError | None
) -> Response:
    stands, submission = panels.own(db, person, panel)
    page = DonePage(
        title=panel.name,
        study=stands,
        campaign=db.get_one(Campaign, panel.campaign_id).slug,
        at_prolific=panel.kind == "prolific",
        back=panels.way_back(panel, submission) if submission.outcome is not None else None,
        error=error.message if error is not None else "",
    )
    return render(request, who, page, status=error.status if error is not None else 200)


@router.get("/{slug}/done")
def done_page(request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str) -> Response:
    return _done(request, db, who, person, panels.find(db, slug), None)


@router.post("/{slug}/done")
def finish(request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str) -> Response:
    """End the submission, with the target reached or with nothing left to do."""
    panel = panels.find(db, slug)
    try:
        with db.begin_nested():
            panels.finish(db, person, panel)
    except WhetstoneError as error:
        return _done(request, db, who, person, panel, error)
    return RedirectResponse(f"/panel/{panel.slug}/done", status_code=HTTP_303_SEE_OTHER)


async def _body(request: Request) -> bytes:
    """The body as it came, byte for byte, since that is what was signed."""
    return await request.body()


@router.post("/{slug}/webhook")
def webhook(request: Request, body: Annotated[bytes, Depends(_body)], db: Db, slug: str) -> dict[str, Any]:
    """A signed message of the panel; 200 says that it need not be sent again."""
    return {"taken": panel_webhooks.take(db, slug, request.headers, body)}
