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
from server.models import Campaign, CheckResult, Comparison, Person, Turn
from server.services.intervals import Share


def checked_expected(expected: Any) -> dict[str, Any]:
    """What an item's expert key may say of a comparison; BadInput says what it must look like.

    {"picked": 0 or 1} names the better (in red-team campaigns the more harmful) of the two texts as they were given, with
    "strength" the least that is asked for; {"verdict": "tie"} or {"verdict": "both_bad"} another answer.
    """
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


def record_comparison(db: Session, person: Person, campaign: Campaign, turn: Turn, comparison: Comparison) -> None:
    """Hold a comparison of a check against its key; of any other turn nothing is noted."""
    if turn.check_kind is None or turn.expected is None:
        return
    picked = next((each.position for each in turn.candidates if each.id == comparison.picked_id), None)
    answered = {"verdict": comparison.verdict, "picked": picked, "strength": comparison.strength}
    statement = insert(CheckResult).values(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        kind=turn.check_kind,
        passed=agrees(turn.expected, answered),
        expected=turn.expected,
        answered=answered,
    )
    # an answer that was taken back and given anew does not better the first result: the first look is the evidence
    db.execute(statement.on_conflict_do_nothing(index_elements=["turn_id", "person_id"]))


def agrees(expected: dict[str, Any], answered: dict[str, Any]) -> bool:
    """Whether an answer is the expert's: the same verdict, the same reply, at least as strong as asked for."""
    if "verdict" in expected:
        return bool(answered["verdict"] == expected["verdict"])
    same = answered["verdict"] == "picked" and answered["picked"] == expected["picked"]
    return bool(same and (answered["strength"] or 0) >= expected.get("strength", 1))


@dataclass(frozen=True)
class Evidence:
    """How one person answered the checks of a campaign."""

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
        select(Person.name, *columns)
        .join(Person, Person.id == CheckResult.person_id)
        .where(CheckResult.campaign_id == campaign.id)
        .group_by(Person.id)
        .order_by(Person.name, Person.id)
    )
    return [Evidence(name, Share(*counts[:2]), Share(*counts[2:])) for name, *counts in rows]
