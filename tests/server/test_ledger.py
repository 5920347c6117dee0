"""The ledger: what may become of an entry, bonuses, appeals; and that each step is written down and told."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, Conflict, NotFound
from server.models import Appeal, AuditEntry, LedgerEntry, Notice, Person
from server.services.pay import appeals, ledger
from server.services.pay.ledger import Wanted
from tests import factories

KEY = "key-of-the-page"


def told(db: Session, person: Person) -> list[str]:
    return list(db.scalars(select(Notice.text).where(Notice.person_id == person.id).order_by(Notice.id)))


def actions(db: Session) -> list[tuple[str, int | None]]:
    found = db.query(AuditEntry).filter(AuditEntry.action.like("pay.%")).order_by(AuditEntry.id)
    return [(each.action, each.object_id) for each in found]


@pytest.mark.parametrize(("before", "approves", "rejects"), [
    ("pending", True, True), ("approved", False, True), ("rejected", True, False), ("paid", False, False),
])  # fmt: skip
def test_what_may_become_of_an_entry(db: Session, cast, before: str, approves: bool, rejects: bool) -> None:
    more = {"payroll_id": factories.payroll(db).id} if before == "paid" else {}
    for act, works, after in (
        (lambda ids: ledger.approve(db, cast.ada, ids), approves, "approved"),
        (lambda ids: ledger.reject(db, cast.ada, ids, "Nobody was there."), rejects, "rejected"),
    ):
        entry = factories.entry(db, cast.alice, status=before, **more)
        assert act([entry.id, entry.id, 999_999]) == ((1, 1) if works else (0, 2))
        assert entry.status == (after if works else before)
        if works:
            db.refresh(entry)
            assert (entry.status_by_id, entry.status_at is not None) == (cast.ada.id, True)
            assert (entry.status_reason is not None) == (after == "rejected")
            assert actions(db)[-1] == (f"pay.{after}", entry.id)


def test_a_rejection_has_a_reason_and_is_told_in_the_persons_language(db: Session, cast) -> None:
    campaign = factories.campaign(db, name="Chat")
    entry = factories.entry(db, cast.alice, campaign_id=campaign.id)
    with pytest.raises(BadInput, match="reason"):
        ledger.reject(db, cast.ada, [entry.id], "  ")
    assert entry.status == "pending"
    ledger.reject(db, cast.ada, [entry.id], "Nobody was there.")
    assert told(db, cast.alice) == [
        "$2.00 of your pay (Chat) was rejected: Nobody was there. You can object to this once, on this page."
    ]
    db.refresh(cast.alice)
    assert cast.alice.unread_notices == 1
    cast.bob.language = "de"
    ledger.reject(db, cast.ada, [factories.entry(db, cast.bob).id], "Nobody was there.")
    assert "2,00" in told(db, cast.bob)[0]  # their own way of writing money


def test_all_that_a_page_showed_and_nothing_newer(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    shown = [factories.entry(db, cast.alice, campaign_id=campaign.id) for _ in range(3)]
    other, rejected = factories.entry(db, cast.alice), factories.entry(db, cast.alice, status="rejected")
    newer = factories.entry(db, cast.alice, campaign_id=campaign.id)
    assert ledger.matching(db, Wanted(campaign=campaign.id), rejected.id) == [each.id for each in shown]
    assert ledger.matching(db, Wanted(), newer.id) == [each.id for each in (*shown, other, newer)]
    assert ledger.matching(db, Wanted(status="rejected"), newer.id) == []


def test_bonuses_and_corrections(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    both = [cast.alice, cast.bob]
    for added in (2, 0):  # the second is the same request again
        assert ledger.add(db, cast.ada, both, "bonus", "2.50", "usd", "Well done.", KEY, campaign) == added
    assert ledger.add(db, cast.ada, [cast.alice], "correction", "-1", "USD", "Paid twice.", KEY + "2") == 1
    found = db.query(LedgerEntry).order_by(LedgerEntry.id).all()
    assert [(each.kind, each.amount, each.status, each.minutes) for each in found] == [
        ("bonus", Decimal("2.50"), "approved", None),
        ("bonus", Decimal("2.50"), "approved", None),
        ("correction", Decimal(-1), "approved", None),
    ]
    assert told(db, cast.alice) == [
        "You were given a bonus of $2.50: Well done.",
        "Your pay was corrected by -$1.00: Paid twice.",
    ]
    assert [action for action, _ in actions(db)] == ["pay.bonus", "pay.bonus", "pay.correction"]


@pytest.mark.parametrize(("wrong", "field"), [
    ({"kind": "time"}, "kind"), ({"amount": "0"}, "amount"), ({"amount": "-2"}, "amount"), ({"amount": "nan"}, "amount"),
    ({"amount": "1e9"}, "amount"), ({"amount": "2.505"}, "amount"), ({"amount": "much"}, "amount"),
    ({"amount": "2.50", "currency": "JPY"}, "amount"), ({"currency": "XYZ"}, "currency"), ({"reason": " "}, "reason"),
    ({"people": []}, "people"), ({"idempotency_key": "short"}, "idempotency_key"),
])  # fmt: skip
def test_what_cannot_be_added(db: Session, cast, wrong: dict, field: str) -> None:
    given = {"people": [cast.bob], "kind": "bonus", "amount": "2", "currency": "USD", "reason": "Thanks.",
             "idempotency_key": KEY}  # fmt: skip
    with pytest.raises(BadInput) as refused:
        ledger.add(db, cast.ada, **(given | wrong))
    assert refused.value.field == field
    assert db.query(LedgerEntry).count() == 0


@pytest.mark.parametrize(("outcome", "status"), [("granted", "approved"), ("upheld", "rejected")])
def test_an_appeal_is_made_once_and_answered_once(db: Session, cast, outcome: str, status: str) -> None:
    entry = factories.entry(db, cast.alice, status="rejected")
    made = appeals.appeal(db, cast.alice, entry.id, " I was there. ")
    assert appeals.appeal(db, cast.alice, entry.id, "I was there.") is made  # a double click
    with pytest.raises(Conflict, match="before"):
        appeals.appeal(db, cast.alice, entry.id, "Another word")
    assert [line.appeal for line in ledger.appeals_waiting(db)] == [made]
    assert ledger.approve(db, cast.ada, [entry.id]) == (0, 1)  # not past the person who waits for an answer
    for bad, field in (({"outcome": "no"}, "outcome"), ({"answer": ""}, "answer")):
        with pytest.raises(BadInput) as refused:
            ledger.answer_appeal(db, cast.ada, made.id, **({"outcome": outcome, "answer": "We looked."} | bad))
        assert refused.value.field == field
    ledger.answer_appeal(db, cast.ada, made.id, outcome, "We looked.")
    assert (entry.status, made.outcome, made.answer) == (status, outcome, "We looked.")
    assert ledger.appeals_waiting(db) == []
    with pytest.raises(Conflict, match="answer already"):
        ledger.answer_appeal(db, cast.ada, made.id, "upheld", "Again.")
    assert "We looked." in told(db, cast.alice)[-1]
    assert actions(db)[-1] == (f"pay.appeal_{outcome}", entry.id)
    # what was granted cannot be taken away again
    assert ledger.reject(db, cast.ada, [entry.id], "After all.") == (0, 1)


def test_only_ones_own_rejected_lines_can_be_appealed(db: Session, cast) -> None:
    rejected, pending = factories.entry(db, cast.alice, status="rejected"), factories.entry(db, cast.alice)
    with pytest.raises(NotFound):
        appeals.appeal(db, cast.mallory, rejected.id, "Mine!")
    with pytest.raises(Conflict, match="not rejected"):
        appeals.appeal(db, cast.alice, pending.id, "Please.")
    for text in ("", "x" * (appeals.MAX_CHARS + 1)):
        with pytest.raises(BadInput):
            appeals.appeal(db, cast.alice, rejected.id, text)
    with pytest.raises(NotFound):
        ledger.answer_appeal(db, cast.ada, 999_999, "granted", "Yes.")
    assert db.query(Appeal).count() == 0


def test_lists_and_sums(db: Session, cast) -> None:
    campaign = factories.campaign(db, name="Chat")
    made = [factories.entry(db, cast.alice, campaign_id=campaign.id) for _ in range(5)]
    factories.entry(db, cast.bob, "3.00", "rejected", currency="EUR")
    page, older = ledger.lines(db, Wanted(person=cast.alice.id), limit=3)
    assert [line.entry for line in page] == made[:1:-1]
    assert {(line.person, line.campaign) for line in page} == {("Alice", "Chat")}
    rest, none = ledger.lines(db, Wanted(person=cast.alice.id), older, limit=3)
    assert ([line.entry for line in rest], none) == (made[1::-1], None)
    assert ledger.sums(db, Wanted()) == [
        ledger.Sum("pending", "USD", 5, Decimal(10)),
        ledger.Sum("rejected", "EUR", 1, Decimal(3)),
    ]
    assert ledger.sums(db, Wanted(status="rejected", campaign=campaign.id)) == []


def test_who_rejects_while_an_appeal_is_granted_comes_too_late(committed: str) -> None:
    sessions = session_factory(committed)
    with sessions.begin() as db:
        ada, alice = factories.person(db, "Ada", "admin"), factories.person(db, "Alice")
        entry = factories.entry(db, alice, status="rejected")
        appeal = appeals.appeal(db, alice, entry.id, "I was there.")
    result: list[tuple[int, int]] = []

    def reject() -> None:
        with sessions.begin() as db:
            result.append(ledger.reject(db, ada, [entry.id], "No."))

    thread = threading.Thread(target=reject)
    with sessions.begin() as db:
        ledger.answer_appeal(db, ada, appeal.id, "granted", "Yes.")
        thread.start()
        thread.join(0.5)  # it waits for the row
        assert thread.is_alive()
    thread.join()
    assert result == [(0, 1)]
    with sessions() as db:
        assert db.get_one(LedgerEntry, entry.id).status == "approved"
