"""Notices, for admins: a word to some people or to everybody of a campaign, and what was sent before."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, Db
from server.errors import BadInput, WhetstoneError
from server.pages import Page, render
from server.routes.admin_data import campaign_options
from server.services import notices
from server.services.campaigns import campaigns
from server.services.notices import Sent
from server.services.people import roster

router = APIRouter()


@dataclass(frozen=True)
class NoticesPage(Page):
    """The form, and the newest notices with how many people have read each."""

    template: ClassVar[str] = "admin/notices.html"
    campaign_options: list[tuple[str, str]]
    sent: list[Sent]
    new_key: str
    done: str = ""
    error: str = ""
    error_field: str = ""
    typed: dict[str, str] = field(default_factory=dict)


def _page(db: Db, **more: Any) -> NoticesPage:
    return NoticesPage(
        title="Notices",
        campaign_options=campaign_options(db),
        sent=notices.sent(db),
        new_key=secrets.token_urlsafe(16),
        **more,
    )


@router.get("/admin/notices")
def notices_page(request: Request, db: Db, who: AnyVisitor, person: Admin, to: str = "", got: str = "") -> Response:
    done = f"{int(got):,} people got it." if got.isdecimal() and len(got) < 10 else ""
    return render(request, who, _page(db, done=done, typed={"people": to[:300]}))


@router.post("/admin/notices")
def send(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    people: Annotated[str, Form(max_length=100_000)] = "",
    campaign: Annotated[str, Form(max_length=100)] = "",
    text: Annotated[str, Form(max_length=100_000)] = "",
    idempotency_key: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """To the people that are named; with none named, to all people of the campaign."""
    try:
        with db.begin_nested():
            of = campaigns.find_campaign(db, campaign) if campaign else None
            named = [each.id for each in roster.named(db, people)]
            if not named and of is None:
                raise BadInput("Name people, or choose a campaign for all of its people.", field="people")
            to = named or (notices.people_of(db, of) if of is not None else [])
            got = notices.send_and_audit(db, person, to, text, campaign=of, idempotency_key=idempotency_key)
    except WhetstoneError as error:
        typed = {"people": people, "campaign": campaign, "text": text}
        page = _page(db, error=error.message, error_field=error.field or "", typed=typed)
        return render(request, who, page, status=error.status)
    return RedirectResponse(f"/admin/notices?got={got}", status_code=HTTP_303_SEE_OTHER)
