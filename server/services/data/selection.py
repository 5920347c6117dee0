"""Which comparisons a page or an export is about: a closed list of filters, each a plain column condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, false, not_, select

from server.errors import BadInput
from server.models import Campaign, Comparison, Demonstration, Edit, Person, Ranking, Round
from server.models.campaigns import MODES, PURPOSES

Answers = Comparison | Ranking | Edit | Demonstration
SOURCES = ("chat", "import")
PEOPLE = ("everyone", "real", "simulated")


@dataclass(frozen=True)
class Selection:
    """Filters on comparisons; None lets everything through. Days are UTC and inclusive."""

    campaign_id: int | None = None
    mode: str | None = None
    source: str | None = None
    round_number: int | None = None
    people: str = "everyone"
    purpose: str | None = None
    since: date | None = None
    until: date | None = None

    def __post_init__(self) -> None:
        """Refuse values outside the closed lists."""
        for field, value, allowed in (
            ("mode", self.mode, MODES),
            ("source", self.source, SOURCES),
            ("people", self.people, PEOPLE),
            ("purpose", self.purpose, PURPOSES),
        ):
            if value is not None and value not in allowed:
                raise BadInput(f"{field} must be one of {', '.join(allowed)}, not {value!r}.", field=field)
        if self.since and self.until and self.since > self.until:
            raise BadInput(f"The first day {self.since} comes after the last day {self.until}.", field="since")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Selection:
        """The selection that a job's settings hold."""
        days = {name: date.fromisoformat(stored[name]) if stored.get(name) else None for name in ("since", "until")}
        return cls(**{**stored, **days})

    def conditions(self, answers: type[Answers] = Comparison) -> list[ColumnElement[bool]]:
        """What a SELECT over `answers` must add to its WHERE; a filter that they have no column for lets nothing through."""
        found: list[ColumnElement[bool]] = []
        if self.campaign_id is not None:
            found.append(answers.campaign_id == self.campaign_id)
        if self.mode is not None:
            of_mode = select(Campaign.id).where(Campaign.mode == self.mode)
            found.append(
                answers.campaign_id.in_(of_mode) if issubclass(answers, Demonstration) else answers.mode == self.mode
            )
        if self.source is not None:
            imported = Comparison.import_id.is_not(None) if answers is Comparison else false()
            found.append(imported if self.source == "import" else not_(imported))
        if self.purpose is not None:
            found.append(answers.purpose == self.purpose)
        if self.round_number is not None:
            wanted = select(Round.id).where(Round.number == self.round_number).scalar_subquery()
            found.append(false() if issubclass(answers, Demonstration) else answers.round_id == wanted)
        if self.people != "everyone":
            by_simulated = exists().where(Person.id == answers.person_id, Person.simulated)
            found.append(by_simulated if self.people == "simulated" else ~by_simulated)
        if self.since is not None:
            found.append(answers.created_at >= _midnight(self.since))
        if self.until is not None:
            found.append(answers.created_at < _midnight(self.until + timedelta(days=1)))
        return found


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
