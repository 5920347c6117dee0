"""The chat as JSON, and its stream: what the page's own script, the simulated crowd and the tests use."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from server.edge import (
    AppSettings,
    Crowdworker,
    Db,
    OpenTransaction,
)
from server.language import _
from server.models import Campaign, Turn
from server.routes.event_stream import EventStream
from server.routes.row_id import LARGEST
from server.routes.text_limit import LONGEST_TEXT
from server.routes.turn_json import describe_conversation, describe_for, describe_next, describe_turn
from server.services.campaigns import campaigns
from server.services.chat import dialogue, queue, reply_stream
from server.services.door import door
from server.services.items import openings
from server.services.ways import remarks, undo
from server.services.working import drafts, leases, work_time
from server.services.working.instructions import newest_instructions

router = APIRouter(prefix="/api")


class MessageBody(BaseModel):
    """A message; `conversation_id` makes sure that it continues the conversation the page shows."""

    text: str = Field(max_length=LONGEST_TEXT)
    idempotency_key: str
    prompt_id: int | None = Field(None, le=LARGEST)
    conversation_id: int | None = Field(None, le=LARGEST)


class SkipBody(BaseModel):
    """Why a turn is left unanswered."""

    reason: str = Field("cannot_tell", max_length=40)
    note: str | None = Field(None, max_length=10_000)


class ReportBody(BaseModel):
    """What is wrong with a turn, or with the reply at `position`."""

    reason: str = Field(max_length=40)
    note: str | None = Field(None, max_length=10_000)
    position: int | None = Field(None, ge=0, le=8)


class UndoBody(BaseModel):
    """The turn whose answer is to be taken back, so that the same request twice takes back one."""

    turn_id: int | None = Field(None, ge=1, le=LARGEST)


class DraftBody(BaseModel):
    """What stands in a box."""

    text: str = Field(max_length=LONGEST_TEXT)


@router.get("/campaigns")
def list_campaigns(db: Db, person: Crowdworker) -> dict[str, Any]:
    return {
        "campaigns": [
            {
                "slug": each.slug,
                "name": each.name,
                "mode": each.mode,
                "way": each.way,
                "grades": each.grades,
                "status": each.status,
                "ties": each.ties,
                "both_bad": each.both_bad,
                "justification": each.justification,
            }
            for each in campaigns.open_campaigns(db, person)
        ]
    }


@router.get("/campaigns/{slug}/prompts")
def list_prompts(
    db: Db, person: Crowdworker, slug: str, count: Annotated[int, Query(ge=1, le=50)] = 5
) -> dict[str, Any]:
    campaign = dialogue.find_campaign(db, slug)
    door.check(db, person, campaign)
    drawn = openings.draw(db, campaign, count)
    return {"prompts": [{"id": prompt.id, "text": prompt.text} for prompt in drawn]}


@router.get("/campaigns/{slug}/conversation")
def show_conversation(db: Db, person: Crowdworker, slug: str) -> dict[str, Any]:
    campaign = dialogue.find_campaign(db, slug)
    conversation, expired = dialogue.visit(db, person, campaign)
    lease = leases.find(db, person, conversation) if conversation is not None else None
    second = queue.offer(db, person, campaign) if conversation is None else None
    told = newest_instructions(db, campaign)
    at_the_door = door.standing(db, person, campaign)
    shown = {
        "conversation": describe_conversation(conversation),
        "expired": expired,
        "door": {"step": at_the_door.step, "sentence": at_the_door.sentence},
        "draft": drafts.load(db, person, drafts.message_place(campaign)),
        "instructions_id": told.id if told is not None else None,
        "lease_expires_at": lease.expires_at.isoformat() if lease is not None else None,
        "second_opinion": None
        if second is None
        else {"turn": describe_for(db, person, second), "transcript": dialogue.transcript(db, second)},
    }
    begins = campaign.way == "chat" and at_the_door.step == door.READY
    if dialogue.why_not(db, campaign) is None and (begins or conversation is not None or second is not None):
        work_time.seen(db, person, campaign)
    return shown


@router.post("/campaigns/{slug}/messages", status_code=201)
def send_message(db: Db, person: Crowdworker, slug: str, body: MessageBody) -> dict[str, Any]:
    campaign = dialogue.find_campaign(db, slug)
    turn = dialogue.send_message(
        db, person, campaign, body.text, body.idempotency_key, body.prompt_id, body.conversation_id
    )
    work_time.seen(db, person, campaign)
    return {"turn": describe_turn(turn)}


@router.post("/campaigns/{slug}/finish")
def finish_conversation(db: Db, person: Crowdworker, slug: str) -> dict[str, Any]:
    conversation = dialogue.finish(db, person, dialogue.find_campaign(db, slug))
    return {"conversation": describe_conversation(conversation)}


@router.get("/turns/{turn_id}")
def show_turn(db: Db, person: Crowdworker, turn_id: int) -> dict[str, Any]:
    return {"turn": describe_for(db, person, queue.lent_or_own(db, person, turn_id))}


@router.post("/turns/{turn_id}/retry")
def retry_turn(db: Db, settings: AppSettings, person: Crowdworker, turn_id: int) -> dict[str, Any]:
    turn, failed_before = dialogue.retry_turn(db, person, turn_id)
    assert settings.redis_url is not None
    if failed_before:  # the stream of a reply under way is what its page shows
        reply_stream.forget(settings.redis_url, turn_id)
    return {"turn": describe_turn(turn)}


def campaign_of(db: Db, turn: Turn) -> Campaign:
    """The campaign that a turn belongs to."""
    return db.get_one(Campaign, turn.conversation.campaign_id)


@router.post("/turns/{turn_id}/skip")
def skip_turn(db: Db, person: Crowdworker, turn_id: int, body: SkipBody) -> dict[str, Any]:
    turn = remarks.skip(db, person, turn_id, body.reason, body.note)
    told = {"skipped": turn.id, "next": describe_next(db, person, turn)}
    work_time.seen(db, person, campaign_of(db, turn))
    return told


@router.post("/turns/{turn_id}/report", status_code=201)
def report_turn(db: Db, person: Crowdworker, turn_id: int, body: ReportBody) -> dict[str, Any]:
    told = remarks.report(db, person, turn_id, body.reason, body.note, body.position)
    work_time.seen(db, person, db.get_one(Campaign, told.campaign_id))
    return {"report": told.id}


@router.post("/campaigns/{slug}/undo")
def undo_last(db: Db, person: Crowdworker, slug: str, body: UndoBody | None = None) -> dict[str, Any]:
    campaign = dialogue.find_campaign(db, slug)
    turn = undo.undo(db, person, campaign, body.turn_id if body is not None else None)
    work_time.seen(db, person, campaign)
    return {"turn": describe_for(db, person, turn)}


@router.put("/drafts/{place}", status_code=204)
def save_draft(db: Db, person: Crowdworker, place: str, body: DraftBody) -> Response:
    of = drafts.place_of(db, place)
    if isinstance(of, int):
        campaign = campaign_of(db, queue.lent_or_own(db, person, of))  # one's own turn, or one that was lent
    else:
        # Typing is activity: whoever writes a long message does not lose the conversation meanwhile.
        dialogue.visit(db, person, campaign := of)
    drafts.save(db, person, place, body.text)
    work_time.still_here(db, person, campaign)
    return Response(status_code=204)


@router.get("/turns/{turn_id}/events")
def follow_turn(
    db: Db,
    open_transaction: OpenTransaction,
    settings: AppSettings,
    person: Crowdworker,
    turn_id: int,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Server-sent events until the turn is ready or failed; open streams hold no database connection."""
    dialogue.own_turn(db, person, turn_id)
    assert settings.redis_url is not None
    redis_url = settings.redis_url

    def read_turn() -> dict[str, Any]:
        with open_transaction() as fresh:
            turn = fresh.get_one(Turn, turn_id)
            return describe_turn(turn)

    async def read_status() -> str:
        turn = await run_in_threadpool(read_turn)
        return str(turn["status"])

    async def write() -> AsyncGenerator[str]:
        yield "retry: 1000\n\n"
        async with aclosing(reply_stream.follow(redis_url, turn_id, last_event_id, read_status)) as events:
            async for event in events:
                told = event.fields
                if event.name == "ready":
                    told = {"turn": await run_in_threadpool(read_turn)}
                elif event.name == "failed":
                    failed = await run_in_threadpool(read_turn)
                    told = {"reason": failed["failure"] or _("The model gave no reply.")}
                yield as_text(event, told)

    return EventStream(write())


def as_text(event: reply_stream.Event, fields: dict[str, Any]) -> str:
    """The wire form of one event."""
    if event.name is None:
        return ": still writing\n\n"
    number = f"id: {event.entry_id}\n" if event.entry_id else ""
    return f"{number}event: {event.name}\ndata: {json.dumps(fields, ensure_ascii=False)}\n\n"
