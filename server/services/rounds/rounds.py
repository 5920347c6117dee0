"""Rounds: starting one, and the machine that leads it from step to step. The rows are the truth, messages only nudges.

    waiting -> queued -> running -> done          the step after it becomes queued; after the last one the round is done
                  ^         |-----> held          a gate was not passed; `release` lets a person pass it
                  |         '-----> failed        `retry` queues it again; its run folder goes on from the checkpoint
                  '-- a worker that stopped breathing (`requeue_stale`)

A worker holds a step only while `claimed_by` is its own token: every write of a worker is conditional on that, so one that
was given up for dead and then wakes can change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, Deployment, DeploymentShare, Person, Round, RoundStep, Run, Snapshot
from server.models.rounds import STEPS
from server.services import audit
from server.services.data import datasets
from server.services.rounds.round_settings import parse_settings
from server.transaction import ask_for

STALE = timedelta(seconds=60)  # a worker renews each second; a minute without is death, not load
NUDGE = timedelta(seconds=15)  # a queued step whose message has not been taken by then is asked for again
ACTIVE = ("queued", "running", "held")


@dataclass(frozen=True)
class Claim:
    """A step that one worker holds."""

    round_id: int
    step_id: int
    name: str
    claimant: str
    attempt: int


# -- starting -----------------------------------------------------------------------------------------------------------
def start(db: Session, *, trigger: str, person: Person | None = None, settings: dict[str, Any] | None = None) -> Round:
    """Make a round and ask for its first step; Conflict while another is active, BadInput when it could not succeed."""
    wanted = parse_settings(settings or {})
    active = active_round(db)
    if active is not None:
        raise Conflict(f"Round {active.number} is {active.status}; wait for it, or cancel it, before another starts.")
    usable = datasets.count_usable(db, wanted.dataset)
    if usable < wanted.minimum_comparisons:
        raise BadInput(
            f"A round needs at least {wanted.minimum_comparisons} usable comparisons and there are {usable}; collect or "
            "import more. Choices of the weakest strength and equal replies do not count.",
            field="minimum_comparisons",
        )
    initial = initial_snapshot(db, wanted.initial)
    campaigns_to_serve(db, initial, wanted.campaigns)
    number = (db.scalar(select(func.max(Round.number))) or 0) + 1
    row = Round(
        number=number, trigger=trigger, started_by_id=person.id if person else None, settings=settings or {},
        initial_snapshot_id=initial.id,
        steps=[RoundStep(position=place, name=name, status="queued" if place == 0 else "waiting")
               for place, name in enumerate(STEPS)],
    )  # fmt: skip
    try:
        with db.begin_nested():
            db.add(row)
    except IntegrityError as error:
        raise Conflict("Another round was started in this very moment; it is on the page of rounds.") from error
    audit.record(db, person, "round.start", "round", row.id, number=number, trigger=trigger, settings=settings or {})
    ask_for(db, "advance_round", round_id=row.id)
    return row


def active_round(db: Session) -> Round | None:
    """The one round that is queued, running or held."""
    return db.scalar(select(Round).where(Round.status.in_(ACTIVE)))


def root_of(db: Session, snapshot: Snapshot) -> Snapshot:
    """The initial policy that a snapshot grew from."""
    while snapshot.parent_id is not None:
        snapshot = db.get_one(Snapshot, snapshot.parent_id)
    return snapshot


def initial_snapshot(db: Session, name: str | None = None) -> Snapshot:
    """The policy a round starts from: the named one, or the root of what serves the open campaigns now."""
    if name is not None:
        named = db.scalar(select(Snapshot).where(Snapshot.name == name))
        if named is None or named.kind != "policy":
            raise BadInput(
                f"There is no policy snapshot named {name!r}; `whetstone snapshot list` shows them.", field="initial"
            )
        return _trainable(named)
    roots = {root.id: root for root in (root_of(db, serving) for serving, _ in serving_snapshots(db))}
    if not roots:
        raise BadInput("No open campaign is served by a snapshot yet; deploy one to a campaign first.", field="initial")
    if len(roots) > 1:
        names = ", ".join(sorted(root.name for root in roots.values()))
        raise BadInput(
            f"The open campaigns are served by policies of several initial ones ({names}); say which this round trains: "
            "initial=NAME.",
            field="initial",
        )
    return _trainable(next(iter(roots.values())))


def _trainable(snapshot: Snapshot) -> Snapshot:
    if snapshot.draws_from is not None:
        raise BadInput(
            f"Snapshot {snapshot.name} is the best of {snapshot.k} replies of {snapshot.draws_from.name} and has no weights of "
            f"its own; name {snapshot.draws_from.name}.",
            field="initial",
        )
    if snapshot.backend != "local":
        raise BadInput(
            f"Snapshot {snapshot.name} is a remote endpoint; only a local one can be trained.", field="initial"
        )
    return snapshot


def serving_snapshots(db: Session, statuses: tuple[str, ...] = ("open",)) -> list[tuple[Snapshot, Campaign]]:
    """Which snapshots serve which campaigns of these statuses now."""
    rows = db.execute(
        select(Snapshot, Campaign)
        .join(DeploymentShare, DeploymentShare.snapshot_id == Snapshot.id)
        .join(Deployment, Deployment.id == DeploymentShare.deployment_id)
        .join(Campaign, Campaign.id == Deployment.campaign_id)
        .where(Deployment.replaced_at.is_(None), Campaign.status.in_(statuses))
        .order_by(Campaign.id, Snapshot.id)
    )
    return [(snapshot, campaign) for snapshot, campaign in rows]


def campaigns_to_serve(db: Session, initial: Snapshot, slugs: tuple[str, ...] = ()) -> list[Campaign]:
    """The campaigns a new policy of this initial one goes to: the named ones, or all that its kin serve and are not closed."""
    if slugs:
        named = {row.slug: row for row in db.scalars(select(Campaign).where(Campaign.slug.in_(slugs)))}
        for slug in slugs:
            if slug not in named:
                raise BadInput(f"There is no campaign {slug!r} to deploy to.", field="campaigns")
        return [named[slug] for slug in slugs]
    found = {
        campaign.id: campaign
        for snapshot, campaign in serving_snapshots(db, ("open", "paused"))
        if root_of(db, snapshot).id == initial.id
    }
    return list(found.values())


def last_policy(db: Session, initial: Snapshot) -> Snapshot:
    """The policy of the newest finished round of this initial policy; itself before the first."""
    newest = db.scalar(
        select(Snapshot)
        .join(Round, Round.policy_snapshot_id == Snapshot.id)
        .where(Round.status == "done", Round.initial_snapshot_id == initial.id, Snapshot.retired_at.is_(None))
        .order_by(Round.number.desc())
        .limit(1)
    )
    return newest or initial


# -- what a worker does -------------------------------------------------------------------------------------------------
def claim(db: Session, round_id: int, claimant: str) -> Claim | None:
    """Take the round's queued step; None when it is taken, held, finished or cancelled."""
    if _locked_status(db, round_id) not in ("queued", "running"):
        return None
    taken = db.execute(
        update(RoundStep)
        .where(RoundStep.round_id == round_id, RoundStep.status == "queued")
        .values(
            status="running", claimed_by=claimant, heartbeat_at=func.now(), attempts=RoundStep.attempts + 1,
            started_at=func.coalesce(RoundStep.started_at, func.now()), failure=None,
        )
        .returning(RoundStep.id, RoundStep.name, RoundStep.attempts)
    ).one_or_none()  # fmt: skip
    if taken is None:
        return None
    db.execute(update(Round).where(Round.id == round_id, Round.status == "queued").values(status="running"))
    return Claim(round_id=round_id, step_id=taken.id, name=taken.name, claimant=claimant, attempt=taken.attempts)


def _locked_status(db: Session, round_id: int) -> str | None:
    """The round's status, its row locked: everybody locks the round before its steps, so nobody waits in a circle."""
    return db.scalar(select(Round.status).where(Round.id == round_id).with_for_update())


def _update_own(db: Session, held: Claim, **values: Any) -> bool:
    """Change the step if this worker still holds it; False when it was cancelled or given to another."""
    changed = db.execute(
        update(RoundStep)
        .where(RoundStep.id == held.step_id, RoundStep.status == "running", RoundStep.claimed_by == held.claimant)
        .values(**values)
        .returning(RoundStep.id)
    )
    return changed.one_or_none() is not None


def beat(db: Session, held: Claim, progress: dict[str, Any] | None = None) -> bool:
    """Renew the heartbeat; False means: stop working, the step is no longer yours."""
    return _update_own(db, held, heartbeat_at=func.now(), **({} if progress is None else {"progress": progress}))


def finish_step(db: Session, held: Claim, **values: Any) -> bool:
    """The step is done: queue the next one, or finish the round. Writes nothing when the step is no longer ours."""
    _locked_status(db, held.round_id)
    if not _update_own(db, held, status="done", finished_at=func.now(), claimed_by=None, **values):
        return False
    _queue_next(db, held.round_id)
    return True


def _queue_next(db: Session, round_id: int) -> None:
    following = db.scalar(
        select(RoundStep.id)
        .where(RoundStep.round_id == round_id, RoundStep.status != "done")
        .order_by(RoundStep.position)
        .limit(1)
    )
    if following is None:
        db.execute(update(Round).where(Round.id == round_id).values(status="done", finished_at=func.now()))
        return
    db.execute(update(RoundStep).where(RoundStep.id == following).values(status="queued", heartbeat_at=func.now()))
    ask_for(db, "advance_round", round_id=round_id)


def hold_step(db: Session, held: Claim, gates: dict[str, Any], reason: str) -> bool:
    """A gate was not passed: the round waits for a person."""
    _locked_status(db, held.round_id)
    if not _update_own(db, held, status="held", gates=gates, failure=reason, claimed_by=None):
        return False
    db.execute(update(Round).where(Round.id == held.round_id).values(status="held"))
    return True


def fail_step(db: Session, held: Claim, reason: str) -> bool:
    """The step could not be done; the reason is for the person who will press retry."""
    _locked_status(db, held.round_id)
    if not _update_own(db, held, status="failed", failure=reason, claimed_by=None, finished_at=func.now()):
        return False
    db.execute(update(Round).where(Round.id == held.round_id).values(status="failed", finished_at=func.now()))
    return True


def requeue_stale(db: Session, *, is_dead: Callable[[str], bool] = lambda _: False) -> list[int]:
    """Queue again the steps whose worker stopped breathing and ask for every queued one; returns the rounds nudged.

    `is_dead` may know sooner than the heartbeat that a claimant is gone.
    """
    nudged: list[int] = []
    for step in db.scalars(select(RoundStep).where(RoundStep.status == "running")).all():  # at most one
        gone = step.claimed_by is not None and is_dead(step.claimed_by)
        taken = RoundStep.id == step.id, RoundStep.status == "running", RoundStep.claimed_by == step.claimed_by
        silent = (RoundStep.heartbeat_at < func.now() - STALE,)
        nudged += db.scalars(
            update(RoundStep)
            .where(*taken, *(() if gone else silent))
            .values(status="queued", claimed_by=None, heartbeat_at=func.now())
            .returning(RoundStep.round_id)
        ).all()
    waiting = (
        select(RoundStep.id)
        .join(Round, Round.id == RoundStep.round_id)
        .where(RoundStep.status == "queued", Round.status.in_(("queued", "running")))
        .where(func.coalesce(RoundStep.heartbeat_at, Round.created_at) < func.now() - NUDGE)
        .with_for_update(skip_locked=True, of=RoundStep)
    )
    # The time is written down, so that a busy queue does not fill with copies of one message.
    asked = update(RoundStep).where(RoundStep.id.in_(waiting)).values(heartbeat_at=func.now())
    nudged += db.scalars(asked.returning(RoundStep.round_id).execution_options(synchronize_session=False)).all()
    for round_id in nudged:
        ask_for(db, "advance_round", round_id=round_id)
    return nudged


# -- what a person does -------------------------------------------------------------------------------------------------
def retry(db: Session, row: Round, person: Person | None) -> None:
    """Queue the failed step again; what it had done is kept in its run folder."""
    _lock(db, row)
    failed = next((step for step in row.steps if step.status == "failed"), None)
    if row.status != "failed" or failed is None:
        raise Conflict(f"Round {row.number} is {row.status}; only a failed round can be tried again.")
    active = active_round(db)
    if active is not None:
        raise Conflict(f"Round {active.number} is {active.status}; wait for it, or cancel it, then try again.")
    failed.status, failed.failure, failed.finished_at = "queued", None, None
    row.status, row.finished_at = "running", None
    try:
        db.flush()
    except IntegrityError as error:
        raise Conflict("Another round was started in this very moment; wait for it, then try again.") from error
    audit.record(db, person, "round.retry", "round", row.id, number=row.number, step=failed.name)
    ask_for(db, "advance_round", round_id=row.id)


def release(db: Session, row: Round, person: Person | None, reason: str) -> None:
    """Let a held round go on although a gate was not passed; the reason goes to the audit log."""
    _lock(db, row)
    held = next((step for step in row.steps if step.status == "held"), None)
    if row.status != "held" or held is None:
        raise Conflict(f"Round {row.number} is {row.status}; only a held round can be released.")
    if not reason.strip():
        raise BadInput("Say why this round may go on although a gate was not passed.", field="reason")
    held.status, held.released_by_id, held.finished_at = (
        "done",
        person.id if person else None,
        db.scalar(select(func.now())),
    )
    held.gates = {**held.gates, "released": {"reason": reason.strip(), "by": person.name if person else "command line"}}
    row.status = "running"
    db.flush()
    audit.record(db, person, "round.release", "round", row.id, number=row.number, step=held.name, reason=reason.strip())
    _queue_next(db, row.id)


def cancel(db: Session, row: Round, person: Person | None) -> None:
    """Stop a round for good; a worker that is at it notices within a second or two and stops its job."""
    _lock(db, row)
    if row.status not in (*ACTIVE, "failed"):
        raise Conflict(f"Round {row.number} is {row.status}; there is nothing to cancel.")
    now = db.scalar(select(func.now()))
    for step in row.steps:
        if step.status in ("queued", "running", "held"):
            step.status, step.claimed_by, step.finished_at = "failed", None, now
            step.failure = f"Cancelled by {person.name if person else 'the command line'}."
            if step.run_id is not None:
                running = (Run.id == step.run_id, Run.status.in_(("queued", "running")))
                db.execute(update(Run).where(*running).values(status="cancelled", finished_at=func.now()))
    row.status, row.finished_at = "cancelled", now
    db.flush()
    audit.record(db, person, "round.cancel", "round", row.id, number=row.number)


def _lock(db: Session, row: Round) -> None:
    """Two people press at once: the second sees what the first did."""
    db.refresh(row, with_for_update=True)
    db.expire(row, ["steps"])


# -- reading ------------------------------------------------------------------------------------------------------------
def find_round(db: Session, round_id: int) -> Round:
    """The round with its steps, or NotFound."""
    row = db.scalar(select(Round).where(Round.id == round_id).options(selectinload(Round.steps)))
    if row is None:
        raise NotFound("There is no such round.")
    return row


def find_number(db: Session, number: int) -> Round:
    """The round with this number, or NotFound."""
    row = db.scalar(select(Round).where(Round.number == number).options(selectinload(Round.steps)))
    if row is None:
        raise NotFound(f"There is no round {number}; `whetstone round list` shows them.")
    return row


def newest_rounds(db: Session, *, before: int | None = None, limit: int = 30) -> list[Round]:
    """Rounds from the newest down, those with a number below `before`."""
    query = select(Round).options(selectinload(Round.steps)).order_by(Round.number.desc()).limit(limit)
    return list(db.scalars(query if before is None else query.where(Round.number < before)))
