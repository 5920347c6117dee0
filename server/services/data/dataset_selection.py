"""Which feedback a dataset version takes, and the conditions that say so on any table of answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import aliased

from server.errors import BadInput
from server.models import Campaign, Comparison, Edit, Person, Ranking, Turn


@dataclass(frozen=True)
class DatasetSelection:
    """Which feedback; empty campaigns and modes mean all of them."""

    campaigns: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    imports: bool = True
    simulated: bool = True
    rankings: bool = True
    edits: bool = True
    held_out: float = (
        0.15  # of the conversations; the papers' 5% of 44,000 would be too few pairs of a first round's 300
    )
    weakest_strength: int = (
        1  # at or below it a comparison teaches nothing (2204.05862, 2.2); such are frozen, not usable
    )

    def as_json(self) -> dict[str, Any]:
        """The form stored beside the version."""
        return asdict(self) | {"campaigns": list(self.campaigns), "modes": list(self.modes)}

    def conditions(self, answers: type[Comparison | Ranking | Edit]) -> list[ColumnElement[bool]]:
        """What a SELECT over `answers` adds to its WHERE. Nothing of an evaluation is ever trained on, nor of a check.

        A check was made to see who reads: everybody answers it, so it would weigh as often as there are people, and an
        attention check prefers nothing.
        """
        turn = aliased(Turn)  # the SELECT may have the table too
        of_check = exists().where(turn.id == answers.turn_id, turn.check_kind.is_not(None))
        found: list[ColumnElement[bool]] = [answers.purpose == "training", ~of_check]
        if self.campaigns:
            named = select(Campaign.id).where(Campaign.slug.in_(self.campaigns))
            found.append(answers.campaign_id.in_(named))
        if self.modes:
            found.append(answers.mode.in_(self.modes))
        if not self.simulated:
            found.append(~exists().where(Person.id == answers.person_id, Person.simulated))
        return found


def parse_selection(wanted: dict[str, Any]) -> DatasetSelection:
    """Build a DatasetSelection, or BadInput naming the setting that is unknown or cannot be used."""
    known = DatasetSelection.__dataclass_fields__
    kinds_of: dict[str, Any] = {"campaigns": list, "modes": list} | dict.fromkeys(
        ("imports", "simulated", "rankings", "edits"), bool
    )
    for name, value in wanted.items():
        if name not in known:
            raise BadInput(
                f"There is no setting dataset.{name}; known are {', '.join(known)}.", field=f"dataset.{name}"
            )
        kinds = kinds_of.get(name, (int, float))
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            raise BadInput(f"dataset.{name} cannot be {value!r}.", field=f"dataset.{name}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in wanted.items()
    }
    selection = DatasetSelection(**values)
    if not 0 < selection.held_out < 1:
        raise BadInput("dataset.held_out must lie between 0 and 1.", field="dataset.held_out")
    return selection
