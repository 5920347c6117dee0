"""Payrolls: approved entries of a period in one currency become paid by being handed over, all in one transaction.

A payroll keeps its entries for good, so its file can be fetched again and again, and no entry is ever in two.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, LedgerEntry, Panel, PanelSubmission, Payroll, Person, WorkSession
from server.services import audit
from server.services.campaigns.campaign_settings import checked_currency
from server.services.working.answers import checked_key

COLUMNS = (
    "payroll", "entry", "person", "name", "email", "panel", "participant", "campaign", "kind", "minutes", "rate_per_hour",
    "amount", "currency", "reason", "entered_at", "approved_at",
)  # fmt: skip
# A spreadsheet takes a text that begins so for a formula, and people choose their own names.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Due:
    """What could be paid now in one currency."""

    currency: str
    entries: int
    people: int
    amount: Decimal


def due(db: Session) -> list[Due]:
    """Approved and not paid, by currency."""
    rows = db.execute(
        select(
            LedgerEntry.currency,
            func.count(),
            func.count(LedgerEntry.person_id.distinct()),
            func.sum(LedgerEntry.amount),
        )
        .where(LedgerEntry.status == "approved")
        .group_by(LedgerEntry.currency)
        .order_by(LedgerEntry.currency)
    )
    return [Due(*row) for row in rows]


def period(since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """The first moment and the first moment after it, of days as a form or a command has them: UTC, the last one included."""
    first, last = _day("since", since), _day("until", until)
    return first, last and last + timedelta(days=1)


def _day(field: str, text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC) if text.strip() else None
    except ValueError as error:
        raise BadInput(f"{field} must be a day like 2026-05-31, or empty.", field=field) from error


def make(
    db: Session,
    admin: Person | None,
    currency: str,
    since: datetime | None = None,
    until: datetime | None = None,
    idempotency_key: str | None = None,
) -> Payroll:
    """Put every approved entry that was entered from `since` to before `until` into a new payroll; they are paid by it.

    The same key again gives the same payroll. Conflict when there is nothing to pay: the caller rolls back.
    """
    code = checked_currency(currency)
    if since is not None and until is not None and since >= until:
        raise BadInput("The period ends before it begins.", field="until")
    if admin is not None and idempotency_key is not None:
        checked_key(idempotency_key)
        mine = (Payroll.created_by_id == admin.id, Payroll.idempotency_key == idempotency_key)
        earlier = db.scalar(select(Payroll).where(*mine))
        if earlier is not None:
            return earlier
    made = Payroll(
        currency=code,
        since=since,
        until=until,
        entries=1,  # counted below, when they are its own
        total=Decimal(0),
        created_by_id=admin and admin.id,
        idempotency_key=idempotency_key,
    )
    db.add(made)
    db.flush()
    period: list[ColumnElement[bool]] = []
    if since is not None:
        period.append(LedgerEntry.created_at >= since)
    if until is not None:
        period.append(LedgerEntry.created_at < until)
    paid = (
        update(LedgerEntry)
        .where(LedgerEntry.status == "approved", LedgerEntry.currency == code, *period)
        .values(status="paid", payroll_id=made.id)
        .returning(LedgerEntry.amount)
        .execution_options(synchronize_session=False)
    )
    amounts = db.scalars(paid).all()
    if not amounts:
        raise Conflict(f"No approved entry in {code} waits for payment in this period.", field="currency")
    db.expire_all()
    made.entries, made.total = len(amounts), sum(amounts, Decimal(0))
    audit.record(
        db, admin, "pay.payroll", "payroll", made.id, currency=code, entries=len(amounts), total=str(made.total)
    )
    db.flush()
    return made


def find(db: Session, payroll_id: int) -> Payroll:
    """The payroll, or NotFound."""
    found = db.get(Payroll, payroll_id)
    if found is None:
        raise NotFound(f"There is no payroll {payroll_id}; `whetstone pay show` and the page Pay list them.")
    return found


def newest(db: Session, limit: int = 50) -> list[Payroll]:
    """The payrolls, the newest first."""
    return list(db.scalars(select(Payroll).order_by(Payroll.id.desc()).limit(limit)))


def as_csv(db: Session, payroll: Payroll) -> Iterator[str]:
    """The lines of a payroll's file, one an entry, read in pieces; names are as they are today."""
    rows = db.execute(
        select(LedgerEntry, Person, Campaign.slug, Panel.slug, PanelSubmission.participant)
        .join(Person, Person.id == LedgerEntry.person_id)
        .outerjoin(Campaign, Campaign.id == LedgerEntry.campaign_id)
        .outerjoin(WorkSession, WorkSession.id == LedgerEntry.work_session_id)
        .outerjoin(PanelSubmission, PanelSubmission.id == WorkSession.submission_id)
        .outerjoin(Panel, Panel.id == PanelSubmission.panel_id)
        .where(LedgerEntry.payroll_id == payroll.id)
        .order_by(LedgerEntry.person_id, LedgerEntry.id)
        .execution_options(yield_per=500)
    )
    yield _line(COLUMNS)
    for entry, person, campaign, panel, participant in rows:
        yield _line(
            (
                payroll.id,
                entry.id,
                person.id,
                _text(person.name),
                _text(person.email),
                panel,
                _text(participant),
                campaign,
                entry.kind,
                entry.minutes,
                entry.rate_per_hour,
                entry.amount,
                entry.currency,
                _text(entry.reason),
                entry.created_at.isoformat(),
                entry.status_at.isoformat() if entry.status_at else "",
            )
        )


def _line(values: tuple[object, ...]) -> str:
    box = io.StringIO()
    csv.writer(box).writerow(values)
    return box.getvalue()


def _text(text: str | None) -> str:
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else text or ""
