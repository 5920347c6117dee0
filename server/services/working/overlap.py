"""A campaign that wants more or fewer people per turn than before: what is full leaves the queue, what lacks one comes back."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from server.models import Campaign, Conversation, Turn
from server.services.working import kinds
from server.services.working.kinds import ANSWERS


def apply(db: Session, campaign: Campaign) -> None:
    """Fit the queue to the campaign's overlap, which has just been changed.

    Checks stay for everybody. What was given stays, also where it is more than is wanted now. Only turns with an answer come
    back: one without was put away, or is talk that stands before an item. So does no turn whose own person is at it again.
    """
    if campaign.way not in ANSWERS:
        return
    db.flush()
    answers = ANSWERS[campaign.way]
    given = select(func.count()).where(answers.turn_id == Turn.id).correlate(Turn).scalar_subquery()
    wanted = kinds.wanted(campaign)
    here = select(Conversation.id).where(Conversation.campaign_id == campaign.id)
    plain = (Turn.check_kind.is_(None), Turn.status.in_(("ready", "compared")))
    full = (Turn.queue_id == campaign.id, given >= wanted)
    lacking = (Turn.queue_id.is_(None), Turn.status == "compared", given >= 1, given < wanted)
    for source, done, wanting in (("item", {"status": "compared"}, {"status": "ready"}), ("chat", {}, {})):
        mine = Turn.conversation_id.in_(here.where(Conversation.source == source))
        leaves = update(Turn).where(mine, *plain, *full).values(queue_id=None, **done)
        returns = update(Turn).where(mine, *plain, *lacking).values(queue_id=campaign.id, **wanting)
        for change in (leaves, returns):
            db.execute(change.execution_options(synchronize_session="fetch"))
