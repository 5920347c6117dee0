"""The beat of a page that somebody is at work on: it keeps their paid time going while they read and think."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server.edge import Crowdworker, Db
from server.services.chat import dialogue
from server.services.working import work_time

router = APIRouter(prefix="/api")


@router.post("/campaigns/{slug}/alive")
def still_here(db: Db, person: Crowdworker, slug: str) -> dict[str, Any]:
    """`line` is what the page says of today's time and pay, empty where the campaign does not pay."""
    campaign = dialogue.find_campaign(db, slug)
    work_time.still_here(db, person, campaign)
    return {"line": work_time.line(db, person, campaign)}
