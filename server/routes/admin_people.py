"""Accounts and invitations, for admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, AppSettings, Db
from server.errors import BadInput, Conflict, WhetstoneError
from server.models import Invitation, Person
from server.models.people import ROLES
from server.pages import Page, render
from server.routes.row_id import RowId, row_id
from server.services import audit
from server.services.data import evidence
from server.services.data.evidence import Evidence
from server.services.door import members
from server.services.people import invitations, people, roster

router = APIRouter()


@dataclass(frozen=True)
class PeoplePage(Page):
    """Everybody, and the form of an invitation; `link` is shown once, when it has just been made."""

    template: ClassVar[str] = "admin/people.html"
    members: list[roster.Member]
    older: int | None
    search: str
    invitations: list[Invitation]
    roles: list[tuple[str, str]]
    link: str = ""
    error: str = ""


@dataclass(frozen=True)
class PersonPage(Page):
    """One person, and what is known of how they answer."""

    template: ClassVar[str] = "admin/person.html"
    member: Person
    evidence: Evidence


def _page(db: Db, search: str = "", before: int | None = None, *, link: str = "", error: str = "") -> PeoplePage:
    members, older = roster.list_people(db, search, before)
    return PeoplePage(
        title="People",
        members=members,
        older=older,
        search=search,
        invitations=invitations.live_invitations(db),
        roles=[(role, role) for role in ROLES],
        link=link,
        error=error,
    )


@router.get("/admin/people")
def people_page(
    request: Request, db: Db, who: AnyVisitor, person: Admin, search: str = "", before: str = ""
) -> Response:
    return render(request, who, _page(db, search.strip()[:200], row_id(before)))


@router.get("/admin/people/{person_id}")
def person_page(request: Request, db: Db, who: AnyVisitor, person: Admin, person_id: RowId) -> Response:
    member = people.get_person(db, person_id)
    return render(request, who, PersonPage(title=member.name, member=member, evidence=evidence.of(db, member)))


@router.post("/admin/people/invitations")
def invite(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    settings: AppSettings,
    roles: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
    note: Annotated[str, Form(max_length=500)] = "",
    max_uses: Annotated[str, Form(max_length=10)] = "1",
    days: Annotated[str, Form(max_length=10)] = "14",
) -> Response:
    """Make an invitation and show its link this once: only its hash is stored, so it cannot be shown again."""
    try:
        with db.begin_nested():
            made, token = invitations.make_invitation(
                db, roles, by=person, note=note, max_uses=_whole("max_uses", max_uses), days=_whole("days", days)
            )
            audit.record(
                db, person, "invitation.create", "invitation", made.id, roles=made.roles, max_uses=made.max_uses
            )
    except WhetstoneError as error:
        return render(request, who, _page(db, error=error.message), status=error.status)
    return render(request, who, _page(db, link=f"{settings.public_url}/invitation/{token}"))


@router.post("/admin/people/invitations/{invitation_id}/revoke")
def revoke(db: Db, person: Admin, invitation_id: RowId) -> Response:
    revoked = invitations.revoke_invitation(db, invitation_id)
    audit.record(db, person, "invitation.revoke", "invitation", revoked.id)
    return _back()


@router.post("/admin/people/{person_id}/roles")
def change_roles(
    db: Db,
    person: Admin,
    person_id: RowId,
    roles: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    member = people.get_person(db, person_id)
    before = list(member.roles)
    people.set_roles(db, member, roles)
    audit.record(db, person, "person.roles", "person", member.id, before=before, after=list(member.roles))
    return _back()


@router.post("/admin/people/{person_id}/disable")
def disable(db: Db, person: Admin, person_id: RowId) -> Response:
    member = people.get_person(db, person_id)
    if member.id == person.id:
        raise Conflict("You cannot disable your own account; ask another admin to do it.")
    people.disable_person(db, member)
    audit.record(db, person, "person.disable", "person", member.id)
    return _back()


@router.post("/admin/people/{person_id}/enable")
def enable(db: Db, person: Admin, person_id: RowId) -> Response:
    member: Person = people.get_person(db, person_id)
    people.enable_person(member)
    audit.record(db, person, "person.enable", "person", member.id)
    return _back()


@router.post("/admin/people/{person_id}/hold-out")
def hold_out(db: Db, person: Admin, person_id: RowId, held_out: Annotated[str, Form(max_length=5)] = "yes") -> Response:
    """Into the pool whose answers only measure, or out of it; what was given before stays what it was."""
    members.hold_out(db, person, person_id, held_out=held_out == "yes")
    return _back()


def _back() -> Response:
    return RedirectResponse("/admin/people", status_code=HTTP_303_SEE_OTHER)


def _whole(field: str, text: str) -> int:
    if not text.strip().isdecimal():
        raise BadInput(f"{field.replace('_', ' ')} must be a whole number.", field=field)
    return int(text)
