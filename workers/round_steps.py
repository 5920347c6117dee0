"""What each step of a round does. Every step may be killed at any moment and done again from its start:

freeze          one transaction                                   pm, policy      a run folder; goes on from its checkpoint
pm_checks, …    numbers of a finished run against thresholds      register        copies swapped in by a rename, then the rows
deploy          one transaction for all campaigns
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Round, Run, Snapshot
from server.services.data import datasets
from server.services.rounds import rounds, runs
from server.services.rounds.round_settings import RoundSettings, parse_settings
from server.services.snapshots import registry, serving
from server.settings import Settings
from server.transaction import transaction
from training.config import BadConfig, PolicyConfig, PreferenceConfig, load_config
from training.ppo.presets import PRESETS
from training.runs import files
from training.runs.run_folder import RunFolder
from workers import gates, round_data
from workers.breath import Breath, LostStep
from workers.launch import ROOT, JobFailed, JobStopped, Metrics, launch


class StepFailed(Exception):
    """The step cannot be done; the message is for the person who will decide about a retry."""


@dataclass(frozen=True)
class Work:
    """A claimed step with what it needs: the settings of this installation and of its round."""

    settings: Settings
    held: rounds.Claim
    breath: Breath

    def transaction(self) -> AbstractContextManager[Session]:
        """One short transaction; tasks asked for are sent after its commit."""
        return transaction(str(self.settings.database_url), str(self.settings.redis_url))

    @property
    def artifacts(self) -> Path:
        """Where run folders and snapshots lie."""
        return Path(self.settings.artifacts)

    def round(self, db: Session) -> tuple[Round, RoundSettings]:
        """The step's round with its settings."""
        row = rounds.find_round(db, self.held.round_id)
        return row, parse_settings(row.settings)

    def finish(self, db: Session, **values: Any) -> None:
        """End the step within the caller's transaction; LostStep rolls all of it back."""
        if not rounds.finish_step(db, self.held, **values):
            raise LostStep(self.held.name)


def freeze(work: Work) -> None:
    """Fix what this round learns from; settings that a job would refuse are refused here, before hours of work."""
    with work.transaction() as db:
        row, wanted = work.round(db)
        for cls, given in ((PreferenceConfig, wanted.preference), (PolicyConfig, wanted.policy)):
            try:
                load_config(cls, given)
            except BadConfig as bad:
                raise StepFailed(
                    f"The settings of this round cannot be used: {bad}. Cancel it and start another."
                ) from bad
        if (PRESETS.get(wanted.policy.get("preset", ""), {}) | wanted.policy).get("ptx_weight"):
            raise StepFailed(
                "A round has no pretraining text, which PPO-ptx learns from. Cancel it and start another with "
                "policy.ptx_weight=0, or with the preset instructgpt_ppo."
            )
        version = datasets.freeze(db, wanted.dataset)
        row.dataset_version_id = version.id
        db.flush()
        work.finish(db, progress={"step": 1, "of": 1, "pairs": version.counts["pairs"]})


def preference(work: Work) -> None:
    """Train the preference model on the frozen dataset version."""

    def prepare(db: Session, row: Round, wanted: RoundSettings, folder: Path) -> dict[str, Any]:
        assert row.dataset_version_id is not None, "freeze came before"
        round_data.write_feedback(db, row.dataset_version_id, folder)
        round_data.write_experts(db, wanted.dataset, folder)
        initial = db.get_one(Snapshot, row.initial_snapshot_id)
        model = registry.snapshot_folder(work.artifacts, initial)
        return {"model": str(model), "seed": row.number, **wanted.preference}

    _train(work, "preference", prepare)


def policy(work: Work) -> None:
    """Train the policy by PPO against this round's preference model."""

    def prepare(db: Session, row: Round, wanted: RoundSettings, folder: Path) -> dict[str, Any]:
        assert row.dataset_version_id is not None, "freeze came before"
        initial = db.get_one(Snapshot, row.initial_snapshot_id)
        start = rounds.last_policy(db, initial) if wanted.continue_from_last else initial
        campaigns = [campaign.id for campaign in rounds.campaigns_to_serve(db, initial, wanted.campaigns)]
        if not round_data.write_prompts(db, row.dataset_version_id, campaigns, folder):
            raise StepFailed(
                "There is no prompt to train the policy on; add prompts to a campaign's pool and try again."
            )
        return {
            "model": str(registry.snapshot_folder(work.artifacts, start)),
            "preference_model": str(work.artifacts / _run(db, row, "pm").folder / "model"),
            "seed": row.number,
            **wanted.policy,
        }

    _train(work, "policy", prepare)


def _train(work: Work, job: str, prepare: Callable[[Session, Round, RoundSettings, Path], dict[str, Any]]) -> None:
    """Prepare the run folder once, then start or go on with the job in it until there is a result."""
    with work.transaction() as db:
        run = runs.run_of_step(db, work.held, job)
    folder = work.artifacts / run.folder
    if not (folder / "config.json").exists():  # written last: with it the folder is complete
        folder.mkdir(parents=True, exist_ok=True)
        with work.transaction() as db:
            row, wanted = work.round(db)
            config = prepare(db, row, wanted, folder)
        work.breath.check()
        files.write_json(folder / "config.json", config)

    def follow(metrics: Metrics) -> bool:
        if metrics.newest:
            seen = {key: value for key, value in metrics.newest.items() if isinstance(value, int | float)}
            work.breath.say(seen, run.id, metrics.progress())
        return not work.breath.lost.is_set()

    try:
        result = launch(folder, job, follow, work.settings.train_processes)
    except JobStopped as stopped:
        raise LostStep(job) from stopped
    except JobFailed as failed:
        with work.transaction() as db:
            runs.fail_run(db, run.id, str(failed))
        raise StepFailed(str(failed)) from failed
    complete = RunFolder(folder)
    metrics = Metrics(complete.metrics_file)
    metrics.read()
    with work.transaction() as db:
        done = metrics.newest.get("of", 1)
        work.finish(db, progress={"step": done, "of": done, "seconds": result.get("seconds")})
        runs.finish_run(db, run.id, complete.settings(), result, metrics.progress())


def _run(db: Session, row: Round, step: str) -> Run:
    run_id = next(item.run_id for item in row.steps if item.name == step)
    assert run_id is not None, f"the step {step} is done, so it has a run"
    return db.get_one(Run, run_id)


def preference_checks(work: Work) -> None:
    """Hold the round unless the preference model is worth training a policy against."""
    with work.transaction() as db:
        row, wanted = work.round(db)
        result = _run(db, row, "pm").result or {}
        _decide(work, db, gates.preference_gates(result, wanted.gates))


def policy_checks(work: Work) -> None:
    """Hold the round unless the new policy may answer people."""
    with work.transaction() as db:
        row, wanted = work.round(db)
        run = _run(db, row, "policy")
    unloadable = why_unloadable(work.artifacts / run.folder / "model")
    with work.transaction() as db:
        _decide(work, db, gates.policy_gates(run.result or {}, wanted.gates, unloadable=unloadable))


def _decide(work: Work, db: Session, found: dict[str, gates.Gate]) -> None:
    as_json = {name: gate.as_json() | {"place": place} for place, (name, gate) in enumerate(found.items())}
    if gates.all_passed(found):
        work.finish(db, gates=as_json)
    elif not rounds.hold_step(db, work.held, as_json, gates.why_held(found)):
        raise LostStep(work.held.name)


def why_unloadable(folder: Path) -> str | None:
    """The reason why training's own check refuses a model directory; None when it can be served."""
    checked = subprocess.run(
        [sys.executable, "-m", "training.models.snapshots", "check", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if checked.returncode == 0:
        return None
    said = (checked.stderr or checked.stdout).strip().splitlines()
    return said[-1] if said else f"the check ended with exit code {checked.returncode}"


def register(work: Work) -> None:
    """Copy both models to where snapshots lie and register them with their hashes and lineage."""
    with work.transaction() as db:
        row, _ = work.round(db)
        made = {"pm": _run(db, row, "pm"), "policy": _run(db, row, "policy")}
        names = [f"round-{row.number}-{kind}" for kind in made]
        taken = db.scalar(select(Snapshot.name).where(Snapshot.name.in_(names)))
        if taken is not None:  # the copy must not replace the files of another snapshot
            raise StepFailed(f"There is a snapshot named {taken} already; this round cannot take its place.")
    manifests = {}
    for kind, run in made.items():
        target = work.artifacts / "snapshots" / f"round-{row.number}-{kind}"
        manifests[kind] = _copy(work.artifacts / run.folder / "model", target)
        work.breath.check()
    with work.transaction() as db:
        row, _ = work.round(db)
        initial = db.get_one(Snapshot, row.initial_snapshot_id)
        for kind, run in made.items():
            name = f"round-{row.number}-{kind}"
            snapshot = registry.register_policy(
                db, name=name, kind=kind, origin="round", path=f"snapshots/{name}", manifest=manifests[kind],
                parent=initial, run=run, round=row, dataset_version_id=row.dataset_version_id,
            )  # fmt: skip
            if kind == "pm":
                row.pm_snapshot_id = snapshot.id
            else:
                row.policy_snapshot_id = snapshot.id
        db.flush()
        work.finish(db)


def _copy(source: Path, target: Path) -> dict[str, Any]:
    """Copy a model directory so that it appears whole; returns training's manifest after comparing the copy with it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.recover_directory(target)
    files.replace_directory(target, lambda part: _copy_into(source, part))
    manifest: dict[str, Any] = json.loads((target / registry.MANIFEST).read_text("utf-8"))
    wrong = registry.difference(target, manifest)
    if wrong is not None:
        raise StepFailed(f"The copy is not what training wrote: {wrong}. Try again.")
    return manifest


def _copy_into(source: Path, part: Path) -> None:
    shutil.copytree(source, part, dirs_exist_ok=True)


def deploy(work: Work) -> None:
    """Let the new policy serve: all campaigns in one transaction, so that no moment sees half of it."""
    with work.transaction() as db:
        row, wanted = work.round(db)
        assert row.policy_snapshot_id is not None, "register came before"
        new = db.get_one(Snapshot, row.policy_snapshot_id)
        served = rounds.campaigns_to_serve(db, db.get_one(Snapshot, row.initial_snapshot_id), wanted.campaigns)
        for campaign in served:
            serving.give_share(db, campaign, new, wanted.share, None, f"Round {row.number}.", round=row)
        if not served:
            raise BadInput(
                "No campaign is served by this round's initial policy any more. Deploy the new snapshot by hand, or "
                "deploy one of its kin to a campaign and try again."
            )
        work.finish(db, progress={"step": 1, "of": 1, "campaigns": [campaign.slug for campaign in served]})


STEPS: dict[str, Callable[[Work], None]] = {
    "freeze": freeze,
    "pm": preference,
    "pm_checks": preference_checks,
    "policy": policy,
    "policy_checks": policy_checks,
    "register": register,
    "deploy": deploy,
}
