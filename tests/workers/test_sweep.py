"""Lost messages and dead workers are found from the rows alone."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from server.models import Candidate, Job, Turn
from server.services import lost
from tests import factories


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
    assert lost.ask_for_jobs(db) == [queued.id, dead.id]
    db.expire_all()
    assert db.get_one(Job, dead.id).status == "queued"
    assert lost.ask_for_jobs(db) == []
