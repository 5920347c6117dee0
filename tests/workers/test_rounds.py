"""A whole round on a tiny model, its worker killed twice with SIGKILL; a step that fails; a round that is cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from server.db import session_factory
from server.models import Prompt, Round, Snapshot
from server.services.rounds import rounds
from server.services.snapshots import deployments, registry
from server.settings import Settings
from tests import factories
from tests.training.conftest import built_policies, tiny_policy, tokenizer  # noqa: F401 - fixtures
from workers.rounds import advance
from workers.sweep import sweep

ROOT = Path(__file__).parents[2]
LENIENT = {
    "minimum_test_pairs": 1, "accuracy_above": -1, "calibration_error": 1, "kl": 1e9, "win_rate": 0,
    "length_ratio_least": 0, "length_ratio_most": 1e9, "eos_share": 0, "perplexity_left": -1e9,
}  # fmt: skip
SMALL = {
    "minimum_comparisons": 3,
    "dataset": {"held_out": 0.3},
    "preference": {"batch_prompts": 1, "checkpoint_steps": 1},
    "policy": {
        "episodes": 40, "rollout_replies": 4, "minibatch_replies": 2, "max_new_tokens": 6, "evaluation_prompts": 4,
        "checkpoint_steps": 1, "critic_pretraining": 1, "warmup_iterations": 1, "collapse_alarm": False,
    },
    "gates": LENIENT,
}  # fmt: skip


@pytest.fixture
def installation(settings: Settings, committed: str, tmp_path: Path) -> Settings:
    """Settings with artifacts of their own and an emptied database."""
    return replace(settings, artifacts=str(tmp_path / "artifacts"))


def fill(db: Session, policy: Path | None, pairs: int = 40) -> Snapshot:
    """A campaign served by `policy`, with a pool and comparisons that prefer the longer reply."""
    manifest = json.loads((policy / "manifest.json").read_text()) if policy else {}
    initial = factories.snapshot(db, name="tiny", path=str(policy or "nowhere"), manifest=manifest)
    campaign = factories.campaign(db, slug="helpful", served_by=initial)
    for number in range(12):
        split = "held_out" if number % 3 == 0 else "train"
        db.add(Prompt(campaign_id=campaign.id, text=f"Question {number}?", split=split))
    person = factories.person(db)
    for number in range(pairs):
        chat = factories.conversation(db, campaign, person, status="finished")
        replies = (f"Yes {number}.", f"No {number}.") if number % 2 else (f"No {number}.", f"Yes {number}.")
        turn = factories.turn(db, chat, f"Is it {number}?", replies, snapshot=initial)
        factories.comparison(db, turn, person, picked=1 - number % 2)
    return initial


@pytest.fixture
def worker(installation: Settings) -> Iterator[Callable[[int], subprocess.Popen]]:
    """Start a real worker process that leads a round on until nothing is queued."""
    started = []

    def start(round_id: int) -> subprocess.Popen:
        code = f"from workers.rounds import advance\nfor _ in range(8): advance({round_id})"
        environment = {**os.environ, **installation.environment(), "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def kill_in_mid_step(process: subprocess.Popen, folder: Callable[[], Path | None], lines: int) -> None:
    """SIGKILL the worker once its job has written so many lines and a checkpoint."""
    deadline = time.monotonic() + 200
    while True:
        assert process.poll() is None, "the worker ended by itself"
        assert time.monotonic() < deadline
        run = folder()
        if run is not None and (run / "checkpoint" / "state.json").exists():
            assert not (run / "result.json").exists(), "the job was too quick to be killed"
            if (run / "metrics.jsonl").read_bytes().count(b"\n") >= lines:
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_round_outlives_two_killed_workers(
    installation: Settings,
    committed: str,
    tiny_policy: Path,  # noqa: F811 - the fixture
    worker: Callable[[int], subprocess.Popen],
):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        initial_id = fill(db, tiny_policy).id
        round_id = rounds.start(db, trigger="command", settings=SMALL).id

    def folder(job: str) -> Path | None:
        found = sorted((Path(installation.artifacts) / "runs").glob(f"*-{job}"))
        return found[0] if found else None

    for job in ("preference", "policy"):
        kill_in_mid_step(worker(round_id), lambda job=job: folder(job), 2)
        assert sweep(installation)["rounds"] == [round_id]
    assert worker(round_id).wait(400) == 0

    with sessions.begin() as db:
        row = rounds.find_round(db, round_id)
        assert {step.name: step.failure for step in row.steps if step.failure} == {}
        assert row.status == "done"
        attempts = {step.name: step.attempts for step in row.steps}
        assert (attempts["pm"], attempts["policy"], attempts["deploy"]) == (2, 2, 1)
        for job in ("preference", "policy"):
            run = folder(job)
            assert run is not None
            steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert steps == list(range(steps[0], steps[0] + len(steps))), "every step once, none missing"
        policy = db.get_one(Snapshot, row.policy_snapshot_id)
        assert (policy.name, policy.parent_id, policy.round_id) == ("round-1-policy", initial_id, round_id)
        assert registry.difference(registry.snapshot_folder(installation.artifacts, policy), policy.manifest) is None
        campaign = rounds.campaigns_to_serve(db, db.get_one(Snapshot, initial_id))[0]
        now = deployments.current(db, campaign)
        assert now is not None
        assert ([part.snapshot_id for part in now.shares], now.round_id) == ([policy.id], round_id)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cancelled_round_ends_its_job_and_a_wrong_setting_fails_at_once(
    installation: Settings,
    committed: str,
    tiny_policy: Path,  # noqa: F811 - the fixture
    worker: Callable[[int], subprocess.Popen],
):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        fill(db, tiny_policy)
        wrong = rounds.start(db, trigger="command", settings={"minimum_comparisons": 3, "policy": {"colour": "red"}}).id
    advance(wrong, installation)
    with sessions.begin() as db:
        row = rounds.find_round(db, wrong)
        assert row.status == "failed"
        assert "colour" in str(row.steps[0].failure)
        endless = {**SMALL, "preference": {"batch_prompts": 1, "epochs": 500}}
        round_id = rounds.start(db, trigger="command", settings=endless).id
    process = worker(round_id)
    metrics = Path(installation.artifacts) / "runs"
    deadline = time.monotonic() + 200
    while not list(metrics.glob("*-preference/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with sessions.begin() as db:
        rounds.cancel(db, rounds.find_round(db, round_id), None)
    assert process.wait(60) == 0
    with sessions.begin() as db:
        assert db.get_one(Round, round_id).status == "cancelled"
    folder = next(metrics.glob("*-preference"))
    grown = (folder / "metrics.jsonl").stat().st_size
    time.sleep(1)
    assert (folder / "metrics.jsonl").stat().st_size == grown, "the job still works"


@pytest.mark.parametrize("policy", [{"preset": "instructgpt"}, {"ptx_weight": 1.0}])
def test_a_round_refuses_what_needs_pretraining_text(policy: dict, installation: Settings, committed: str):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        fill(db, None)
        round_id = rounds.start(db, trigger="command", settings={"minimum_comparisons": 3, "policy": policy}).id
    advance(round_id, installation)
    with sessions.begin() as db:
        row = rounds.find_round(db, round_id)
        assert row.status == "failed"
        assert "pretraining text" in str(row.steps[0].failure)


def test_freeze_is_done_once_and_a_message_that_outlived_its_round_does_nothing(installation: Settings, committed: str):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        fill(db, None)
        round_id = rounds.start(db, trigger="command", settings=SMALL).id
    advance(round_id, installation)
    with sessions.begin() as db:
        row = rounds.find_round(db, round_id)
        assert [step.status for step in row.steps][:3] == ["done", "queued", "waiting"]
        assert row.steps[0].progress == {"step": 1, "of": 1, "pairs": 40}
        rounds.cancel(db, row, None)
    advance(round_id, installation)
    advance(round_id + 1, installation)
    with sessions.begin() as db:
        assert rounds.find_round(db, round_id).steps[1].attempts == 0
