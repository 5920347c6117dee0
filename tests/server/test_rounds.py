"""The step machine with real Postgres: starting, claiming, going on, holding, failing, retrying, cancelling."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, Conflict
from server.models import AuditEntry, Campaign, Round, RoundStep, Run
from server.services.rounds import rounds, runs
from server.services.rounds.round_settings import parse_assignments, parse_settings
from tests import factories

FEW = {"minimum_comparisons": 3}


def some_comparisons(db: Session, count: int = 3, *, strength: int = 3) -> Campaign:
    campaign = factories.campaign(db)
    person = factories.person(db)
    for _ in range(count):
        chat = factories.conversation(db, campaign, person, status="finished")
        factories.comparison(db, factories.turn(db, chat), person, strength=strength)
    return campaign


def started(db: Session) -> Round:
    some_comparisons(db)
    return rounds.start(db, trigger="command", settings=FEW)


def statuses(db: Session, row: Round) -> str:
    db.expire_all()
    return " ".join(step.status for step in rounds.find_round(db, row.id).steps)


def test_a_round_starts_from_the_root_of_what_serves(db: Session):
    some_comparisons(db)
    row = rounds.start(db, trigger="command", settings=FEW)
    assert (row.number, row.status) == (1, "queued")
    assert statuses(db, row) == "queued waiting waiting waiting waiting waiting waiting"
    assert db.info["tasks"] == [("advance_round", {"round_id": row.id})]
    assert rounds.initial_snapshot(db).id == row.initial_snapshot_id


def test_too_few_usable_comparisons_are_refused_with_both_numbers(db: Session):
    some_comparisons(db, 4, strength=1)
    with pytest.raises(BadInput, match="at least 3 usable comparisons and there are 0"):
        rounds.start(db, trigger="command", settings=FEW)


def test_equal_replies_are_not_usable(db: Session):
    campaign = some_comparisons(db, 2)
    person = factories.person(db)
    chat = factories.conversation(db, campaign, person)
    factories.comparison(db, factories.turn(db, chat, replies=("Same.", "Same.")), person)
    with pytest.raises(BadInput, match="there are 2"):
        rounds.start(db, trigger="command", settings=FEW)


def test_one_round_at_a_time(db: Session):
    started(db)
    with pytest.raises(Conflict, match="Round 1 is queued"):
        rounds.start(db, trigger="command", settings=FEW)


def test_two_lineages_need_a_word(db: Session):
    some_comparisons(db)
    other = factories.campaign(db)
    with pytest.raises(BadInput, match="say which"):
        rounds.start(db, trigger="command", settings=FEW)
    serving = next(snapshot for snapshot, campaign in rounds.serving_snapshots(db) if campaign.id == other.id)
    row = rounds.start(db, trigger="command", settings={**FEW, "initial": serving.name})
    assert row.initial_snapshot_id == serving.id
    assert [campaign.id for campaign in rounds.campaigns_to_serve(db, serving)] == [other.id]


def test_a_remote_endpoint_cannot_be_trained(db: Session):
    remote = factories.snapshot(db, backend="openai", path=None, endpoint={"base_url": "http://x/v1", "model": "m"})
    with pytest.raises(BadInput, match="remote endpoint"):
        rounds.initial_snapshot(db, remote.name)


def test_the_steps_follow_one_another_to_the_end(db: Session):
    row = started(db)
    for _ in range(7):
        held = rounds.claim(db, row.id, "worker")
        assert held is not None
        assert rounds.claim(db, row.id, "another") is None
        assert rounds.finish_step(db, held)
    assert statuses(db, row) == "done done done done done done done"
    assert rounds.find_round(db, row.id).status == "done"
    assert rounds.claim(db, row.id, "worker") is None


def test_two_workers_claim_at_once_and_one_gets_it(committed: str):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        round_id = started(db).id

    def claim(number: int) -> bool:
        with sessions.begin() as db:
            return rounds.claim(db, round_id, f"worker {number}") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, range(8))) == [False] * 7 + [True]


def test_two_people_start_at_once_and_one_round_is_made(committed: str):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        some_comparisons(db)

    def start(_: int) -> str:
        try:
            with sessions.begin() as db:
                rounds.start(db, trigger="command", settings=FEW)
        except Conflict:
            return "refused"
        return "started"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(start, range(4))) == ["refused"] * 3 + ["started"]
    with sessions.begin() as db:
        assert db.scalar(select(func.count()).select_from(Round)) == 1


def test_a_worker_given_up_for_dead_can_change_nothing(db: Session):
    row = started(db)
    first = rounds.claim(db, row.id, "first")
    assert first is not None
    db.execute(update(RoundStep).values(heartbeat_at=func.now() - timedelta(seconds=61)))
    assert rounds.requeue_stale(db) == [row.id]
    second = rounds.claim(db, row.id, "second")
    assert second is not None
    assert second.attempt == 2
    assert not rounds.beat(db, first)
    assert not rounds.finish_step(db, first)
    assert not rounds.fail_step(db, first, "late")
    assert rounds.beat(db, second, {"step": 1, "of": 2})
    assert statuses(db, row).startswith("running waiting")


def test_a_breathing_worker_keeps_its_step_and_a_known_dead_one_does_not(db: Session):
    row = started(db)
    rounds.claim(db, row.id, "worker")
    db.execute(update(RoundStep).values(heartbeat_at=func.now() - timedelta(seconds=50)))
    assert rounds.requeue_stale(db) == []
    assert rounds.requeue_stale(db, is_dead=lambda name: name == "worker") == [row.id]


def test_a_queued_step_is_asked_for_again_but_not_at_every_sweep(db: Session):
    row = started(db)
    db.execute(update(Round).values(created_at=func.now() - timedelta(minutes=1)))
    assert rounds.requeue_stale(db) == [row.id]
    assert rounds.requeue_stale(db) == []


def test_a_hold_waits_for_a_person_with_a_reason(db: Session, cast):
    row = started(db)
    held = rounds.claim(db, row.id, "worker")
    assert held is not None
    assert rounds.hold_step(db, held, {"accuracy": {"passed": False}}, "too low")
    assert rounds.claim(db, row.id, "worker") is None
    row = rounds.find_round(db, row.id)
    with pytest.raises(BadInput, match="Say why"):
        rounds.release(db, row, cast.rosa, "  ")
    with pytest.raises(Conflict, match="only a failed round"):
        rounds.retry(db, row, cast.rosa)
    rounds.release(db, row, cast.rosa, "seen by hand")
    assert statuses(db, row).startswith("done queued waiting")
    assert row.steps[0].released_by_id == cast.rosa.id
    assert row.steps[0].gates["released"] == {"reason": "seen by hand", "by": "Rosa"}
    entry = db.scalars(select(AuditEntry).where(AuditEntry.action == "round.release")).one()
    assert (entry.person_id, entry.details["reason"]) == (cast.rosa.id, "seen by hand")
    with pytest.raises(Conflict, match="only a held round"):
        rounds.release(db, row, cast.rosa, "again")


def test_retry_goes_on_from_the_failed_step_with_the_same_run(db: Session, cast):
    row = started(db)
    first = rounds.claim(db, row.id, "worker")
    assert first is not None
    rounds.finish_step(db, first)
    training = rounds.claim(db, row.id, "worker")
    assert training is not None
    run = runs.run_of_step(db, training, "preference")
    runs.fail_run(db, run.id, "no memory")
    assert rounds.fail_step(db, training, "no memory")
    row = rounds.find_round(db, row.id)
    assert row.status == "failed"
    rounds.retry(db, row, cast.rosa)
    assert statuses(db, row).startswith("done queued waiting")
    again = rounds.claim(db, row.id, "worker")
    assert again is not None
    assert runs.run_of_step(db, again, "preference").id == run.id
    assert db.get_one(Run, run.id).status == "running"


def test_a_failed_round_cannot_be_retried_beside_another(db: Session, cast):
    row = started(db)
    held = rounds.claim(db, row.id, "worker")
    assert held is not None
    rounds.fail_step(db, held, "broken")
    rounds.start(db, trigger="command", settings=FEW)
    with pytest.raises(Conflict, match="Round 2 is queued"):
        rounds.retry(db, rounds.find_round(db, row.id), cast.rosa)


def test_cancelling_takes_the_step_from_its_worker(db: Session, cast):
    row = started(db)
    held = rounds.claim(db, row.id, "worker")
    assert held is not None
    run = runs.run_of_step(db, held, "preference")
    rounds.cancel(db, rounds.find_round(db, row.id), cast.ada)
    assert not rounds.beat(db, held)
    assert rounds.claim(db, row.id, "worker") is None
    db.expire_all()
    assert db.get_one(Round, row.id).status == "cancelled"
    assert db.get_one(Run, run.id).status == "cancelled"
    with pytest.raises(Conflict, match="nothing to cancel"):
        rounds.cancel(db, rounds.find_round(db, row.id), cast.ada)
    assert rounds.start(db, trigger="command", settings=FEW).number == 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("policy.episodes=500", {"policy": {"episodes": 500}}),
        ("policy.learning_rate=1e-4", {"policy": {"learning_rate": 1e-4}}),
        ("initial=starter", {"initial": "starter"}),
        ("continue_from_last=true", {"continue_from_last": True}),
        ('campaigns=["helpful"]', {"campaigns": ["helpful"]}),
    ],
)
def test_assignments(line: str, found: dict):
    assert parse_assignments([line]) == found
    parse_settings(found)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"gates": {"luck": 1}}, "luck"),
        ({"gates": {"kl": "far"}}, "gates.kl"),
        ({"gates": 3}, "gates.NAME"),
        ({"policy": {"model": "/etc"}}, "policy.model"),
        ({"share": 0}, "share"),
        ({"minimum_comparisons": True}, "minimum_comparisons"),
        ({"dataset": {"held_out": 1.0}}, "held_out"),
        ({"dataset": {"imports": 1}}, "dataset.imports"),
        ({"dataset": {"colour": 1}}, "dataset.colour"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict, named: str):
    with pytest.raises(BadInput, match=named):
        parse_settings(settings)


@pytest.mark.parametrize("line", ["", "episodes", "policy.=3", "=3"])
def test_lines_that_are_no_settings(line: str):
    with pytest.raises(BadInput, match="NAME=VALUE"):
        parse_assignments([line])
