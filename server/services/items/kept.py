"""Items kept for named people: who still keeps them waiting, and handing them over when somebody cannot come."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, any_, case, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound
from server.models import Campaign, Lease, Membership, Person, Skip, Turn
from server.services import audit
from server.services.people import roster
from server.services.working import leases, overlap
from server.services.working.kinds import ANSWERS

EVERYBODY = "everybody"
AWAY = {
    "disabled": "cannot sign in: the account is disabled",
    "role": "is no crowdworker any more",
    "excluded": "was taken out of the campaign",
    "screened_out": "did not get past the test or the screening",
    "left": "left the campaign",
}


@dataclass(frozen=True)
class Waiting:
    """What waits for one named person; `away` says why they cannot come, in words, "" where they can."""

    person: Person
    items: int
    passed: int  # of these, what they have seen and passed over: they will not get it again
    away: str


def able(db: Session, campaign: Campaign, who: str) -> Person:
    """The person called so, who can answer items here; BadInput says why one cannot, or that nobody is called so."""
    try:
        person = roster.one(db, who)
    except NotFound as error:
        raise BadInput(error.message, field="lines") from error
    if person.disabled_at is not None or "crowdworker" not in person.roles:
        raise BadInput(f"{who} is no crowdworker who may sign in, and an item is for them.", field="lines")
    membership = db.get(Membership, (person.id, campaign.id))
    if membership is None and campaign.access != "everyone":
        raise BadInput(
            f"{who} is not in {campaign.name}, and an item is for them: let them in on its door page, then add the items again.",
            field="lines",
        )
    if membership is not None and membership.status != "active":
        raise BadInput(f"{who} {AWAY[membership.status]}, and an item is for them.", field="lines")
    return person


def _unanswered(campaign: Campaign, person_id: ColumnElement[int]) -> list[ColumnElement[bool]]:
    """Conditions of a turn that this person alone, or with others, is to answer still."""
    answers = ANSWERS[campaign.way]
    return [
        Turn.queue_id == campaign.id,
        person_id == any_(Turn.kept_for),
        ~exists().where(answers.turn_id == Turn.id, answers.person_id == person_id),
    ]


def waiting(db: Session, campaign: Campaign) -> list[Waiting]:
    """Everybody for whom items wait, those who cannot come first."""
    if campaign.way not in ANSWERS:
        return []
    passed = or_(
        exists().where(Skip.turn_id == Turn.id, Skip.person_id == Person.id),
        exists().where(Lease.turn_id == Turn.id, Lease.person_id == Person.id, Lease.released_at.is_not(None)),
    )
    found = db.execute(
        select(Person, Membership.status, func.count(), func.sum(case((passed, 1), else_=0)))
        .select_from(Turn)
        .join(Person, Person.id == any_(Turn.kept_for))
        .outerjoin(Membership, (Membership.person_id == Person.id) & (Membership.campaign_id == campaign.id))
        .where(*_unanswered(campaign, Person.id.expression))
        .group_by(Person.id, Membership.status)
    )
    rows = [Waiting(person, items, seen, _away(person, status)) for person, status, items, seen in found]
    return sorted(rows, key=lambda row: (not row.away, not row.passed, row.person.name, row.person.id))


def _away(person: Person, status: str | None) -> str:
    if person.disabled_at is not None:
        return AWAY["disabled"]
    if "crowdworker" not in person.roles:
        return AWAY["role"]
    return AWAY.get(status or "", "")


def hand_over(db: Session, campaign: Campaign, person: Person, to: str, by: Person | None = None) -> int:
    """Give what waits for `person` to another, or to everybody; what they have in hand just now stays theirs.

    `to` is a number, an e-mail address or a name, or "everybody". Returns how many items changed hands; BadInput for somebody
    who could not answer them. An item that now has all its answers leaves the queue.
    """
    if campaign.way not in ANSWERS:
        raise BadInput(f"{campaign.name} has the way {campaign.way!r}, which has no items.", field="to")
    if not to.strip():
        raise BadInput(f"Say who is to have them: an e-mail address, a number, a name, or {EVERYBODY}.", field="to")
    heir: Person | None = None
    if to.strip().lower() != EVERYBODY:
        try:
            heir = able(db, campaign, to)
        except BadInput as error:
            raise BadInput(error.message, field="to") from error
        if heir.id == person.id:
            raise BadInput(f"{person.name} has them already.", field="to")
    in_hand = exists().where(leases.live_on(Turn.id), Lease.person_id == person.id)
    turns = db.scalars(
        select(Turn)
        .where(*_unanswered(campaign, literal(person.id)), ~in_hand)
        .order_by(Turn.id)
        .with_for_update(of=Turn, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for turn in turns:
        others = set(turn.kept_for or []) - {person.id}
        turn.kept_for = sorted(others | {heir.id}) if heir is not None else None
    overlap.apply(db, campaign)
    if turns:
        named = {"of": person.id, "to": EVERYBODY if heir is None else heir.id}
        audit.record(db, by, "campaign.hand_over", "campaign", campaign.id, items=len(turns), **named)
    return len(turns)
