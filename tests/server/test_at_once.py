"""More requests at once than there are connections: so many are admitted at a time, and none is refused."""

from __future__ import annotations

import asyncio

from httpx import ASGITransport, AsyncClient

from server import edge
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


def test_who_sends_slowly_keeps_nobody_waiting(committed: str, settings: Settings) -> None:
    """Twice as many as are admitted have sent their headers and nothing else."""
    assert settings.redis_url is not None
    with transaction(committed, settings.redis_url) as db:
        token, _csrf = people.start_session(db, factories.person(db, "Alice", "crowdworker"))
    app = create_app(settings)
    cookie = f"{SESSION_COOKIE}={token}".encode()
    form = (b"content-type", b"application/x-www-form-urlencoded")

    async def nothing_more() -> dict[str, object]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def nobody(_message: object) -> None:
        return None

    async def begin(path: str) -> None:
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(),
            "root_path": "", "query_string": b"", "headers": [(b"host", b"test"), (b"cookie", cookie), form],
        }  # fmt: skip
        await app(scope, nothing_more, nobody)

    async def ask() -> int:
        paths = ["/sign-out", "/panel/none/webhook"] * REQUESTS_AT_ONCE
        begun = [asyncio.create_task(begin(path)) for path in paths]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in begun)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            answer = await client.get("/sign-in", timeout=10)
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        return answer.status_code

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == 200


def test_to_wait_for_too_long_is_an_error_that_says_so(client, cast, sign_in, monkeypatch) -> None:
    sign_in(cast.alice)
    monkeypatch.setattr(edge, "PATIENCE_SECONDS", 0.05)
    client.app.state.admission = asyncio.Semaphore(0)
    answer = client.get("/api/campaigns")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    client.app.state.admission = asyncio.Semaphore(1)
    assert [client.get("/api/campaigns").status_code for _ in range(3)] == [
        200,
        200,
        200,
    ]  # each makes room for the next


def test_connections_are_left_for_what_is_not_admitted_one_by_one() -> None:
    assert REQUESTS_AT_ONCE + ANSWERS_AT_ONCE < CONNECTIONS
