"""What the platform's comparison makes of what it measures, and that its people do what the page does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import uvicorn
from sqlalchemy import func, select

from bench import pgbench, platform
from bench.platform_load import perform, quantile, read_answer
from bench.platform_ours import judged
from bench.platform_page import cookies_of, middle
from bench.processes import free_port, proportional_mb
from server.app import create_app
from server.models import Comparison
from server.services.items import item_lines, items
from server.services.people import people
from server.services.simulated import open_session
from server.settings import Settings
from server.transaction import transaction
from tests import factories


def answered(raw: bytes) -> tuple[int, bytes, bool]:
    """What is read from these bytes."""

    async def read() -> tuple[int, bytes, bool]:
        reader = asyncio.StreamReader()
        reader.feed_data(raw)
        reader.feed_eof()
        return await read_answer(reader)

    return asyncio.run(read())


def test_answers_are_read_to_their_end_however_they_are_framed() -> None:
    assert answered(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}rest") == (201, b"{}", False)
    assert answered(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n") == (204, b"", False)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n"
    assert answered(chunked) == (200, b"abc0123456789", False)
    assert answered(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx") == (200, b"x", True)
    assert answered(b"HTTP/1.0 200 OK\r\n\r\nall of it") == (200, b"all of it", True)


def test_quantiles_are_values_that_were_measured() -> None:
    ordered = [number / 1000 for number in range(1, 101)]
    assert quantile(ordered, 0.5) == pytest.approx(51)
    assert quantile(ordered, 0.99) == pytest.approx(100)
    assert quantile([], 0.5) is None


@pytest.mark.parametrize(
    ("items_by_state", "stored", "why"),
    [
        ({(2, False): 5, (1, True): 1}, 10, "an acknowledged answer was lost"),
        ({(2, False): 4, (3, False): 1}, 11, "an item has three answers, two were wanted"),
        ({(2, False): 5, (1, False): 1}, 11, "an item left the queue with one answer too few"),
        ({(2, False): 4, (2, True): 1, (1, True): 1}, 11, "an item is still offered that has all its answers"),
    ],
)
def test_a_run_whose_answers_do_not_add_up_has_no_figures(items_by_state, stored, why) -> None:
    with pytest.raises(SystemExit, match="do not add up"):
        judged(items_by_state, stored=stored, keys=stored, acknowledged=11, overlap=2)
    fine = judged({(2, False): 5, (1, True): 1, (0, True): 7}, stored=11, keys=11, acknowledged=11, overlap=2)
    assert fine["stored"] == 11


def test_a_doubled_key_is_noticed() -> None:
    with pytest.raises(SystemExit, match="do not add up"):
        judged({(1, False): 11}, stored=11, keys=10, acknowledged=11, overlap=1)


def turn(rate: float, **more: object) -> dict[str, object]:
    return {
        "rate": rate, "p50_ms": 3.0, "p99_ms": 9.0, "errors": 0, "kinds_of_error": {}, "cpu_ms": 1.5, "web_cpu_ms": 1.0, "pace_ms": 12.0, "others_share": 0.02, **more,
    }  # fmt: skip


def test_a_row_has_the_median_of_the_rounds_and_says_whether_it_reaches_what_is_asked() -> None:
    found = {
        "ours": [turn(200), turn(300), turn(420)],
        "potato": [turn(100), turn(200, others_share=0.3), turn(140, others_share=0.4)],
        "pgbench": [{"rate": 1000.0, "p50_ms": 1.0, "p99_ms": 2.0}] * 3,
    }
    row = platform.row_of(1, found)
    assert (row["ratio_least"], row["ratio"], row["ratio_most"]) == (1.5, 2.0, 3.0)
    assert row["ours"]["rate"] == 300
    assert row["of_limit"] == pytest.approx(0.3)
    assert row["others_share"] == 0.3
    assert row["reached"]  # 250/s and 4 ms are asked
    assert platform.cells_of(row)[9] == "250/s, p50 4 ms"
    slow = found | {"ours": [turn(300, p50_ms=4.1)] * 3}
    assert not platform.row_of(1, slow)["reached"]
    broken = found | {"ours": [turn(300), turn(300), turn(300, errors=1, kinds_of_error={"500": 1})]}
    assert not platform.row_of(1, broken)["reached"]
    assert platform.cells_of(platform.row_of(1, broken))[0] == "1 clients, 1 errors"
    assert platform.row_of(7, found)["reached"]  # nothing is asked for seven


def test_a_side_that_answered_nothing_in_time_is_no_median_of_nothing() -> None:
    found = {
        "ours": [turn(0, p50_ms=None, p99_ms=None)],
        "potato": [turn(100)],
        "pgbench": [{"rate": 1000.0, "p50_ms": 1.0, "p99_ms": 2.0}],
    }
    row = platform.row_of(64, found)
    assert not row["reached"]
    assert platform.cells_of(row)[5] == "-"


def test_a_warm_up_ends_with_enough_answers_or_after_some_turns() -> None:
    played: list[int] = []

    def turn(answers: int):
        return lambda: played.append(answers) or {"acknowledged": answers}

    platform.warm_up(turn(90))
    assert played == [90, 90, 90]
    played.clear()
    platform.warm_up(turn(0))
    assert len(played) == platform.WARM_UP_TURNS


def test_sides_take_turns_and_every_other_round_goes_backwards() -> None:
    played: list[tuple[str, int]] = []

    def side(name: str):
        return lambda count: played.append((name, count)) or {"rate": 1.0}

    platform.turns_of({"a": side("a"), "b": side("b")}, [1, 16], 2)
    assert played == [
        ("a", 1), ("b", 1), ("a", 16), ("b", 16),
        ("b", 1), ("a", 1), ("b", 16), ("a", 16),
    ]  # fmt: skip


def test_what_pgbench_says_is_read() -> None:
    said = "number of failed transactions: 0 (0.000%)\nlatency average = 0.3 ms\ntps = 3035.417 (without initial connection time)\n"
    assert pgbench.rate_of(said) == pytest.approx(3035.417)
    logs = "0 1 500 0 1700000000 1\n0 2 1500 0 1700000000 2\n1 1 1000 0 1700000000 3\n"
    assert pgbench.latencies_of(logs) == {"p50_ms": pytest.approx(1.0), "p99_ms": pytest.approx(1.5)}


def test_memory_is_the_kernels_proportional_count() -> None:
    rollup = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  204800 kB\nPss:  102400 kB\nPss_Dirty: 900 kB\n"
    assert proportional_mb(rollup) == 100


def test_pages_are_the_middle_of_their_visits() -> None:
    visits = [{"ready_s": seconds, "kb": 60.0, "requests": 12} for seconds in (0.2, 0.9, 0.3)]
    assert middle(visits)["ready_s"] == 0.3
    assert cookies_of("a=1; b=x=y", "http://h") == [
        {"name": "a", "value": "1", "url": "http://h"},
        {"name": "b", "value": "x=y", "url": "http://h"},
    ]


@pytest.fixture
def served(settings: Settings, committed: str, redis) -> Iterator[tuple[Settings, str]]:
    """The application on a port of its own, in a thread."""
    port = free_port()
    own = replace(settings, public_url=f"http://127.0.0.1:{port}", port=port)
    server = uvicorn.Server(
        uvicorn.Config(create_app(own), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield own, committed
    server.should_exit = True
    thread.join(timeout=10)


def test_the_load_stores_one_row_for_each_answer_and_says_when_nothing_is_left(served) -> None:
    settings, database_url = served
    lines = [f'{{"prompt": "Question {number}?", "a": "Yes.", "b": "No."}}' for number in range(6)]
    with transaction(database_url, str(settings.redis_url)) as db:
        campaign = factories.campaign(db, slug="bench", way="pairs", overlap=2)
        items.add_items(db, campaign, item_lines.read(lines))
        crowd = [people.create_person(db, name, ["crowdworker"]) for name in ("Alice", "Bob", "Mallory")]
        sessions = [open_session(db, person) for person in crowd]
    job = {
        "target": "ours", "host": "127.0.0.1", "port": settings.port, "people": sessions, "slug": "bench",
        "seconds": 20.0, "warm": 0.0,
    }  # fmt: skip
    forged = [{**session, "csrf_token": "another"} for session in sessions]
    refused = asyncio.run(perform(job | {"people": forged, "seconds": 0.2}))
    assert refused["acknowledged"] == 0
    assert all(kind.startswith("403") for kind in refused["kinds_of_error"])
    found = asyncio.run(perform(job))
    # Six items want two answers each, of different people: twelve, and then the three are told that there is no more.
    assert found["acknowledged"] == 12
    assert found["kinds_of_error"] == {"no item is left": 3}
    assert found["p50_ms"] > 0
    with transaction(database_url, str(settings.redis_url)) as db:
        per_item = db.scalars(select(func.count()).select_from(Comparison).group_by(Comparison.turn_id)).all()
        assert per_item == [2] * 6
        assert {each.signals["active_ms"] for each in db.scalars(select(Comparison))} == {3200}
