"""Rankings, demonstrations, written prompts and edits as JSON; comparisons are in api_comparison.py."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from server.edge import Crowdworker, Db
from server.models import Campaign, Turn
from server.routes.row_id import LARGEST
from server.routes.text_limit import LONGEST_TEXT
from server.routes.turn_json import describe_conversation, describe_next
from server.services.chat import dialogue, edits
from server.services.ways import demonstrations, prompt_writing, ranking
from server.services.ways.ranking import Placed
from server.services.working import work_time
from server.services.working.answers import Sent

router = APIRouter(prefix="/api")


class AnswerBody(BaseModel):
    """What every answer has: `milliseconds` of active time, `signals` (server/services/working/signals.py), the version shown."""

    milliseconds: int = Field(le=LARGEST)
    idempotency_key: str
    signals: dict[str, Any] | None = None
    instructions_id: int | None = Field(None, ge=1, le=LARGEST)

    def sent(self) -> Sent:
        """As the services take it."""
        return Sent(self.milliseconds, self.idempotency_key, self.instructions_id, self.signals)


class PlaceBody(BaseModel):
    """The reply at `position` as it was shown, its place (1 the best; equal places are ties), rating and flags."""

    position: int = Field(ge=0, le=8)
    place: int = Field(ge=-1000, le=1000)
    rating: int | None = Field(None, ge=-1000, le=1000)
    flags: list[str] = Field(default_factory=list, max_length=100)


class RankingBody(AnswerBody):
    """A place for every reply."""

    places: list[PlaceBody] = Field(max_length=20)
    justification: str | None = Field(None, max_length=LONGEST_TEXT)


class TextBody(AnswerBody):
    """Something written."""

    text: str = Field(max_length=LONGEST_TEXT)


def _status(new: bool) -> int:
    return 201 if new else 200


@router.post("/turns/{turn_id}/ranking")
def store_ranking(db: Db, person: Crowdworker, turn_id: int, body: RankingBody) -> Response:
    placed = [Placed(each.position, each.place, each.rating, tuple(each.flags)) for each in body.places]
    row, new = ranking.store_ranking(db, person, turn_id, placed, body.sent(), body.justification)
    places = {each.shown or 0: each.place for each in row.places}
    turn = db.get_one(Turn, turn_id)
    told = {
        "ranking": {"id": row.id, "places": [places[shown] for shown in sorted(places)]},
        "next": describe_next(db, person, turn),
    }
    work_time.seen(db, person, db.get_one(Campaign, row.campaign_id), answers=int(new))
    return JSONResponse(told, status_code=_status(new))


@router.post("/turns/{turn_id}/demonstration")
def store_demonstration(db: Db, person: Crowdworker, turn_id: int, body: TextBody) -> Response:
    row, new = demonstrations.store_demonstration(db, person, turn_id, body.text, body.sent())
    turn = db.get_one(Turn, turn_id)
    told = {"demonstration": {"id": row.id}, "next": describe_next(db, person, turn)}
    work_time.seen(db, person, db.get_one(Campaign, row.campaign_id), answers=int(new))
    return JSONResponse(told, status_code=_status(new))


@router.post("/turns/{turn_id}/edit")
def store_edit(db: Db, person: Crowdworker, turn_id: int, body: TextBody) -> Response:
    row, new = edits.store_edit(db, person, turn_id, body.text, body.sent())
    turn = dialogue.own_turn(db, person, turn_id)
    told = {"edit": {"id": row.id}, "conversation": describe_conversation(turn.conversation)}
    work_time.seen(db, person, db.get_one(Campaign, row.campaign_id), answers=int(new))
    return JSONResponse(told, status_code=_status(new))


@router.post("/campaigns/{slug}/prompts")
def propose_prompt(db: Db, person: Crowdworker, slug: str, body: TextBody) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    row, new = prompt_writing.propose(db, person, campaign, body.text, body.sent())
    work_time.seen(db, person, campaign, answers=int(new))
    return JSONResponse({"prompt": {"id": row.id, "status": row.status}}, status_code=_status(new))


@router.post("/campaigns/{slug}/prompts/{prompt_id}/withdraw")
def withdraw_prompt(db: Db, person: Crowdworker, slug: str, prompt_id: int) -> dict[str, Any]:
    text = prompt_writing.withdraw(db, person, dialogue.find_campaign(db, slug), prompt_id)
    return {"text": text}
