"""How far people who compared the same turn agree: pairs of people, and Krippendorff's alpha on the ordinal scale."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session, aliased

from server.models import Candidate, Comparison
from server.services.data.selection import Selection
from server.services.intervals import Share


@dataclass(frozen=True)
class Agreement:
    """Turns compared by several people.

    `pairs` counts pairs of people on one turn and those that picked the same reply; its interval takes pairs as
    independent, so with three or more people a turn it is a little too narrow. `alpha` is 1 for perfect agreement and 0
    for chance; None with fewer than two turns or when everybody answered the same everywhere.
    """

    turns: int
    pairs: Share
    alpha: float | None


def agreement(db: Session, selection: Selection) -> Agreement:
    """Agreement over the selection's turns that at least two people compared."""
    compared = (
        select(
            Comparison.turn_id,
            Comparison.picked_id,
            # the first is negative, the second positive, so campaigns with different grades share one ordinal scale with
            # the tie in its middle; "both are bad" has no place on it
            case(
                (Comparison.verdict == "tie", 0),
                (Candidate.position == 0, -Comparison.strength),
                else_=Comparison.strength,
            ).label("level"),
        )
        .outerjoin(Candidate, Candidate.id == Comparison.picked_id)
        .where(
            *selection.conditions(),
            Comparison.person_id.is_not(None),
            or_(Comparison.strength.is_not(None), Comparison.verdict == "tie"),
        )
        .cte("compared")
    )
    sizes = (
        select(compared.c.turn_id, func.count().label("m"))
        .group_by(compared.c.turn_id)
        .having(func.count() > 1)
        .cte("sizes")
    )
    picks = (
        select(compared.c.turn_id, func.count().label("n"))
        .join(sizes, sizes.c.turn_id == compared.c.turn_id)
        .group_by(compared.c.turn_id, compared.c.picked_id)
        .cte("picks")
    )
    same = select(func.coalesce(func.sum(picks.c.n * (picks.c.n - 1) / 2), 0)).scalar_subquery()
    turns, pairs, agreeing = db.execute(
        select(func.count(), func.coalesce(func.sum(sizes.c.m * (sizes.c.m - 1) / 2), 0), same).select_from(sizes)
    ).one()
    if not turns:
        return Agreement(0, Share(0, 0), None)
    levels = (
        select(compared.c.turn_id, compared.c.level, func.count().label("n"), sizes.c.m)
        .join(sizes, sizes.c.turn_id == compared.c.turn_id)
        .group_by(compared.c.turn_id, compared.c.level, sizes.c.m)
        .cte("levels")
    )
    one, other = aliased(levels), aliased(levels)
    met = one.c.n * (other.c.n - case((one.c.level == other.c.level, 1), else_=0))
    coincidences = {
        (a, b): float(n)
        for a, b, n in db.execute(
            select(one.c.level, other.c.level, func.sum(met * 1.0 / (one.c.m - 1)))
            .join(other, one.c.turn_id == other.c.turn_id)
            .group_by(one.c.level, other.c.level)
        )
    }
    return Agreement(int(turns), Share(int(agreeing), int(pairs)), ordinal_alpha(coincidences) if turns > 1 else None)


def ordinal_alpha(coincidences: dict[tuple[int, int], float]) -> float | None:
    """Krippendorff's alpha from the coincidence matrix o[c, k], with his ordinal difference (Krippendorff 2011, eq. 3).

    delta²(c, k) = (n_c/2 + sum of n_g for c < g < k + n_k/2)²;  alpha = 1 - (n - 1) sum o delta² / sum n_c n_k delta².
    """
    totals: dict[int, float] = defaultdict(float)
    for (level, _), count in coincidences.items():
        totals[level] += count
    levels = sorted(totals)
    everything = sum(totals.values())

    def difference(c: int, k: int) -> float:
        low, high = sorted((c, k))
        between = sum(totals[g] for g in levels if low <= g <= high)
        return float((between - (totals[low] + totals[high]) / 2) ** 2)

    observed = sum(count * difference(c, k) for (c, k), count in coincidences.items())
    expected = sum(totals[c] * totals[k] * difference(c, k) for c in levels for k in levels)
    return None if expected == 0 else 1 - (everything - 1) * observed / expected
