"""Gold items and attention checks: what an expert holds right, what a person answered, and how often the two agree.

A result is evidence for admins. Nothing here refuses, hides or pays anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Campaign, CheckResult, Comparison, Person, Ranking, Turn
from server.services.door import screening
from server.services.intervals import Share


def gold_items(db: Session, campaign: Campaign) -> int:
    """How many gold items of the campaign's queue are for everybody."""
    gold = (Turn.queue_id == campaign.id, Turn.check_kind == "gold", Turn.kept_for.is_(None))
    return db.scalar(select(func.count()).where(*gold)) or 0


def checked_expected(expected: Any, ranked: int | None = None) -> dict[str, Any]:
    """What an item's expert key may say; BadInput says what it must look like.

    Of a comparison: {"picked": 0 or 1} names the better (in red-team campaigns the more harmful) of the two texts as they
    were given, with "strength" the least that is asked for; {"verdict": "tie"} or {"verdict": "both_bad"} another answer.
    Of a ranking of `ranked` replies: {"above": [[i, j], ...]}, where reply i must stand above reply j.
    """
    if ranked is not None:
        return _checked_order(expected, ranked)
    sentence = 'expected is {"picked": 0 or 1, "strength": 1 to 4 (optional)} or {"verdict": "tie" or "both_bad"}.'
    if not isinstance(expected, dict):
        raise BadInput(sentence, field="expected")
    if set(expected) == {"verdict"} and expected["verdict"] in ("tie", "both_bad"):
        return expected
    picked, strength = expected.get("picked"), expected.get("strength", 1)
    fits = type(picked) is int and picked in (0, 1) and type(strength) is int and 1 <= strength <= 4
    if not fits or set(expected) - {"picked", "strength"}:
        raise BadInput(sentence, field="expected")
    return expected


def _checked_order(expected: Any, ranked: int) -> dict[str, Any]:
    above = expected.get("above") if isinstance(expected, dict) and set(expected) == {"above"} else None
    fits = (
        isinstance(above, list)
        and bool(above)
        and all(
            isinstance(pair, list) and len(pair) == 2 and pair[0] != pair[1]
            and all(type(each) is int and 0 <= each < ranked for each in pair)
            for pair in above
        )
    )  # fmt: skip
    if not fits:
        raise BadInput(
            f'expected is {{"above": [[i, j], ...]}}: reply i must stand above reply j, counted from 0 to {ranked - 1}.',
            field="expected",
        )
    assert isinstance(expected, dict)
    return expected


def record_comparison(db: Session, person: Person, campaign: Campaign, turn: Turn, comparison: Comparison) -> None:
    """Hold a comparison of a check against its key; of any other turn nothing is noted."""
    if turn.check_kind is None or turn.expected is None:
        return
    picked = next((each.position for each in turn.candidates if each.id == comparison.picked_id), None)
    answered = {"verdict": comparison.verdict, "picked": picked, "strength": comparison.strength}
    _record(db, person, campaign, turn, answered, passed=agrees(turn.expected, answered))


def record_ranking(db: Session, person: Person, campaign: Campaign, turn: Turn, ranking: Ranking) -> None:
    """Hold a ranking of a check against its key: every expected order must hold, and a tie does not."""
    if turn.check_kind is None or turn.expected is None:
        return
    by_candidate = {each.candidate_id: each.place for each in ranking.places}
    places = [by_candidate[candidate.id] for candidate in turn.candidates]
    passed = all(places[better] < places[worse] for better, worse in turn.expected["above"])
    _record(db, person, campaign, turn, {"places": places}, passed=passed)


def _record(
    db: Session, person: Person, campaign: Campaign, turn: Turn, answered: dict[str, Any], *, passed: bool
) -> None:
    statement = insert(CheckResult).values(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        kind=turn.check_kind,
        passed=passed,
        expected=turn.expected,
        answered=answered,
    )
    # an answer that was taken back and given anew does not better the first result: the first look is the evidence
    db.execute(statement.on_conflict_do_nothing(index_elements=["turn_id", "person_id"]))
    screening.judge(db, person, campaign)


def agrees(expected: dict[str, Any], answered: dict[str, Any]) -> bool:
    """Whether an answer is the expert's: the same verdict, the same reply, at least as strong as asked for."""
    if "verdict" in expected:
        return bool(answered["verdict"] == expected["verdict"])
    same = answered["verdict"] == "picked" and answered["picked"] == expected["picked"]
    return bool(same and (answered["strength"] or 0) >= expected.get("strength", 1))


@dataclass(frozen=True)
class Evidence:
    """How one person answered the checks of a campaign."""

    person_id: int
    name: str
    gold: Share
    attention: Share


def by_person(db: Session, campaign: Campaign) -> list[Evidence]:
    """Everybody who met a check of the campaign, by name."""
    columns = [
        part
        for kind in ("gold", "attention")
        for part in (
            func.count().filter(CheckResult.kind == kind, CheckResult.passed),
            func.count().filter(CheckResult.kind == kind),
        )
    ]
    rows = db.execute(
        select(Person.id, Person.name, *columns)
        .join(Person, Person.id == CheckResult.person_id)
        .where(CheckResult.campaign_id == campaign.id)
        .group_by(Person.id)
        .order_by(Person.name, Person.id)
    )
    return [Evidence(id_, name, Share(*counts[:2]), Share(*counts[2:])) for id_, name, *counts in rows]
