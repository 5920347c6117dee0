"""What an admin decides on prompts that people wrote: accepted into the pool, to train on or held out, or declined."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Campaign, Person, Prompt
from server.services import audit
from server.services.campaigns.campaigns import SPLITS

DECISIONS = ("accepted", "declined")


def proposed(db: Session, limit: int = 200) -> list[tuple[Prompt, str, str]]:
    """(prompt, its author's name, the campaign it was written in) of those that wait for a decision, the oldest first."""
    rows = db.execute(
        select(Prompt, Person.name, Campaign.name)
        .join(Person, Person.id == Prompt.author_id)
        .join(Campaign, Campaign.id == Prompt.written_in_id)
        .where(Prompt.status == "proposed")
        .order_by(Prompt.id)
        .limit(limit)
    )
    return [(prompt, author, campaign) for prompt, author, campaign in rows]


def decide(db: Session, admin: Person, prompt_ids: list[int], decision: str, split: str = "train") -> int:
    """Accept prompts into their pool, or decline them; returns how many. Those that are decided already stay as they are.

    What somebody of the held-out pool wrote, or was written in an evaluation campaign, only measures.
    """
    if decision not in DECISIONS or split not in SPLITS:
        raise BadInput(
            "A prompt is accepted or declined, for training (train) or held out (held_out).", field="decision"
        )
    decided = 0
    rows = db.execute(
        select(Prompt, Person.held_out | (Campaign.purpose == "evaluation"))
        .join(Person, Person.id == Prompt.author_id)
        .join(Campaign, Campaign.id == Prompt.written_in_id)
        .where(Prompt.id.in_(prompt_ids), Prompt.status == "proposed")
        .with_for_update(of=Prompt)
    )
    for prompt, only_measures in rows:
        prompt.status, prompt.split = decision, "held_out" if only_measures else split
        audit.record(db, admin, f"prompt.{decision}", "prompt", prompt.id, split=prompt.split)
        decided += 1
    db.flush()
    return decided
