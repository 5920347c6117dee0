"""The stream of a round's progress, on committed rows."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from server.db import session_factory
from server.errors import NotFound
from server.models import Campaign
from server.routes import api_rounds
from server.services.rounds import rounds
from server.settings import Settings
from server.transaction import transaction
from tests import factories


def committed_round(committed: str) -> int:
    with session_factory(committed).begin() as db:
        campaign: Campaign = factories.campaign(db)
        person = factories.person(db)
        for _ in range(3):
            chat = factories.conversation(db, campaign, person, status="finished")
            factories.comparison(db, factories.turn(db, chat), person)
        return rounds.start(db, trigger="command", settings={"minimum_comparisons": 3}).id


def test_each_change_is_told_once_and_the_end_ends_the_stream(
    committed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    round_id = committed_round(committed)
    monkeypatch.setattr(api_rounds, "POLL_SECONDS", 0.01)

    async def connected() -> bool:
        return False

    open_transaction = partial(transaction, str(settings.database_url), str(settings.redis_url))

    async def read() -> list[str]:
        request: Any = SimpleNamespace(is_disconnected=connected)
        stream = api_rounds._events(request, open_transaction, round_id, api_rounds._state(open_transaction, round_id))
        found = [await anext(stream), await anext(stream)]
        sessions = session_factory(committed)
        with sessions.begin() as db:
            held = rounds.claim(db, round_id, "worker")
            assert held is not None
            rounds.beat(db, held, {"step": 1, "of": 3})
        found.append(await anext(stream))
        with sessions.begin() as db:
            rounds.cancel(db, rounds.find_round(db, round_id), None)
        return found + [event async for event in stream]

    events = asyncio.run(asyncio.wait_for(read(), 30))
    told = [json.loads(event.split("data: ")[1]) for event in events if event.startswith("event: round")]
    assert [state["status"] for state in told] == ["queued", "running", "cancelled"]
    assert told[1]["steps"][0]["progress"] == {"step": 1, "of": 3}
    assert events[-1] == "event: over\ndata: {}\n\n"


def test_no_stream_of_what_is_not_there(settings: Settings, committed: str):
    with pytest.raises(NotFound):
        api_rounds._state(partial(transaction, str(settings.database_url), str(settings.redis_url)), 999)
