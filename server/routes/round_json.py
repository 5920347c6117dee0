"""Rounds, runs, snapshots and schedules as JSON: the same objects that the pages show."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from server.models import DatasetVersion, Person, Round, RoundStep, Run, Schedule, Snapshot

Json = dict[str, Any]


def round_json(db: Session, row: Round) -> Json:
    """Everything about one round; `pm_result` and `policy_result` are the results of its runs, {} before they are done."""
    runs = {step.name: db.get(Run, step.run_id) for step in row.steps if step.run_id is not None}
    version = db.get(DatasetVersion, row.dataset_version_id) if row.dataset_version_id else None
    person = db.get(Person, row.started_by_id) if row.started_by_id else None
    return {
        "id": row.id,
        "number": row.number,
        "status": row.status,
        "trigger": row.trigger,
        "started_by": person.name if person else None,
        "settings": row.settings,
        "created_at": iso(row.created_at),
        "finished_at": iso(row.finished_at),
        "seconds": seconds(row.created_at, row.finished_at),
        "initial": _brief(db, row.initial_snapshot_id),
        "pm_snapshot": _brief(db, row.pm_snapshot_id),
        "policy_snapshot": _brief(db, row.policy_snapshot_id),
        "dataset_version": version and {"id": version.id, "sha256": version.sha256, "counts": version.counts},
        "steps": [step_json(db, step, runs.get(step.name)) for step in row.steps],
        "pm_result": _result(runs.get("pm")),
        "policy_result": _result(runs.get("policy")),
    }


def step_json(db: Session, step: RoundStep, run: Run | None) -> Json:
    """One step with its gates and, for a training job, its run."""
    released = db.get(Person, step.released_by_id) if step.released_by_id else None
    checked = [(name, gate) for name, gate in step.gates.items() if name != "released"]
    gates = dict(sorted(checked, key=lambda item: item[1].get("place", 0)))  # JSONB forgets the order
    return {
        "name": step.name,
        "status": step.status,
        "attempts": step.attempts,
        "progress": step.progress,
        "gates": gates,
        "released": step.gates.get("released"),
        "released_by": released.name if released else None,
        "failure": step.failure,
        "started_at": iso(step.started_at),
        "finished_at": iso(step.finished_at),
        "heartbeat_at": iso(step.heartbeat_at),
        "seconds": seconds(step.started_at, step.finished_at),
        "run": run_json(run) if run else None,
    }


def run_json(run: Run) -> Json:
    """A training job; its metrics' curves are on the page alone, they would make every answer long."""
    return {
        "id": run.id,
        "job": run.job,
        "status": run.status,
        "folder": run.folder,
        "config": run.config,
        "progress": {key: value for key, value in run.progress.items() if key != "curves"},
        "result": run.result,
        "failure": run.failure,
    }


def snapshot_json(db: Session, snapshot: Snapshot) -> Json:
    """A snapshot with its lineage by name."""
    parent = db.get(Snapshot, snapshot.parent_id) if snapshot.parent_id else None
    made_by = db.get(Round, snapshot.round_id) if snapshot.round_id else None
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "kind": snapshot.kind,
        "backend": snapshot.backend,
        "origin": snapshot.origin,
        "path": snapshot.path,
        "draws_from": snapshot.draws_from.name if snapshot.draws_from else None,
        "scored_by": snapshot.scored_by.name if snapshot.scored_by else None,
        "k": snapshot.k,
        "parent": parent.name if parent else None,
        "round": made_by.number if made_by else None,
        "run": snapshot.run_id,
        "dataset_version": snapshot.dataset_version_id,
        "created_at": iso(snapshot.created_at),
        "retired_at": iso(snapshot.retired_at),
    }


def schedule_json(row: Schedule) -> Json:
    """A schedule with what came of it last."""
    return {
        "id": row.id,
        "cron": row.cron,
        "time_zone": row.time_zone,
        "minimum_new_comparisons": row.minimum_new_comparisons,
        "enabled": row.enabled,
        "next_at": iso(row.next_at),
        "last_outcome": row.last_outcome,
    }


def _brief(db: Session, snapshot_id: int | None) -> Json | None:
    snapshot = db.get(Snapshot, snapshot_id) if snapshot_id is not None else None
    return {"id": snapshot.id, "name": snapshot.name, "path": snapshot.path} if snapshot else None


def _result(run: Run | None) -> Json:
    return (run.result or {}) if run else {}


def iso(at: datetime | None) -> str | None:
    """A time as JSON carries it."""
    return at.isoformat() if at else None


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """How long something took; None before its end."""
    return round((end - start).total_seconds(), 1) if start and end else None
