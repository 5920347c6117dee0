"""Who wins in what people compared for evaluation: each pair of models, and replies that people wrote, with errors.

A tie is half a win on each side. "Both are bad" says nothing about which is better: it is counted apart and weighs nothing.
In red-team campaigns people pick the more harmful reply; to win there is to be the other one (`chosen_id`).
Choices of the weakest grade are left out unless asked for, as in training (Bai et al. 2022, App. B.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, false, func, literal, select
from sqlalchemy.orm import Session, aliased

from server.models import Candidate, Comparison, Snapshot
from server.services.data import strengths
from server.services.data.grades import grade
from server.services.data.selection import Selection
from server.services.intervals import Z95, Share

WEAKEST = 1  # the grade that says next to nothing
PEOPLE = 0  # stands for replies that people wrote, in the place of a snapshot's number
# A reply that says who wrote it ends the blindness of the comparison.
LEAK = (
    r"\y(as an? (ai|artificial intelligence)( language)? model|language model (trained|developed|created) by|openai|chatgpt|"
    r"gpt-?[0-9]|anthropic|claude|google deepmind|gemini|meta ai|llama|qwen|alibaba cloud|mistral|deepseek)\y"
)


@dataclass(frozen=True)
class Player:
    """One model, or people: its answers and its strength."""

    id: int
    name: str
    met: int
    won: float
    elo: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Meeting:
    """Two players: how often the first won, lost, tied, and how often both were bad."""

    first: str
    second: str
    won: int
    lost: int
    tied: int
    both_bad: int
    share: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Standings:
    """Everything that the page shows; players from the strongest, `reference` at 0 points."""

    comparisons: int  # with two different players
    within: int  # both replies of one player: no contest
    weakest: int  # choices of the weakest grade between two different players, left out or not
    leaks: int
    left: Share  # how often the reply shown left was picked
    reference: str
    players: list[Player] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)


def _leaks(left: type[Candidate], right: type[Candidate]) -> ColumnElement[bool]:
    name = func.lower(Snapshot.name)
    named = exists().where(
        func.length(name) >= 4,  # a shorter name is a word of any reply
        (func.strpos(func.lower(left.text), name) > 0) | (func.strpos(func.lower(right.text), name) > 0),
    )
    return left.text.regexp_match(LEAK, flags="i") | right.text.regexp_match(LEAK, flags="i") | named


def _weakest() -> ColumnElement[bool]:
    return func.coalesce(grade() <= WEAKEST, false())


def standings(
    db: Session, selection: Selection, *, without_leaks: bool = False, with_weakest: bool = False
) -> Standings:
    """Wins, strengths and their errors over a selection of comparisons."""
    first, second = aliased(Candidate), aliased(Candidate)

    def player(side: Any) -> ColumnElement[Any]:
        return func.coalesce(side.snapshot_id, case((side.demonstration_id.is_not(None), literal(PEOPLE))))

    leaks = _leaks(first, second)
    outcome = case(
        (Comparison.verdict == "tie", "tie"),
        (Comparison.verdict == "both_bad", "both_bad"),
        (Comparison.chosen_id == first.id, "first"),
        else_="second",
    )
    shown_left = case((Comparison.mirrored, second.id), else_=first.id)
    query = (
        select(
            Comparison.person_id, player(first).label("a"), player(second).label("b"), outcome.label("outcome"),
            leaks.label("leaks"), _weakest().label("weakest"), (Comparison.picked_id == shown_left).label("left"), func.count().label("n"),
        )
        .join(first, and_(first.turn_id == Comparison.turn_id, first.position == 0))
        .join(second, and_(second.turn_id == Comparison.turn_id, second.position == 1))
        .where(*selection.conditions(), player(first).is_not(None), player(second).is_not(None))
        .group_by("person_id", "a", "b", "outcome", "leaks", "weakest", "left")
        .order_by("person_id", "a", "b", "outcome")
    )  # fmt: skip
    rows = list(db.execute(query))
    weakest = sum(row.n for row in rows if row.weakest and row.a != row.b)
    if not with_weakest:
        rows = [row for row in rows if not row.weakest]
    leaking = sum(row.n for row in rows if row.leaks)
    if without_leaks:
        rows = [row for row in rows if not row.leaks]
    placed = [row for row in rows if row.left is not None]
    left = Share(sum(row.n for row in placed if row.left), sum(row.n for row in placed))
    within = sum(row.n for row in rows if row.a == row.b)
    counts = {"within": within, "weakest": weakest, "leaks": leaking}
    return _reckoned(db, [row for row in rows if row.a != row.b], counts, left)


def _reckoned(db: Session, rows: list[Any], counts: dict[str, int], left: Share) -> Standings:
    ids = sorted({row.a for row in rows} | {row.b for row in rows}, key=lambda id_: (id_ == PEOPLE, id_))
    names: dict[int, str] = dict(db.execute(select(Snapshot.id, Snapshot.name).where(Snapshot.id.in_(ids))).all())
    names[PEOPLE] = "people"
    place = {id_: at for at, id_ in enumerate(ids)}
    by_person: dict[int | None, strengths.Table] = {}
    for row in rows:
        table = by_person.setdefault(row.person_id, [[0.0] * len(ids) for _id in ids])
        a, b = place[row.a], place[row.b]
        if row.outcome == "tie":
            table[a][b] += row.n / 2
            table[b][a] += row.n / 2
        elif row.outcome == "first":
            table[a][b] += row.n
        elif row.outcome == "second":
            table[b][a] += row.n
    tables = list(by_person.values())
    total = strengths.added(tables) if tables else []
    points = strengths.elo(total) if len(ids) > 1 else None
    ranges = strengths.intervals(tables) if points is not None else None
    players = [
        Player(
            id=id_,
            name=names[id_],
            met=round(sum(total[at][j] + total[j][at] for j in range(len(ids)) if j != at)),
            won=sum(total[at][j] for j in range(len(ids)) if j != at),
            elo=points[at] if points is not None else None,
            interval=ranges[at] if ranges is not None and at else None,
        )
        for id_, at in place.items()
    ]
    players.sort(key=lambda each: (-(each.elo if each.elo is not None else 0.0), each.name))
    return Standings(
        comparisons=sum(row.n for row in rows),
        **counts,
        left=left,
        reference=names[ids[0]] if ids else "",
        players=players,
        meetings=_meetings(rows, ids, names),
    )


def _meetings(rows: list[Any], ids: list[int], names: dict[int, str]) -> list[Meeting]:
    found = []
    for at, one in enumerate(ids):
        for other in ids[at + 1 :]:
            counts = {"won": 0, "lost": 0, "tie": 0, "both_bad": 0}
            by_person: dict[int | None, list[float]] = {}
            for row in rows:
                if {row.a, row.b} != {one, other}:
                    continue
                outcome = row.outcome
                if outcome in ("first", "second"):
                    outcome = "won" if (row.a == one) == (outcome == "first") else "lost"
                counts[outcome] += row.n
                if outcome != "both_bad":
                    person = by_person.setdefault(row.person_id, [0.0, 0.0])
                    person[0] += {"won": 1.0, "tie": 0.5, "lost": 0.0}[outcome] * row.n
                    person[1] += row.n
            if sum(counts.values()):
                share, interval = clustered(list(by_person.values()))
                found.append(Meeting(
                    names[one], names[other], counts["won"], counts["lost"], counts["tie"], counts["both_bad"], share,
                    interval,
                ))  # fmt: skip
    return found


def clustered(people: list[list[float]]) -> tuple[float | None, tuple[float, float] | None]:
    """A share of [won, met] by person and its 95% interval with people as the units (ratio estimator).

    With one person nothing is known of how people differ, and there is no interval.
    """
    met = sum(person[1] for person in people)
    if not met:
        return None, None
    share = sum(person[0] for person in people) / met
    if len(people) < 2:
        return share, None
    spread = sum((person[0] - share * person[1]) ** 2 for person in people)
    error = sqrt(spread * len(people) / (len(people) - 1)) / met
    return share, (max(0.0, share - Z95 * error), min(1.0, share + Z95 * error))
