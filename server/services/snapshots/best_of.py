"""Snapshots that answer with the best of k replies of a policy, by the score of a preference model (rejection sampling).

Bai et al. (2022, section 4.5 and appendix B.5) had crowdworkers talk to such models beside those trained by PPO.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict
from server.models import Person, Snapshot
from server.services import audit
from server.services.snapshots import registry

K_LEAST, K_MOST, K_USUAL = 2, 64, 16  # replies to choose from; most of the paper's were 16


def register_best_of(
    db: Session, *, name: str, policy: Snapshot, preference_model: Snapshot, k: int, person: Person | None = None
) -> Snapshot:
    """Store a snapshot that answers with the one of `k` replies of `policy` that `preference_model` scores highest.

    It has no files of its own. Its parent is the initial policy that `policy` grew from, so that a round learns from its replies
    as from those of its kin, and never from it. Raises BadInput or Conflict where one of the three cannot be.
    """
    registry.check_name(db, name)
    if not K_LEAST <= k <= K_MOST:
        raise BadInput(f"k must be from {K_LEAST} to {K_MOST} replies, not {k}.", field="k")
    # Whoever retires one of them in this moment waits, and then finds who uses it.
    locked = select(Snapshot).where(Snapshot.id.in_([policy.id, preference_model.id])).order_by(Snapshot.id)
    db.execute(locked.with_for_update(read=True).execution_options(populate_existing=True))
    _check_policy(policy)
    _check_preference_model(preference_model)
    snapshot = Snapshot(
        name=name, kind="policy", backend="local", origin="best_of", manifest={}, k=k,
        draws_from=policy, scored_by=preference_model, parent_id=policy.parent_id or policy.id,
    )  # fmt: skip
    db.add(snapshot)
    db.flush()
    audit.record(
        db, person, "snapshot.register", "snapshot", snapshot.id, name=name, kind="policy", origin="best_of",
        policy=policy.name, preference_model=preference_model.name, k=k,
    )  # fmt: skip
    return snapshot


def _check_policy(policy: Snapshot) -> None:
    if policy.kind != "policy":
        raise BadInput(f"{policy.name} is a preference model and writes no replies; name a policy.", field="policy")
    if policy.origin == "best_of":
        raise BadInput(
            f"{policy.name} is itself the best of several replies; name the policy that it draws from.", field="policy"
        )
    if policy.backend != "local":
        raise BadInput(
            f"{policy.name} is a remote endpoint; the best of k is chosen from replies of a local policy.",
            field="policy",
        )
    if policy.retired_at is not None:
        raise Conflict(f"{policy.name} was retired; choose another policy.", field="policy")


def _check_preference_model(pm: Snapshot) -> None:
    if pm.kind != "pm":
        raise BadInput(f"{pm.name} is a policy and gives no scores; name a preference model.", field="preference_model")
    if pm.backend != "local":
        raise BadInput(f"{pm.name} is a remote endpoint; name a local preference model.", field="preference_model")
    if pm.retired_at is not None:
        raise Conflict(f"{pm.name} was retired; choose another preference model.", field="preference_model")
