"""Notices: who gets one, that nobody gets it twice, and that the number of unread ones is always right."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, NotFound
from server.models import AuditEntry, Membership, Notice, Person
from server.services import notices
from server.services.working import work_time
from tests import factories

KEY = "key-of-the-page"


def unread(db: Session, person: Person) -> tuple[int, int]:
    """(as it is kept, as it is counted)"""
    db.refresh(person)
    return person.unread_notices, db.query(Notice).filter_by(person_id=person.id, read_at=None).count()


def test_sent_once_and_read_once(db: Session, cast) -> None:
    for got in (2, 0):
        assert (
            notices.send(db, cast.ada, [cast.alice.id, cast.bob.id, cast.bob.id], "Hello", idempotency_key=KEY) == got
        )
    notices.send(db, cast.ada, [cast.alice.id], "Another")
    assert (unread(db, cast.alice), unread(db, cast.bob)) == ((2, 2), (1, 1))
    newest = notices.newest(db, cast.alice)
    assert [each.text for each in newest] == ["Another", "Hello"]
    assert [notices.mark_read(db, cast.alice, newest[0].id) for _ in range(2)] == [1, 0]
    assert unread(db, cast.alice) == (1, 1)
    with pytest.raises(NotFound):
        notices.mark_read(db, cast.mallory, newest[1].id)
    assert [notices.mark_read(db, cast.alice) for _ in range(2)] == [1, 0]
    assert (unread(db, cast.alice), unread(db, cast.bob)) == ((0, 0), (1, 1))


def test_the_people_of_a_campaign(db: Session, cast) -> None:
    campaign, other = factories.campaign(db), factories.campaign(db)
    dora, emil, finn = (factories.person(db, name) for name in ("Dora", "Emil", "Finn"))
    factories.comparison(db, factories.turn(db, factories.conversation(db, campaign, cast.alice)), cast.alice)
    work_time.seen(db, cast.bob, campaign)
    work_time.seen(db, cast.mallory, other)
    db.add_all([Membership(person_id=dora.id, campaign_id=campaign.id),
                Membership(person_id=emil.id, campaign_id=campaign.id, status="left")])  # fmt: skip
    for gone in (emil, finn):
        work_time.seen(db, gone, campaign)
    finn.disabled_at = cast.alice.created_at
    db.flush()
    assert notices.people_of(db, campaign) == [cast.alice.id, cast.bob.id, dora.id]


def test_what_an_admin_sends_is_written_down_without_its_words(db: Session, cast) -> None:
    for _ in range(2):
        notices.send_and_audit(db, cast.ada, [cast.bob.id], "A secret word", campaign=None, idempotency_key=KEY)
    found = db.query(AuditEntry).filter_by(action="notice.send").one()
    assert (found.person_id, found.object_id, found.details) == (cast.ada.id, cast.bob.id, {"people": 1})
    for text in (" ", "x" * 10_001):
        with pytest.raises(BadInput):
            notices.send(db, cast.ada, [cast.bob.id], text)
    with pytest.raises(BadInput):
        notices.send_and_audit(db, cast.ada, [], "Hello", campaign=None, idempotency_key=KEY)


def test_the_number_is_right_whatever_happens_at_once(committed: str) -> None:
    sessions = session_factory(committed)
    with sessions.begin() as db:
        people = [factories.person(db, f"P{number}") for number in range(3)]
    together = threading.Barrier(6)

    def at_once(number: int) -> None:
        for _ in range(10):
            together.wait()
            with sessions.begin() as db:
                if number < 3:
                    notices.mark_read(db, db.get_one(Person, people[number].id))
                else:
                    notices.send(db, None, [each.id for each in people][:: (-1) ** number], "Hello")

    threads = [threading.Thread(target=at_once, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sessions() as db:
        assert db.query(Notice).count() == 3 * 30
        for each in people:
            kept, counted = unread(db, db.get_one(Person, each.id))
            assert kept == counted
