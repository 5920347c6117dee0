"""What people give by the ways of a campaign: which table holds it, and how much of it there is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from server.models import Campaign, Comparison, Demonstration, Person, Prompt, Ranking, Turn

Answer = Comparison | Ranking | Demonstration
# By way, the table that holds the answers to a turn. Written prompts answer no turn.
ANSWERS: dict[str, type[Answer]] = {
    "chat": Comparison,
    "pairs": Comparison,
    "ranking": Ranking,
    "demonstration": Demonstration,
}


def wanted(campaign: Campaign) -> ColumnElement[int]:
    """Answers that a turn of the queue wants: as many as the campaign says, of an item for fewer people one of each."""
    return func.least(campaign.overlap, func.cardinality(Turn.kept_for))


def _made(campaign: Campaign) -> list[ColumnElement[bool]]:
    """What was given here by people; imports do not use up a quota."""
    if campaign.way == "prompts":
        return [Prompt.written_in_id == campaign.id, Prompt.status != "declined"]
    table: type[Any] = ANSWERS[campaign.way]
    found = [table.campaign_id == campaign.id]
    return [*found, Comparison.import_id.is_(None)] if table is Comparison else found


def made(db: Session, campaign: Campaign) -> int:
    """Answers given in the campaign, imported ones aside; prompts that were declined aside."""
    return db.scalar(select(func.count()).where(*_made(campaign))) or 0


def any_given(db: Session, campaign: Campaign) -> bool:
    """Whether the campaign holds any answer, imports included."""
    return any(
        db.scalar(select(table.id).where(of == campaign.id).limit(1)) is not None
        for table, of in (
            (Comparison, Comparison.campaign_id),
            (Ranking, Ranking.campaign_id),
            (Demonstration, Demonstration.campaign_id),
            (Prompt, Prompt.written_in_id),
        )
    )


def made_by(db: Session, person: Person, campaign: Campaign, since: datetime | None = None) -> int:
    """Answers of one person in a campaign, by its way; with `since`, only from then on."""
    if campaign.way == "prompts":
        conditions = [Prompt.written_in_id == campaign.id, Prompt.author_id == person.id]
        at: Any = Prompt.created_at
    else:
        table: type[Any] = ANSWERS[campaign.way]
        conditions, at = [table.campaign_id == campaign.id, table.person_id == person.id], table.created_at
    if since is not None:
        conditions.append(at >= since)
    return db.scalar(select(func.count()).where(*conditions)) or 0


def counts_of(db: Session, person: Person) -> dict[int, int]:
    """Answers of one person by campaign, of every kind."""
    found: dict[int, int] = {}
    for of, who in (
        (Comparison.campaign_id, Comparison.person_id),
        (Ranking.campaign_id, Ranking.person_id),
        (Demonstration.campaign_id, Demonstration.person_id),
        (Prompt.written_in_id, Prompt.author_id),
    ):
        for campaign_id, count in db.execute(select(of, func.count()).where(who == person.id).group_by(of)):
            if campaign_id is None:  # a prompt that no campaign asked for
                continue
            found[campaign_id] = found.get(campaign_id, 0) + count
    return found
