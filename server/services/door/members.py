"""Who works in a campaign, as its admins see and decide it: members, the test's questions, exclusions."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, Membership, Person, Question
from server.services import audit
from server.services.door import qualifying
from server.services.people import roster
from server.services.working import leases

MOST_SHOWN = 500
MOST_CHARS = 5_000


@dataclass(frozen=True)
class Member:
    """A person who stands in a campaign in some way, and how they did in its test."""

    person: Person
    membership: Membership
    test: tuple[int, bool, int, int] | None  # tries, passed, right answers of the best, questions


def members(db: Session, campaign: Campaign) -> list[Member]:
    """The newest MOST_SHOWN."""
    results = qualifying.results(db, campaign)
    rows = db.execute(
        select(Membership, Person)
        .join(Person, Person.id == Membership.person_id)
        .where(Membership.campaign_id == campaign.id)
        .order_by(Membership.changed_at.desc(), Person.id)
        .limit(MOST_SHOWN)
    )
    return [Member(person, membership, results.get(person.id)) for membership, person in rows]


def add(db: Session, admin: Person | None, campaign: Campaign, who: str) -> Person:
    """Let somebody work in a campaign; whoever is in it already stays as they are."""
    person = roster.one(db, who)
    statement = insert(Membership).values(person_id=person.id, campaign_id=campaign.id)
    made = db.scalar(statement.on_conflict_do_nothing().returning(Membership.person_id))
    if made is not None:
        audit.record(db, admin, "member.add", "campaign", campaign.id, member=person.id)
    return person


def exclude(db: Session, admin: Person | None, campaign: Campaign, person_id: int, reason: str) -> None:
    """End somebody's work here; they are told the reason. What they hold goes to others at once."""
    reason = reason.strip()
    if not 3 <= len(reason) <= 1000:
        raise BadInput("Say why, in 3 to 1,000 characters; the person reads it.", field="reason")
    person = _person(db, person_id)
    leases.give_up(db, person, campaign)
    values = {"status": "excluded", "reason": reason, "changed_at": func.now()}
    statement = insert(Membership).values(person_id=person.id, campaign_id=campaign.id, **values)
    db.execute(statement.on_conflict_do_update(index_elements=["person_id", "campaign_id"], set_=values))
    db.expire_all()
    audit.record(db, admin, "member.exclude", "campaign", campaign.id, member=person.id, reason=reason)


def reinstate(db: Session, admin: Person | None, campaign: Campaign, person_id: int) -> None:
    """Open the campaign to somebody again, past its test and screening: an admin has looked."""
    membership = db.get(Membership, (person_id, campaign.id))
    if membership is None:
        raise NotFound("There is no such member.")
    before = membership.status
    membership.status, membership.reason = "active", None
    if campaign.pass_mark is not None and membership.passed_at is None:
        membership.passed_at = func.now()
    if campaign.screening_items and membership.screened_at is None:
        membership.screened_at = func.now()
    membership.changed_at = func.now()
    db.flush()
    audit.record(db, admin, "member.reinstate", "campaign", campaign.id, member=person_id, before=before)


def _person(db: Session, person_id: int) -> Person:
    found = db.get(Person, person_id)
    if found is None:
        raise NotFound("There is no such person.")
    return found


def hold_out(db: Session, admin: Person | None, person_id: int, *, held_out: bool) -> Person:
    """Put somebody into the held-out pool, whose answers from now on only measure, or take them out of it."""
    person = _person(db, person_id)
    if person.held_out != held_out:
        person.held_out = held_out
        db.flush()
        audit.record(db, admin, "person.hold_out", "person", person.id, held_out=held_out)
    return person


def add_question(
    db: Session, admin: Person | None, campaign: Campaign, markdown: str, options: str, explanation: str = ""
) -> Question:
    """Add a question to the test. Options are lines; the right one begins with an asterisk."""
    lines = [line.strip() for line in options.splitlines() if line.strip()]
    right = [place for place, line in enumerate(lines) if line.startswith("*")]
    texts = [line.removeprefix("*").strip() for line in lines]
    if not 1 <= len(markdown.strip()) <= MOST_CHARS:
        raise BadInput(f"A question has 1 to {MOST_CHARS:,} characters.", field="markdown")
    if not 2 <= len(texts) <= 10 or len(right) != 1 or len(set(texts)) < len(texts) or not all(texts):
        raise BadInput("Give 2 to 10 different options, one a line, the right one with * before it.", field="options")
    last = db.scalar(select(func.max(Question.position)).where(Question.campaign_id == campaign.id)) or 0
    made = Question(
        campaign_id=campaign.id, position=last + 1, markdown=markdown.strip(), options=texts, answer=right[0],
        explanation=explanation.strip()[:MOST_CHARS],
    )  # fmt: skip
    db.add(made)
    db.flush()
    audit.record(db, admin, "question.add", "campaign", campaign.id, question=made.id)
    return made


def retire_question(db: Session, admin: Person | None, campaign: Campaign, question_id: int) -> None:
    """Ask a question no more; tries that answered it keep it."""
    question = db.get(Question, question_id)
    if question is None or question.campaign_id != campaign.id:
        raise NotFound("There is no such question in this campaign.")
    left = len(qualifying.questions(db, campaign))
    if campaign.pass_mark is not None and left == 1 and question.retired_at is None:
        raise Conflict(
            "This is the last question of a test that people have to pass. Add another one, or ask for no test."
        )
    if question.retired_at is None:
        question.retired_at = func.now()
        db.flush()
        audit.record(db, admin, "question.retire", "campaign", campaign.id, question=question.id)
