"""Skipping a turn, and reporting that something is wrong with one: said in one step, a reason from a closed list."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound
from server.language import _, later
from server.models import Campaign, Candidate, Person, Report, Skip, Turn
from server.services import audit
from server.services.chat import dialogue, queue
from server.services.door import screening
from server.services.working import answers, leases

MAX_NOTE_CHARS = 2_000
SKIP_REASONS = {
    "cannot_tell": later("I cannot tell"),
    "not_my_field": later("I do not know enough about it"),
    "not_my_language": later("It is in a language that I do not read well"),
    "upsetting": later("I do not want to read this"),
    "broken": later("Something is broken"),
    "other": later("Another reason"),
}
REPORT_REASONS = {
    "harmful": later("It is harmful or illegal"),
    "private": later("It tells private things about a real person"),
    "nonsense": later("It is broken or unreadable"),
    "identity": later("It gives away which model wrote it"),
    "off_task": later("It has nothing to do with the task"),
    "other": later("Another reason"),
}


def skip(db: Session, person: Person, turn_id: int, reason: str = "cannot_tell", note: str | None = None) -> Turn:
    """Leave a turn unanswered, for good: one of the queue goes to others; one's own chat ends. Skipping again changes nothing."""
    _check_reason(reason, SKIP_REASONS)
    turn = queue.lent_or_own(db, person, turn_id)
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    if queue.has_answered(db, person, campaign, turn):
        return turn  # sent late or twice: the answer stands, and the chat goes on
    values = {
        "campaign_id": campaign.id,
        "turn_id": turn.id,
        "person_id": person.id,
        "reason": reason,
        "note": _note(note),
    }
    db.execute(insert(Skip).values(**values).on_conflict_do_nothing(index_elements=["turn_id", "person_id"]))
    if turn.conversation.person_id == person.id:
        current = dialogue.open_conversation(db, person, campaign)
        if current is not None and current.id == turn.conversation_id:
            dialogue.finish(db, person, campaign)
    else:
        leases.release(db, person, turn.conversation, turn.id)
        if turn.check_kind == "gold":
            screening.judge(db, person, campaign)
    db.flush()
    return turn


def report(
    db: Session, person: Person, turn_id: int, reason: str, note: str | None = None, shown: int | None = None
) -> Report:
    """Tell an admin that something is wrong with a turn, or with the reply at the place `shown`, as this person sees them.

    The same report again, while it is open, is the one that is there.
    """
    _check_reason(reason, REPORT_REASONS)
    turn = queue.lent_or_own(db, person, turn_id)
    candidate: Candidate | None = None
    if shown is not None:
        replies = queue.as_shown(turn, leases.find(db, person, turn.conversation, turn_id))
        if not 0 <= shown < len(replies):
            raise NotFound(_("There is no such reply."))
        candidate = replies[shown]
    told = db.scalar(
        select(Report).where(
            Report.turn_id == turn.id,
            Report.person_id == person.id,
            Report.reason == reason,
            Report.candidate_id.is_not_distinct_from(candidate and candidate.id),
            Report.closed_at.is_(None),
        )
    )
    if told is not None:
        return told
    made = Report(
        campaign_id=turn.conversation.campaign_id,
        turn_id=turn.id,
        candidate_id=candidate and candidate.id,
        person_id=person.id,
        reason=reason,
        note=_note(note),
    )
    db.add(made)
    db.flush()
    return made


def _check_reason(reason: str, known: dict[str, str]) -> None:
    if reason not in known:
        raise BadInput(_("The reason is one of {reasons}.", reasons=", ".join(known)), field="reason")


def _note(note: str | None) -> str | None:
    note = answers.cleaned(note)
    if len(note) > MAX_NOTE_CHARS:
        raise BadInput(_("The note has at most {most} characters.", most=MAX_NOTE_CHARS), field="note")
    return note or None


def open_reports(db: Session, limit: int = 200) -> list[Report]:
    """What nobody has looked at yet, the oldest first."""
    return list(db.scalars(select(Report).where(Report.closed_at.is_(None)).order_by(Report.id).limit(limit)))


def close_report(db: Session, admin: Person, report_id: int) -> Report:
    """Note that an admin has looked at a report; a closed one stays as it is."""
    found = db.get(Report, report_id)
    if found is None:
        raise NotFound(_("There is no such report."))
    if found.closed_at is None:
        found.closed_at, found.closed_by_id = datetime.now(UTC), admin.id
        audit.record(db, admin, "report.close", "report", found.id)
        db.flush()
    return found
