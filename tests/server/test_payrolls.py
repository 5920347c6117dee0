"""Payrolls: every approved entry is paid once, by being in exactly one, and its file can be fetched again."""

from __future__ import annotations

import csv
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, Conflict, NotFound, WhetstoneError
from server.models import AuditEntry, LedgerEntry, Panel, PanelSubmission, Payroll, WorkSession
from server.services.pay import ledger, payrolls
from tests import factories

MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def test_approved_entries_of_the_period_and_currency(db: Session, cast) -> None:
    inside = [factories.entry(db, cast.alice, amount, "approved", created_at=MAY) for amount in ("2.01", "-0.50")]
    outside = [
        factories.entry(db, cast.alice, created_at=MAY),
        factories.entry(db, cast.alice, status="rejected", created_at=MAY),
        factories.entry(db, cast.alice, status="approved", created_at=JUNE),
        factories.entry(db, cast.alice, status="approved", created_at=MAY, currency="EUR"),
    ]
    before = [each.status for each in outside]
    assert [(each.currency, each.entries, each.people, each.amount) for each in payrolls.due(db)] == [
        ("EUR", 1, 1, Decimal(2)),
        ("USD", 3, 1, Decimal("3.51")),
    ]
    made = payrolls.make(db, cast.ada, "usd", MAY, JUNE, "key-of-the-page")
    assert (made.entries, made.total, made.currency) == (2, Decimal("1.51"), "USD")
    assert [(each.status, each.payroll_id) for each in inside] == [("paid", made.id)] * 2
    assert [each.status for each in outside] == before
    assert payrolls.make(db, cast.ada, "USD", MAY, JUNE, "key-of-the-page") is made
    assert db.query(AuditEntry).filter_by(action="pay.payroll", object_id=made.id).count() == 1
    with pytest.raises(Conflict, match="No approved entry"):
        payrolls.make(db, cast.ada, "USD", MAY, JUNE)


@pytest.mark.parametrize(("currency", "since", "until"), [("XYZ", None, None), ("USD", JUNE, MAY), ("USD", MAY, MAY)])
def test_what_cannot_be_asked_for(db: Session, cast, currency: str, since: datetime, until: datetime) -> None:
    factories.entry(db, cast.alice, status="approved")
    with pytest.raises(BadInput):
        payrolls.make(db, cast.ada, currency, since, until)
    with pytest.raises(NotFound):
        payrolls.find(db, 999_999)


def test_the_file_says_who_gets_what_for_what(db: Session, cast) -> None:
    campaign = factories.campaign(db, slug="chat")
    panel = Panel(slug="study", name="Study", kind="prolific", campaign_id=campaign.id, settings={})
    db.add(panel)
    db.flush()
    sent = PanelSubmission(panel_id=panel.id, person_id=cast.bob.id, participant="5f00", external_id="s-1")
    db.add(sent)
    db.flush()
    session = WorkSession(person_id=cast.bob.id, campaign_id=campaign.id, submission_id=sent.id)
    db.add(session)
    db.flush()
    cast.bob.name = '=HYPERLINK("http://evil.example"), "Bob"'
    factories.entry(
        db, cast.alice, "2.50", "pending", kind="bonus", minutes=None, rate_per_hour=None, reason="Thanks, all."
    )
    factories.entry(db, cast.bob, campaign_id=campaign.id, work_session_id=session.id)
    ids = [each.id for each in db.query(LedgerEntry)]
    ledger.approve(db, cast.ada, ids)
    made = payrolls.make(db, cast.ada, "USD")
    first = list(payrolls.as_csv(db, made))
    rows = list(csv.DictReader(first))
    assert len(rows) == 2
    kept = ("name", "email", "panel", "participant", "campaign", "kind", "minutes", "rate_per_hour", "amount", "reason")
    assert [[row[name] for name in kept] for row in rows] == [
        ["Alice", cast.alice.email, "", "", "", "bonus", "", "", "2.50", "Thanks, all."],
        ["'" + cast.bob.name, cast.bob.email, "study", "5f00", "chat", "time", "10.00", "12.00", "2.00", ""],
    ]
    assert sum(Decimal(row["amount"]) for row in rows) == made.total
    assert all(row["payroll"] == str(made.id) and row["approved_at"] for row in rows)
    factories.entry(db, cast.alice, status="approved")
    assert list(payrolls.as_csv(db, made)) == first  # what came later is in the next one


def test_nothing_is_paid_twice_by_payrolls_at_once(committed: str) -> None:
    sessions = session_factory(committed)
    with sessions.begin() as db:
        ada, alice = factories.person(db, "Ada", "admin"), factories.person(db, "Alice")
        for _ in range(50):
            factories.entry(db, alice, "1.00", "approved")
    together = threading.Barrier(6)
    made: list[Payroll | None] = []

    def pay() -> None:
        together.wait()
        try:
            with sessions.begin() as db:
                made.append(payrolls.make(db, ada, "USD"))
        except WhetstoneError:
            made.append(None)

    threads = [threading.Thread(target=pay) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sessions() as db:
        kept = db.query(Payroll).all()  # those that found nothing are gone
        assert sum(each is not None for each in made) == len(kept)
        assert sum(each.entries for each in kept) == 50
        assert sum(each.total for each in kept) == Decimal(50)
        for each in kept:
            assert db.query(LedgerEntry).filter_by(payroll_id=each.id, status="paid").count() == each.entries
