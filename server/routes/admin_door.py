"""Who may work in a campaign, for admins: its conditions, the test's questions, and its members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, Db
from server.errors import WhetstoneError
from server.models import Campaign, Question
from server.pages import Page, render
from server.routes.row_id import RowId
from server.services.campaigns import campaigns
from server.services.door import checks, members, qualifying
from server.services.door.checks import Evidence
from server.services.door.members import Member

router = APIRouter()

SETTINGS = (
    "access", "consent", "pass_mark", "test_attempts", "screening_items", "screening_agreement", "daily_limit", "blurred",
    "asks_success",
)  # fmt: skip


@dataclass(frozen=True)
class DoorAdminPage(Page):
    """The door of a campaign with everything that can be changed about it."""

    template: ClassVar[str] = "admin/door.html"
    campaign: Campaign
    questions: list[Question]
    members: list[Member]
    gold_items: int
    evidence: dict[int, Evidence]  # by the number of the person
    saved: str = ""
    error: str = ""
    error_field: str = ""
    typed: dict[str, str] = field(default_factory=dict)


def _page(db: Session, campaign: Campaign, **more: object) -> DoorAdminPage:
    return DoorAdminPage(
        title=f"The door of {campaign.name}",
        campaign=campaign,
        questions=qualifying.questions(db, campaign),
        members=members.members(db, campaign),
        gold_items=checks.gold_items(db, campaign),
        evidence={each.person_id: each for each in checks.by_person(db, campaign)},
        **more,  # type: ignore[arg-type]
    )


def _to(slug: str, saved: str) -> Response:
    return RedirectResponse(f"/admin/campaigns/{slug}/door?saved={saved}", status_code=HTTP_303_SEE_OTHER)


@router.get("/admin/campaigns/{slug}/door")
def door_page(request: Request, db: Db, who: AnyVisitor, person: Admin, slug: str, saved: str = "") -> Response:
    return render(request, who, _page(db, campaigns.find_campaign(db, slug), saved=saved))


async def _typed(request: Request) -> dict[str, str]:
    return {key: value for key, value in (await request.form()).items() if key in SETTINGS and isinstance(value, str)}


@router.post("/admin/campaigns/{slug}/door")
def change(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    typed: Annotated[dict[str, str], Depends(_typed)],
) -> Response:
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            campaigns.update_campaign(db, campaign, person, **typed)
    except WhetstoneError as error:
        page = _page(db, campaign, typed=typed, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(slug, "saved")


@router.post("/admin/campaigns/{slug}/questions")
def add_question(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    markdown: Annotated[str, Form(max_length=20_000)] = "",
    options: Annotated[str, Form(max_length=20_000)] = "",
    explanation: Annotated[str, Form(max_length=20_000)] = "",
) -> Response:
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            members.add_question(db, person, campaign, markdown, options, explanation)
    except WhetstoneError as error:
        typed = {"markdown": markdown, "options": options, "explanation": explanation}
        page = _page(db, campaign, typed=typed, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(slug, "question")


@router.post("/admin/campaigns/{slug}/questions/{question_id}/retire")
def retire_question(db: Db, person: Admin, slug: str, question_id: RowId) -> Response:
    members.retire_question(db, person, campaigns.find_campaign(db, slug), question_id)
    return _to(slug, "retired")


@router.post("/admin/campaigns/{slug}/members")
def add_member(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    member: Annotated[str, Form(max_length=300)] = "",
) -> Response:
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            members.add(db, person, campaign, member)
    except WhetstoneError as error:
        page = _page(db, campaign, typed={"member": member}, error=error.message, error_field="member")
        return render(request, who, page, status=error.status)
    return _to(slug, "member")


@router.post("/admin/campaigns/{slug}/members/{person_id}/exclude")
def exclude(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    person_id: RowId,
    reason: Annotated[str, Form(max_length=5_000)] = "",
) -> Response:
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            members.exclude(db, person, campaign, person_id, reason)
    except WhetstoneError as error:
        return render(request, who, _page(db, campaign, error=error.message), status=error.status)
    return _to(slug, "excluded")


@router.post("/admin/campaigns/{slug}/members/{person_id}/reinstate")
def reinstate(db: Db, person: Admin, slug: str, person_id: RowId) -> Response:
    members.reinstate(db, person, campaigns.find_campaign(db, slug), person_id)
    return _to(slug, "reinstated")
