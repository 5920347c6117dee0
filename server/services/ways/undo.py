"""Taking back one's last answer within the campaign's window: the whole row moves into `undone`, and the turn is open again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.language import _
from server.models import (
    Campaign,
    Comparison,
    DatasetMember,
    DatasetRanking,
    Demonstration,
    Edit,
    Person,
    Prompt,
    Ranking,
    Turn,
    Undone,
)
from server.services.chat import dialogue, queue
from server.services.door import door
from server.services.working import drafts, leases
from server.services.working.kinds import ANSWERS

Answer = Comparison | Ranking | Demonstration


def undoable(db: Session, person: Person, campaign: Campaign) -> Answer | None:
    """This person's last answer here if it can still be taken back: young enough, and nothing came after it or of it."""
    if campaign.way not in queue.WAYS or not campaign.undo_seconds:
        return None
    table: type[Any] = ANSWERS[campaign.way]  # one of Answer's; mypy makes their common base of it
    youngest = datetime.now(UTC) - timedelta(seconds=campaign.undo_seconds)
    last: Answer | None = db.scalar(
        select(table)
        .where(table.person_id == person.id, table.campaign_id == campaign.id, table.created_at > youngest)
        .order_by(table.id.desc())
        .limit(1)
    )
    if last is None or db.scalar(_what_depends(last)) is not None:
        return None
    return last


def _what_depends(answer: Answer) -> Select[Any]:
    """Something that would lose its ground: a later turn of the chat, or a dataset version that holds the answer."""
    turn = select(Turn).where(Turn.id == answer.turn_id).subquery()
    later_turn = select(Turn.id).where(Turn.conversation_id == turn.c.conversation_id, Turn.position > turn.c.position)
    if isinstance(answer, Comparison):
        frozen = select(DatasetMember.comparison_id).where(DatasetMember.comparison_id == answer.id)
    elif isinstance(answer, Ranking):
        frozen = select(DatasetRanking.ranking_id).where(DatasetRanking.ranking_id == answer.id)
    else:
        return later_turn
    return select(func.coalesce(later_turn.limit(1).scalar_subquery(), frozen.limit(1).scalar_subquery()))


def undo(db: Session, person: Person, campaign: Campaign, turn_id: int | None = None) -> Turn:
    """Take the last answer back: its turn is this person's to answer again. Conflict when it is too late.

    With `turn_id`, only the answer to that turn: the same request again finds it taken back and takes back no other.
    """
    leases.lock(db, f"chat:{person.id}:{campaign.id}")  # not while a message that would build on it is being stored
    answer = undoable(db, person, campaign)
    if turn_id is not None and (answer is None or answer.turn_id != turn_id):
        already = select(Turn).join(Undone, Undone.turn_id == Turn.id).where(
            Turn.id == turn_id, Undone.person_id == person.id, ~_answers_again(person, campaign)
        )  # fmt: skip
        taken_back = db.scalar(already.limit(1))
        if taken_back is not None:
            return taken_back
        answer = None
    if answer is None:
        raise Conflict(_("There is nothing that can be taken back any more."))
    door.check_inside(db, person, campaign)
    turn = queue.lock_turn(db, answer.turn_id)
    db.add(
        Undone(
            person_id=person.id,
            campaign_id=campaign.id,
            turn_id=turn.id,
            kind=type(answer).__name__.lower(),
            answer=whole(answer),
        )
    )
    edit = db.scalar(select(Edit).where(Edit.turn_id == turn.id, Edit.person_id == person.id))
    if edit is not None:  # it improved the reply that is no longer picked
        db.add(
            Undone(
                person_id=person.id, campaign_id=campaign.id, turn_id=turn.id, kind="edit", answer=whole(edit)
            )
        )  # fmt: skip
        db.delete(edit)
    db.delete(answer)
    db.flush()
    conversation = turn.conversation
    if conversation.source == "chat" and conversation.person_id == person.id:
        other = dialogue.open_conversation(db, person, campaign)
        if other is not None and other.id != conversation.id:
            raise Conflict(_("You have begun another conversation since. Finish it first."))
        turn.status, turn.continued_by_id, turn.queue_id = "ready", None, None
        conversation.status, conversation.finished_at = "open", None
        db.flush()
        leases.hold(db, person, campaign, conversation)
    else:
        queue.reopen(db, campaign, turn)
        leases.hold(db, person, campaign, conversation, turn.id)
    _give_back(db, person, turn, answer)
    return turn


def _give_back(db: Session, person: Person, turn: Turn, answer: Answer) -> None:
    """What was typed, rated and ordered is in the boxes again, to be mended and not to be done anew."""
    reason = getattr(answer, "justification", None)
    if reason:
        drafts.save(db, person, drafts.justification_place(turn), reason)
    if isinstance(answer, Demonstration):
        drafts.save(db, person, drafts.turn_place("demonstration", turn), answer.text)
    if isinstance(answer, Ranking):
        places = {each.candidate_id: each for each in answer.places}
        shown = queue.as_shown(turn, leases.find(db, person, turn.conversation, turn.id))
        form = [
            {"position": at, "place": each.place, "rating": each.rating, "flags": list(each.flags)}
            for at, candidate in enumerate(shown)
            if (each := places.get(candidate.id)) is not None
        ]
        drafts.save(db, person, drafts.turn_place("ranking", turn), json.dumps(form))


def _answers_again(person: Person, campaign: Campaign) -> ColumnElement[bool]:
    table: type[Any] = ANSWERS[campaign.way]
    return exists().where(table.turn_id == Turn.id, table.person_id == person.id)


def whole(answer: Answer | Edit | Prompt) -> dict[str, Any]:
    """Every column of a row, and the places of a ranking."""
    found = {column.key: _plain(getattr(answer, column.key)) for column in answer.__table__.columns}
    if isinstance(answer, Ranking):
        found["places"] = [
            {
                "candidate_id": each.candidate_id,
                "place": each.place,
                "shown": each.shown,
                "rating": each.rating,
                "flags": list(each.flags),
            }
            for each in answer.places
        ]
    return found


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
