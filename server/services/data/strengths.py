"""Bradley-Terry strengths from a table of wins, in plain Python: the web process loads no library of numbers for it.

P(i beats j) = p_i / (p_i + p_j), fitted by maximum likelihood (Bradley and Terry 1952) with the steps of Hunter (2004,
"MM algorithms for generalized Bradley-Terry models", eq. 3). In Elo points: 400 log10(p_i / p_reference).
tests/server/test_wins.py holds it against `training.objective.fitted_strengths`, which fits the same by Newton's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from random import Random

Table = list[list[float]]  # [i][j]: how often i beat j, a tie half on each side
POINTS = 400.0
_STEPS, _ENOUGH = 10_000, 1e-10
RESAMPLES = 400


def elo(wins: Table, reference: int = 0) -> list[float] | None:
    """Points of each player over the reference; None where no finite maximum exists.

    That is when some players never beat one of the others, directly or through third ones (Ford 1957).
    """
    players = range(len(wins))
    if not _connected(wins):
        return None
    p = [1.0 for _player in players]
    won = [sum(wins[i][j] for j in players if j != i) for i in players]
    for _step in range(_STEPS):
        new = [
            won[i]
            / sum((wins[i][j] + wins[j][i]) / (p[i] + p[j]) for j in players if j != i and wins[i][j] + wins[j][i])
            for i in players
        ]
        scale = new[reference]
        new = [value / scale for value in new]
        moved = max(abs(a - b) / a for a, b in zip(new, p, strict=True))
        p = new
        if moved < _ENOUGH:
            break
    return [POINTS * log10(value / p[reference]) for value in p]


def _connected(wins: Table) -> bool:
    """Whether everybody has beaten everybody, if only through others."""
    players = range(len(wins))

    def reached(forward: bool) -> set[int]:
        seen, todo = {0}, [0]
        while todo:
            i = todo.pop()
            fresh = {j for j in players if j not in seen and (wins[i][j] if forward else wins[j][i]) > 0}
            seen |= fresh
            todo += fresh
        return seen

    return len(wins) < 2 or (len(reached(True)) == len(reached(False)) == len(wins))


def intervals(by_person: Sequence[Table], reference: int = 0) -> list[tuple[float, float]] | None:
    """95% of each player's points by drawing people anew (bootstrap): the answers of one person depend on each other.

    None with fewer than five people, or where more than one draw in twenty has no finite strengths.
    """
    if len(by_person) < 5:
        return None
    rng = Random(0)  # the same figures at every look
    found = []
    for _draw in range(RESAMPLES):
        drawn = elo(added(rng.choices(by_person, k=len(by_person))), reference)
        if drawn is not None:
            found.append(drawn)
    if len(found) < RESAMPLES * 0.95:
        return None
    cut = round(0.025 * len(found))
    ranges = []
    for player in range(len(by_person[0])):
        ordered = sorted(each[player] for each in found)
        ranges.append((ordered[cut], ordered[-1 - cut]))
    return ranges


def added(tables: Sequence[Table]) -> Table:
    """The sum of tables."""
    size = range(len(tables[0]))
    return [[sum(table[i][j] for table in tables) for j in size] for i in size]
