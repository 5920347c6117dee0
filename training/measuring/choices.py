"""What people chose between snapshots, and what a preference model says of the same replies: wins and scores as Elo."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training import objective
from training.intervals import Z95
from training.lines.records import Comparison

FEWEST_PEOPLE = 5  # from so many on intervals speak of other people


class Choice(NamedTuple):
    """Somebody's choice between replies of two snapshots, by their names, and the unit that its like belong to."""

    chosen: str
    rejected: str
    unit: str


def writer(comparison: Comparison, side: str) -> str | None:
    """The snapshot that wrote the `side`, chosen or rejected, as an export names it; None for a person's or an unknown one's."""
    told = comparison.extra.get(f"{side}_reply")
    name = told.get("snapshot") if isinstance(told, Mapping) else None
    return name if isinstance(name, str) and name else None


def units(comparisons: Sequence[Comparison]) -> tuple[str, list[str]]:
    """What is drawn anew in an interval, "people" or "conversations", and the one of each comparison.

    A few people say nothing of how people differ: below FEWEST_PEOPLE it is the conversation. Without either, the line.
    """
    people = {comparison.person for comparison in comparisons} - {None}
    kind = "people" if len(people) >= FEWEST_PEOPLE else "conversations"
    found = []
    for number, comparison in enumerate(comparisons):
        own = comparison.person if kind == "people" else comparison.conversation
        found.append(f"line {number}" if own is None else f"named {own}")
    return kind, found


def choice_wins(names: Sequence[str], choices: Sequence[Choice], share: Tensor) -> Tensor:
    """Wins by unit, `share` [N] of each choice going to the reply that was chosen and the rest to the other.  -> [U, M, M]"""
    place = {name: at for at, name in enumerate(names)}
    unit = _numbered(choice.unit for choice in choices)
    one, other = (torch.tensor([place[getattr(each, side)] for each in choices]) for side in ("chosen", "rejected"))
    wins = torch.zeros(int(unit.max()) + 1, len(names), len(names), dtype=torch.float64)
    wins.index_put_((unit, one, other), share.double(), accumulate=True)
    return wins.index_put_((unit, other, one), 1 - share.double(), accumulate=True)


def elo_of_scores(names: Sequence[str], choices: Sequence[Choice], margins: Tensor) -> list[dict[str, Any]]:
    """Points that the mean raw scores of each snapshot's replies foretell over the first's, 174 a nat.  [N, 2] -> M rows

    `margins` [N, 2] are the scores of the chosen and the rejected reply. Means are ratios over units, which differ in how
    many replies they hold, so a unit counts in the error with what its replies move the difference of means by.
    """
    place = {name: at for at, name in enumerate(names)}
    unit = _numbered(choice.unit for choice in choices).repeat(2)
    sides = [[place[getattr(each, side)] for each in choices] for side in ("chosen", "rejected")]
    player, score = torch.tensor(sides).flatten(), margins.double().T.flatten()
    count = torch.bincount(player, minlength=len(names)).double()
    mean = torch.zeros(len(names), dtype=torch.float64).index_add(0, player, score) / count
    moved = torch.zeros(int(unit.max()) + 1, len(names), dtype=torch.float64)
    moved.index_put_((unit, player), (score - mean[player]) / count[player], accumulate=True)
    moved = moved - moved[:, :1]
    # one unit says nothing of how units differ
    error = (moved.square().sum(0) * len(moved) / (len(moved) - 1)).sqrt() if len(moved) > 1 else None
    found = []
    for at, points in enumerate(((mean - mean[0]) * objective.POINTS_A_NAT).tolist()):
        wide = None if error is None else float(Z95 * error[at] * objective.POINTS_A_NAT)
        found.append({"elo": points, "elo_ci95": None if wide is None else [points - wide, points + wide]})
    return found


def _numbered(names: Iterable[str]) -> Tensor:
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])
