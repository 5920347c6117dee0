"""The door of a campaign as pages: what it asks before the work, why it is closed, leaving and coming back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, Crowdworker, Db
from server.errors import WhetstoneError
from server.models import Campaign, Person
from server.pages import Page, render
from server.routes.row_id import RowId, row_id
from server.services.chat import dialogue, own_success
from server.services.door import door, qualifying
from server.services.door.qualifying import Asked, Review
from server.services.panels import panels
from server.services.working.instructions import newest_instructions

router = APIRouter(prefix="/chat")


@dataclass(frozen=True)
class DoorPage(Page):
    """What stands between a person and a campaign's work, and what they can do about it."""

    template: ClassVar[str] = "chat/begin.html"
    campaign: Campaign
    step: str
    sentence: str
    reason: str
    consent_sha256: str
    instructions: str
    instructions_id: int | None
    asked: list[Asked]
    tries_left: int
    key: str
    chosen: dict[int, int] = field(default_factory=dict)
    review: list[Review] = field(default_factory=list)
    correct: int = 0
    error: str = ""
    study: panels.Study | None = None  # of those whom a panel sent


def _page(db: Db, person: Person, campaign: Campaign, **more: object) -> DoorPage:
    found = door.standing(db, person, campaign)
    told = newest_instructions(db, campaign)
    tries = qualifying.tries(db, person, campaign) if found.step in (door.TEST, "screened_out") else []
    values: dict[str, object] = {}
    if tries and "error" not in more:
        values |= {"review": qualifying.review(db, tries[0]), "correct": tries[0].correct_count}
    return DoorPage(
        title=campaign.name,
        campaign=campaign,
        step=found.step,
        sentence=found.sentence,
        reason=(found.membership.reason or "") if found.membership is not None else "",
        consent_sha256=door.consent_hash(campaign),
        instructions=told.markdown if told is not None else "",
        instructions_id=found.instructions_id,
        asked=qualifying.asked_of(db, person, campaign) if found.step == door.TEST else [],
        tries_left=campaign.test_attempts - len(tries),
        key=secrets.token_urlsafe(16),
        study=panels.settle(db, person, campaign),
        **(values | more),  # type: ignore[arg-type]
    )


def _to(slug: str, more: str = "") -> Response:
    return RedirectResponse(f"/chat/{slug}{more}", status_code=HTTP_303_SEE_OTHER)


@router.get("/{slug}/begin")
def door_page(request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    page = _page(db, person, campaign)
    return _to(slug) if page.step == door.READY else render(request, who, page)


@router.post("/{slug}/consent")
def consent(
    db: Db,
    person: Crowdworker,
    slug: str,
    sha256: Annotated[str, Form(max_length=64)] = "",
    answer: Annotated[str, Form(max_length=10)] = "no",
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    if answer == "yes":
        door.agree(db, person, campaign, sha256)
    else:
        door.decline(db, person, campaign)
    return _to(slug, "/begin")


async def _chosen(request: Request) -> dict[int, int]:
    """Question id -> index of the option, of the fields question-7 and so on."""
    found = {}
    for name, value in (await request.form()).items():
        number, option = qualifying.plain(name.removeprefix("question-")), qualifying.plain(value)
        if name.startswith("question-") and number is not None and option is not None:
            found[number] = option
    return found


@router.post("/{slug}/test")
def take_test(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    chosen: Annotated[dict[int, int], Depends(_chosen)],
    idempotency_key: Annotated[str, Form(max_length=200)] = "",
    instructions_id: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    try:
        with db.begin_nested():
            qualifying.take_test(db, person, campaign, chosen, idempotency_key)
    except WhetstoneError as error:
        page = _page(db, person, campaign, chosen=chosen, error=error.message)
        return render(request, who, page, status=error.status)
    read = row_id(instructions_id)
    if read is not None and door.standing(db, person, campaign).step == door.READY:
        door.confirm_instructions(db, person, campaign, read)
    return _to(slug, "/begin")


@router.post("/{slug}/instructions")
def confirm_instructions(
    db: Db, person: Crowdworker, slug: str, instructions_id: Annotated[int, Form(ge=1, le=2**63 - 1)]
) -> Response:
    door.confirm_instructions(db, person, dialogue.find_campaign(db, slug), instructions_id)
    return _to(slug)


@router.post("/{slug}/leave")
def leave(db: Db, person: Crowdworker, slug: str) -> Response:
    door.leave(db, person, dialogue.find_campaign(db, slug))
    return _to(slug, "/begin")


@router.post("/{slug}/return")
def come_back(db: Db, person: Crowdworker, slug: str) -> Response:
    door.come_back(db, person, dialogue.find_campaign(db, slug))
    return _to(slug)


@router.post("/{slug}/conversations/{conversation_id}/success")
def rate_success(
    db: Db, person: Crowdworker, slug: str, conversation_id: RowId, success: Annotated[int, Form(ge=1, le=5)]
) -> Response:
    own_success.rate(db, person, dialogue.find_campaign(db, slug), conversation_id, success)
    return _to(slug)
