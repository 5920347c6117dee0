"""The ledger, for admins: approving, rejecting, bonuses and corrections, and the answers to appeals.

pending -> approved or rejected -> ... -> paid. What is paid stays so. Until then an admin may think again, but not about an
entry whose appeal was granted, nor by the way of an appeal that waits for its answer. The person is told of each rejection,
bonus, correction and answer by a notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.language import _, money, speaking
from server.models import Appeal, Campaign, LedgerEntry, Person, WorkSession
from server.services import audit, notices
from server.services.campaigns.campaign_settings import checked_currency
from server.services.working.answers import checked_key
from server.services.working.work_time import in_coins

STATUSES = ("pending", "approved", "rejected", "paid")
KINDS = ("time", "bonus", "correction")
PAGE = 100
MOST_AT_ONCE = 5000
MAX_AMOUNT = Decimal(1_000_000)
MAX_REASON_CHARS = 2000


@dataclass(frozen=True)
class Wanted:
    """Which entries a page shows."""

    status: str = ""
    person: int | None = None
    campaign: int | None = None
    kind: str = ""

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL; what is empty asks for nothing."""
        found: list[ColumnElement[bool]] = []
        if self.status:
            found.append(LedgerEntry.status == self.status)
        if self.kind:
            found.append(LedgerEntry.kind == self.kind)
        if self.person is not None:
            found.append(LedgerEntry.person_id == self.person)
        if self.campaign is not None:
            found.append(LedgerEntry.campaign_id == self.campaign)
        return found


@dataclass(frozen=True)
class Line:
    """One entry as it is shown, with the names it speaks of and its appeal."""

    entry: LedgerEntry
    person: str
    campaign: str
    appeal: Appeal | None
    session: WorkSession | None  # how it ended and how much was answered, for who decides


@dataclass(frozen=True)
class Sum:
    """The entries of one status in one currency."""

    status: str
    currency: str
    entries: int
    amount: Decimal


def lines(db: Session, wanted: Wanted, before: int | None = None, limit: int = PAGE) -> tuple[list[Line], int | None]:
    """The newest entries, and where the next page begins."""
    query = _lines().where(*wanted.conditions()).order_by(LedgerEntry.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(LedgerEntry.id < before)
    found = _read(db, query)
    return found[:limit], (found[limit - 1].entry.id if len(found) > limit else None)


def _read(db: Session, query: Select[LedgerEntry, str, str, Appeal, WorkSession]) -> list[Line]:
    return [Line(*found) for found in db.execute(query)]


def _lines() -> Select[LedgerEntry, str, str, Appeal, WorkSession]:
    return (
        select(LedgerEntry, Person.name, func.coalesce(Campaign.name, ""), Appeal, WorkSession)
        .join(Person, Person.id == LedgerEntry.person_id)
        .outerjoin(Campaign, Campaign.id == LedgerEntry.campaign_id)
        .outerjoin(Appeal, Appeal.ledger_entry_id == LedgerEntry.id)
        .outerjoin(WorkSession, WorkSession.id == LedgerEntry.work_session_id)
    )


def sums(db: Session, wanted: Wanted) -> list[Sum]:
    """What the entries come to, by status and currency."""
    rows = db.execute(
        select(LedgerEntry.status, LedgerEntry.currency, func.count(), func.sum(LedgerEntry.amount))
        .where(*wanted.conditions())
        .group_by(LedgerEntry.status, LedgerEntry.currency)
    )
    return sorted((Sum(*row) for row in rows), key=lambda each: (STATUSES.index(each.status), each.currency))


def appeals_waiting(db: Session, limit: int = 100) -> list[Line]:
    """Appeals without an answer, the oldest first."""
    query = _lines().where(Appeal.id.is_not(None), Appeal.answered_at.is_(None))
    return _read(db, query.order_by(Appeal.id).limit(limit))


def matching(db: Session, wanted: Wanted, newest_id: int) -> list[int]:
    """Pending entries of a page's filters up to the newest that was on it, MOST_AT_ONCE of them: what came since nobody has seen."""
    conditions = (*wanted.conditions(), LedgerEntry.status == "pending", LedgerEntry.id <= newest_id)
    return list(db.scalars(select(LedgerEntry.id).where(*conditions).order_by(LedgerEntry.id).limit(MOST_AT_ONCE)))


def approve(db: Session, admin: Person, entry_ids: Sequence[int]) -> tuple[int, int]:
    """Approve entries that are pending, or rejected with no appeal waiting; returns (approved, left as they were)."""

    def may(line: Line) -> bool:
        waiting = line.appeal is not None and line.appeal.answered_at is None
        return line.entry.status == "pending" or (line.entry.status == "rejected" and not waiting)

    changed = _change(db, admin, entry_ids, may, "approved", None)
    return len(changed), len(set(entry_ids)) - len(changed)


def reject(db: Session, admin: Person, entry_ids: Sequence[int], reason: str) -> tuple[int, int]:
    """Reject entries that are pending or approved, with a reason for their people; returns (rejected, left as they were)."""
    reason = checked_reason(reason)

    def may(line: Line) -> bool:
        granted = line.appeal is not None and line.appeal.outcome == "granted"
        return line.entry.status in ("pending", "approved") and not granted

    changed = _change(db, admin, entry_ids, may, "rejected", reason)
    for entry in changed:
        with speaking(_language_of(db, entry)):
            told = _(
                "{amount} of your pay ({campaign}) was rejected: {reason} You can object to this once, on this page.",
                amount=money(entry.amount, entry.currency),
                campaign=_campaign_of(db, entry),
                reason=reason,
            )
        _tell(db, admin, entry, told)
    return len(changed), len(set(entry_ids)) - len(changed)


def _change(
    db: Session,
    admin: Person,
    entry_ids: Sequence[int],
    may: Callable[[Line], bool],
    status: str,
    reason: str | None,
) -> list[LedgerEntry]:
    chosen, in_order = LedgerEntry.id.in_(set(entry_ids)), LedgerEntry.id
    # First all locks, then a look: an appeal may be answered while we wait.
    db.execute(select(LedgerEntry.id).where(chosen).order_by(in_order).with_for_update(key_share=True))
    found = _read(db, _lines().where(chosen).order_by(in_order).execution_options(populate_existing=True))
    changed = [line.entry for line in found if may(line)]
    for entry in changed:
        audit.record(
            db, admin, f"pay.{status}", "ledger_entry", entry.id, before=entry.status, reason=reason and reason[:200]
        )
        _set(entry, admin, status, reason)
    db.flush()
    return changed


def _set(entry: LedgerEntry, admin: Person, status: str, reason: str | None) -> None:
    entry.status, entry.status_reason, entry.status_by_id = status, reason, admin.id
    entry.status_at = func.now()  # type: ignore[assignment]  # by the database's clock


def add(
    db: Session,
    admin: Person,
    people: Iterable[Person],
    kind: str,
    amount: str,
    currency: str,
    reason: str,
    idempotency_key: str,
    campaign: Campaign | None = None,
) -> int:
    """A bonus, or a correction (which may be negative), for each of these people; approved, since an admin gives it.

    The same key again adds nothing. Returns how many entries are new.
    """
    if kind not in ("bonus", "correction"):
        raise BadInput("What is added by hand is a bonus or a correction.", field="kind")
    key, reason, code = checked_key(idempotency_key), checked_reason(reason), checked_currency(currency)
    money_given = checked_amount(amount, code)
    if kind == "bonus" and money_given < 0:
        raise BadInput("A bonus is more than nothing; to take something back make a correction.", field="amount")
    chosen = list(people)
    if not chosen:
        raise BadInput("Say whom it is for.", field="people")
    rows = [
        {
            "person_id": person.id,
            "campaign_id": campaign and campaign.id,
            "kind": kind,
            "amount": money_given,
            "currency": code,
            "reason": reason,
            "status": "approved",
            "status_by_id": admin.id,
            "status_at": func.now(),
            "created_by_id": admin.id,
            "idempotency_key": f"{key}:{person.id}",
        }
        for person in chosen
    ]
    made = db.scalars(
        insert(LedgerEntry)
        .values(rows)
        .on_conflict_do_nothing(index_elements=["created_by_id", "idempotency_key"])
        .returning(LedgerEntry)
    ).all()
    for entry in made:
        audit.record(db, admin, f"pay.{kind}", "ledger_entry", entry.id, amount=str(entry.amount), currency=code)
        with speaking(_language_of(db, entry)):
            sentence = (
                _("You were given a bonus of {amount}: {reason}", amount=money(entry.amount, code), reason=reason)
                if kind == "bonus"
                else _("Your pay was corrected by {amount}: {reason}", amount=money(entry.amount, code), reason=reason)
            )
        _tell(db, admin, entry, sentence)
    db.flush()
    return len(made)


def answer_appeal(db: Session, admin: Person, appeal_id: int, outcome: str, answer: str) -> Appeal:
    """Grant an appeal (the entry is approved) or uphold the rejection, with words for the person; once."""
    if outcome not in ("granted", "upheld"):
        raise BadInput("An appeal is granted, or the rejection is upheld.", field="outcome")
    answer = checked_reason(answer, "answer")
    appeal = db.scalar(
        select(Appeal)
        .where(Appeal.id == appeal_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if appeal is None:
        raise NotFound("There is no such appeal.")
    if appeal.answered_at is not None:
        raise Conflict("This appeal has its answer already. Reload the page.")
    entry = db.get_one(LedgerEntry, appeal.ledger_entry_id, with_for_update=True)
    appeal.outcome, appeal.answer, appeal.answered_by_id = outcome, answer, admin.id
    appeal.answered_at = func.now()  # type: ignore[assignment]
    if outcome == "granted":
        _set(entry, admin, "approved", None)
    audit.record(db, admin, f"pay.appeal_{outcome}", "ledger_entry", entry.id, appeal=appeal.id)
    with speaking(_language_of(db, entry)):
        amount = money(entry.amount, entry.currency)
        sentence = (
            _("Your objection was right: {amount} is approved. {answer}", amount=amount, answer=answer)
            if outcome == "granted"
            else _("Your objection was looked at; {amount} stays rejected. {answer}", amount=amount, answer=answer)
        )
    _tell(db, admin, entry, sentence)
    db.flush()
    return appeal


def checked_reason(text: str, field: str = "reason") -> str:
    """Words for the person, required."""
    text = text.replace("\0", "").strip()
    if not 1 <= len(text) <= MAX_REASON_CHARS:
        raise BadInput(f"The {field} has 1 to {MAX_REASON_CHARS:,} characters; the person reads it.", field=field)
    return text


def checked_amount(text: str, currency: str) -> Decimal:
    """An amount that can be paid in the currency, not zero."""
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not amount or abs(amount) > MAX_AMOUNT or in_coins(amount, currency) != amount:
        raise BadInput(
            f"The amount is a number like 2.50, not zero, at most {MAX_AMOUNT:,}, in whole coins of {currency}.",
            field="amount",
        )
    return in_coins(amount, currency)


def _tell(db: Session, admin: Person, entry: LedgerEntry, sentence: str) -> None:
    campaign = db.get(Campaign, entry.campaign_id) if entry.campaign_id is not None else None
    notices.send(db, admin, [entry.person_id], sentence, campaign=campaign)


def _language_of(db: Session, entry: LedgerEntry) -> str | None:
    return db.get_one(Person, entry.person_id).language


def _campaign_of(db: Session, entry: LedgerEntry) -> str:
    return db.get_one(Campaign, entry.campaign_id).name if entry.campaign_id is not None else _("all campaigns")
