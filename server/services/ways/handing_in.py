"""What comes before any answer to an item of a queue is stored: the turn locked, the lease asked for, a repeat found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound
from server.language import _
from server.models import Campaign, Lease, Person, Turn
from server.services.chat import queue
from server.services.working import answers, leases


@dataclass(frozen=True)
class Handed:
    """An item in the hands of the person who answers it; `earlier` is the row that the same request stored before."""

    turn: Turn
    campaign: Campaign
    lease: Lease
    key: str
    earlier: Any | None


def take(db: Session, person: Person, turn_id: int, key: str, way: str, table: type[Any]) -> Handed:
    """The item for its answer; NotFound when it was not lent to this person, Conflict when the time for it is over."""
    key = answers.checked_key(key)
    turn = queue.lock_turn(db, turn_id)
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    lease = leases.find(db, person, turn.conversation, turn.id)
    if lease is None:
        raise NotFound(_("There is no such turn for you to answer."))
    if campaign.way != way:
        raise Conflict(_("This campaign asks for something else. Reload the page to go on."))
    earlier = answers.earlier(db, table, person, turn, key)
    if earlier is None:
        queue.check_lent(db, lease)
    return Handed(turn, campaign, lease, key, earlier)
