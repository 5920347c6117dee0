"""More requests at once than there are connections: they take turns, and none is refused."""

from __future__ import annotations

import asyncio

from httpx import ASGITransport, AsyncClient

from server.app import create_app
from server.db import CONNECTIONS
from server.edge import ANSWERS_AT_ONCE, REQUESTS_AT_ONCE, SESSION_COOKIE
from server.services.people import people
from server.settings import Settings
from server.transaction import transaction
from tests import factories


def test_a_whole_class_opens_the_page_at_once(committed: str, settings: Settings) -> None:
    assert settings.redis_url is not None
    with transaction(committed, settings.redis_url) as db:
        token, _csrf = people.start_session(db, factories.person(db, "Alice", "crowdworker"))
    crowd = 4 * CONNECTIONS  # twice as many as the threads of requests and their connections together

    async def ask() -> list[int]:
        transport = ASGITransport(create_app(settings))
        async with AsyncClient(transport=transport, base_url="http://test", cookies={SESSION_COOKIE: token}) as client:
            answers = await asyncio.gather(*(client.get("/api/campaigns") for _ in range(crowd)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [200] * crowd


def test_connections_are_left_for_what_takes_no_turn() -> None:
    assert REQUESTS_AT_ONCE + ANSWERS_AT_ONCE < CONNECTIONS
