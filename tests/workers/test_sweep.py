"""Lost messages and dead workers are found from the rows alone."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from server.db import session_factory
from server.models import (
    Candidate,
    Conversation,
    Job,
    Lease,
    LedgerEntry,
    LoginSession,
    Person,
    Turn,
    WorkSession,
)
from server.services import lost
from server.services.chat import dialogue
from server.services.people import people
from server.services.working import work_time
from server.settings import Settings
from server.transaction import QUEUES
from tests import factories
from workers import context
from workers.sweep import tidy


def waiting_turn(db: Session, *, seconds: float, **candidate: object) -> Turn:
    chat = factories.conversation(db, factories.campaign(db), factories.person(db))
    turn = factories.turn(db, chat, status="sampling")
    made = func.now() - timedelta(seconds=seconds)
    values = {"status": "queued", "created_at": made, "text": None, **candidate}
    db.execute(update(Candidate).where(Candidate.turn_id == turn.id).values(values))
    return turn


def test_a_reply_nobody_took_is_asked_for_again_with_patience(db: Session):
    fresh = waiting_turn(db, seconds=4)
    old = waiting_turn(db, seconds=6)
    assert lost.ask_for_replies(db) == [old.id]
    assert db.info["tasks"] == [("reply", {"turn_id": old.id})]
    assert lost.ask_for_replies(db) == []  # asked for just now
    ago = func.now() - timedelta(seconds=30)  # made 36 s ago, last asked for at 6 s: the next time is at 12 s
    db.execute(
        update(Candidate)
        .where(Candidate.turn_id == old.id)
        .values(heartbeat_at=ago, created_at=ago - timedelta(seconds=6))
    )
    assert lost.ask_for_replies(db) == [old.id]
    assert fresh.id != old.id


def test_a_reply_whose_worker_died_is_queued_again(db: Session):
    alive = waiting_turn(db, seconds=60, status="sampling", heartbeat_at=func.now() - timedelta(seconds=15))
    dead = waiting_turn(db, seconds=60, status="sampling", heartbeat_at=func.now() - timedelta(seconds=21))
    assert lost.ask_for_replies(db) == [dead.id]
    db.expire_all()
    assert {one.status for one in db.get_one(Turn, dead.id).candidates} == {"queued"}
    assert {one.status for one in db.get_one(Turn, alive.id).candidates} == {"sampling"}


def test_candidates_of_a_failed_turn_are_left_alone(db: Session):
    turn = waiting_turn(db, seconds=60)
    turn.status = "failed"
    db.flush()
    assert lost.ask_for_replies(db) == []


def test_jobs_likewise(db: Session):
    def job(status: str, seconds: float) -> Job:
        at = func.now() - timedelta(seconds=seconds)
        row = Job(kind="export", settings={}, status=status, created_at=at)
        row.heartbeat_at = at if status == "running" else None
        db.add(row)
        db.flush()
        return row

    job("queued", 3)
    job("running", 50)
    job("done", 600)
    queued, dead = job("queued", 10), job("running", 70)
    hopeless = job("running", 70)
    hopeless.attempts = 5
    db.flush()
    assert lost.ask_for_jobs(db) == [queued.id, dead.id]
    db.expire_all()
    assert db.get_one(Job, hopeless.id).status == "failed"
    assert "Given up" in (db.get_one(Job, hopeless.id).failure or "")
    assert db.get_one(Job, dead.id).status == "queued"
    assert lost.ask_for_jobs(db) == []


def test_what_was_left_is_put_away(committed: str, settings: Settings):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        alice = factories.person(db, "Alice")
        turn = dialogue.send_message(db, alice, factories.campaign(db), "Hello", "key-of-the-page")
        people.start_session(db, alice)
        people.start_session(db, alice)
        db.info.clear()
        db.execute(update(LoginSession).where(LoginSession.token_hash == db.query(LoginSession).first().token_hash)
                   .values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))  # fmt: skip
        leases_end = datetime.now(UTC) - timedelta(minutes=2)
        db.execute(update(Lease).values(expires_at=leases_end))
    first, second = tidy(settings), tidy(settings)
    assert (first.pop("conversations"), first.pop("sign-ins")) == (1, 1)
    assert not any([*first.values(), *second.values()])
    with sessions() as db:
        assert db.get_one(Conversation, turn.conversation_id).status == "abandoned"
        assert db.query(LoginSession).count() == 1


def test_who_went_away_in_the_middle_of_work_is_paid(committed: str, settings: Settings):
    with session_factory(committed).begin() as db:
        campaign = factories.campaign(db, pay_per_hour=Decimal(12))
        for name, silent in (("Alice", 31), ("Bob", 29)):
            work_time.seen(db, factories.person(db, name), campaign)
            db.execute(update(WorkSession).where(WorkSession.active_seconds == 0).values(
                active_seconds=600, seen_at=func.now() - timedelta(minutes=silent)
            ))  # fmt: skip
    assert [tidy(settings)["work sessions"] for _ in range(2)] == [1, 0]
    with session_factory(committed)() as db:
        entry = db.query(LedgerEntry).one()
        assert (db.get_one(Person, entry.person_id).name, entry.minutes, entry.amount) == ("Alice", 10, 2)


def test_a_process_is_known_by_its_place_its_number_and_its_start(monkeypatch: pytest.MonkeyPatch):
    mine = context.process_name()
    place, pid, start = mine.split("/")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert pid == str(os.getpid())
    assert not context.is_dead(f"{mine}/claim-7")
    assert not context.is_dead(f"{place}/{pid}/{int(start) + 2}")  # the clock was set right
    assert context.is_dead(f"{place}/{pid}/{int(start) - 3600}")
    assert context.is_dead(f"{place}/{gone.pid}/{start}")
    assert not context.is_dead("by hand")
    # The same host name in another container: its processes cannot be seen from here, so nothing is said of them.
    monkeypatch.setattr(context, "_place", lambda: f"{place}0")
    assert not context.is_dead(f"{place}/{gone.pid}/{start}")


def test_what_beat_asks_for_waits_behind_no_training():
    assert {QUEUES[task] for task in ("sweep", "tidy", "tick_schedule")} == {"tick"}
    assert {QUEUES[task] for task in ("advance_round", "run_job")} == {"train"}
