"""Storing a choice: what people do all day, so it is done in as few steps as it can be (`server.services.ways.swift`)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from server.edge import (
    SESSION_COOKIE,
    check_origin,
    crowdworker_of,
    in_answering_thread,
    own_connection,
    own_transaction,
)
from server.models import Campaign, Comparison, Person, Turn
from server.routes import comparison_json
from server.routes.bare import BareRoute
from server.routes.turn_json import describe_for, describe_next
from server.services.chat import queue
from server.services.ways import feedback, swift
from server.services.ways.swift import Given
from server.services.working import work_time

router = APIRouter(prefix="/api")


async def store_comparison(request: Request, turn_id: int) -> Response:
    """Store a choice; the answer brings the next item along where the work is a queue of items."""
    return await in_answering_thread(_compare, request, turn_id, await request.body())


router.add_api_route(
    "/turns/{turn_id:row}/comparison",
    store_comparison,
    methods=["POST"],
    openapi_extra=comparison_json.OPENAPI,
    route_class_override=BareRoute,
)


def _compare(request: Request, turn_id: int, sent: bytes) -> Response:
    given = comparison_json.read(sent)
    token, csrf_token = request.cookies.get(SESSION_COOKIE), request.headers.get("x-csrf-token")
    if isinstance(given, Given) and token and csrf_token:
        check_origin(request)
        with own_connection(request) as connection:
            stored = swift.store(connection, token, csrf_token, turn_id, given)
            check = stored is not None and queue.draws_check(stored.look)
            ahead = None if stored is None or check else swift.lend_next(connection, stored)
        if stored is not None:
            return _told(request, stored, ahead, check=check)
    with own_transaction(request) as db:
        person = crowdworker_of(request, db)
        if not isinstance(given, Given):
            raise given
        return _store(db, person, turn_id, given)


def _told(request: Request, stored: swift.Stored, ahead: dict[str, Any] | None, *, check: bool) -> Response:
    """What `_store` says, of an item that was answered the swift way; nobody needs its texts again, so `turn` is left out."""
    look = stored.look
    if ahead is None:
        with own_transaction(request) as db:
            person, turn = db.get_one(Person, look.person_id), db.get_one(Turn, look.turn_id)
            ahead = describe_next(db, person, turn, check=check)
    told = {
        "comparison": {
            "id": stored.id,
            "verdict": stored.verdict,
            "strength": stored.strength,
            "picked_position": stored.picked_position,
        },
        "turn": None,
        "next": ahead,
        "conversation": {"id": look.conversation_id, "status": look.conversation_status},
    }
    return JSONResponse(told, status_code=201)


def _store(db: Session, person: Person, turn_id: int, given: Given) -> Response:
    """The long way, which knows all cases."""
    comparison, new = feedback.store_comparison(
        db,
        person,
        turn_id,
        given.scale_position,
        given.milliseconds,
        given.idempotency_key,
        given.justification,
        given.instructions_id,
        verdict=given.verdict,
        noticed=given.signals,
    )
    turn = db.get_one(Turn, turn_id)
    told = {
        "comparison": _describe(comparison, turn),
        "turn": describe_for(db, person, turn),
        "next": describe_next(db, person, turn),
        "conversation": {"id": turn.conversation_id, "status": turn.conversation.status},
    }
    work_time.seen(db, person, db.get_one(Campaign, turn.conversation.campaign_id), answers=int(new))
    return JSONResponse(told, status_code=201 if new else 200)


def _describe(comparison: Comparison, turn: Turn) -> dict[str, Any]:
    """A choice as the person made it; `picked_position` is the side as it was shown to them."""
    picked = next((each.position for each in turn.candidates if each.id == comparison.picked_id), None)
    if picked is not None and comparison.mirrored:
        picked = 1 - picked
    return {
        "id": comparison.id,
        "verdict": comparison.verdict,
        "strength": comparison.strength,
        "picked_position": picked,
    }
