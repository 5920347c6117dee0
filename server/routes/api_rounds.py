"""Rounds and the schedule for programs: the command line, the page's own script, the simulated crowd's demo."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from server.edge import Db, OpenTransaction, Researcher
from server.routes.event_stream import EventStream
from server.routes.round_json import round_json, schedule_json
from server.routes.row_id import RowId
from server.services.rounds import outlook, rounds, schedules

router = APIRouter(prefix="/api")

POLL_SECONDS = 1.0  # a worker writes no oftener
BREATH_SECONDS = 10.0  # a comment in a silent stream, before proxies give it up
STREAM_SECONDS = 600.0  # then the browser connects again by itself, and its session is looked at again
OVER = ("done", "failed", "cancelled")


class StartBody(BaseModel):
    """The settings that differ from the defaults, nested as in RoundSettings."""

    settings: dict[str, Any] = Field(default_factory=dict)


class ReasonBody(BaseModel):
    """Why a held round may go on."""

    reason: str = Field(max_length=2000)


class ScheduleBody(BaseModel):
    """A schedule as a person wants it; without `id` a new one."""

    id: int | None = None
    cron: str = Field(max_length=200)
    time_zone: str = Field(default="UTC", max_length=100)
    minimum_new_comparisons: int = schedules.DEFAULT_MINIMUM
    enabled: bool = True


@router.get("/rounds")
def list_rounds(db: Db, person: Researcher, before: int | None = None) -> dict[str, Any]:
    now = outlook.outlook(db)
    return {
        "rounds": [round_json(db, row) for row in rounds.newest_rounds(db, before=before)],
        "next": {"usable": now.usable, "new": now.new, "initial": now.initial, "obstacle": now.obstacle},
        "schedules": [schedule_json(row) for row in schedules.all_schedules(db)],
    }


@router.post("/rounds", status_code=201)
def start_round(db: Db, person: Researcher, body: StartBody) -> dict[str, Any]:
    row = rounds.start(db, trigger="person", person=person, settings=body.settings)
    return {"round": round_json(db, row)}


@router.get("/rounds/{round_id}")
def show_round(db: Db, person: Researcher, round_id: RowId) -> dict[str, Any]:
    return {"round": round_json(db, rounds.find_round(db, round_id))}


@router.post("/rounds/{round_id}/retry")
def retry_round(db: Db, person: Researcher, round_id: RowId) -> dict[str, Any]:
    row = rounds.find_round(db, round_id)
    rounds.retry(db, row, person)
    return {"round": round_json(db, row)}


@router.post("/rounds/{round_id}/release")
def release_round(db: Db, person: Researcher, round_id: RowId, body: ReasonBody) -> dict[str, Any]:
    row = rounds.find_round(db, round_id)
    rounds.release(db, row, person, body.reason)
    return {"round": round_json(db, row)}


@router.post("/rounds/{round_id}/cancel")
def cancel_round(db: Db, person: Researcher, round_id: RowId) -> dict[str, Any]:
    row = rounds.find_round(db, round_id)
    rounds.cancel(db, row, person)
    return {"round": round_json(db, row)}


@router.put("/schedule")
def put_schedule(db: Db, person: Researcher, body: ScheduleBody) -> dict[str, Any]:
    row = schedules.save_schedule(
        db, person, cron=body.cron, time_zone=body.time_zone, minimum=body.minimum_new_comparisons,
        enabled=body.enabled, schedule_id=body.id,
    )  # fmt: skip
    return {"schedule": schedule_json(row)}


@router.get("/rounds/{round_id}/events")
async def round_events(
    request: Request, open_transaction: OpenTransaction, person: Researcher, round_id: RowId
) -> EventStream:
    first = await run_in_threadpool(_state, open_transaction, round_id)
    return EventStream(_events(request, open_transaction, round_id, first))


async def _events(
    request: Request, open_transaction: OpenTransaction, round_id: int, first: dict[str, Any]
) -> AsyncGenerator[str]:
    """A `round` event whenever something has changed, until the round is over; no database connection is held between."""
    ends, told, state = time.monotonic() + STREAM_SECONDS, "", first
    last_sent = time.monotonic()
    yield "retry: 2000\n\n"
    while True:
        text = json.dumps(state)
        if text != told:
            yield f"event: round\ndata: {text}\n\n"
            told, last_sent = text, time.monotonic()
        elif time.monotonic() - last_sent > BREATH_SECONDS:
            yield ": still here\n\n"
            last_sent = time.monotonic()
        if state["status"] in OVER:
            yield "event: over\ndata: {}\n\n"
            return
        await asyncio.sleep(POLL_SECONDS)
        if time.monotonic() > ends or await request.is_disconnected():
            return
        state = await run_in_threadpool(_state, open_transaction, round_id)


def _state(open_transaction: OpenTransaction, round_id: int) -> dict[str, Any]:
    """What changes while a round runs, read in a short transaction of its own."""
    with open_transaction() as db:
        row = rounds.find_round(db, round_id)
        steps = [
            {
                "name": step.name,
                "status": step.status,
                "attempts": step.attempts,
                "progress": step.progress,
                "elapsed": _elapsed(step.started_at, step.finished_at or step.heartbeat_at),
            }
            for step in row.steps
        ]
        return {"id": row.id, "number": row.number, "status": row.status, "steps": steps}


def _elapsed(start: datetime | None, end: datetime | None) -> int | None:
    return int((end - start).total_seconds()) if start and end else None
