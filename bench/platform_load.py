"""The load: people who answer one item after another, each on a connection of their own. A process of its own.

    python -m bench.platform_load < job.json > found.json

A job is {"target", "host", "port", "people", "seconds", "warm", "slug", "pid", "web_pid"}; "people" are the signed-in sessions, one a client,
and the processor time of `pid` with its children, and of `web_pid` alone, is taken at both ends of the measured time. All come to an
item before the clock starts. A client waits
for the answer to its request before it sends the next. Requests are written by hand onto the socket: a client library costs more than a
request costs the server, and would be what is measured. Answers are read to their end, and every one that is not 2xx is an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import psutil
import uvloop

from bench.processes import cpu_seconds, family

WAIT_SECONDS = 60.0
NOTHING_LEFT = "no item is left"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


class Lost(Exception):
    """The connection broke, or there is nothing to go on with."""


class Connection:
    """One person's connection, opened again when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        """Let go of it."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, accept: str = "application/json"
    ) -> tuple[int, bytes]:
        """Send one request; (status, body) of the answer."""
        content = b"" if body is None else json.dumps(body).encode()
        head = {
            "Host": f"{self.host}:{self.port}", "Connection": "keep-alive", "User-Agent": AGENT, "Accept": accept,
            "Accept-Language": "en", **headers,
        }  # fmt: skip
        if body is not None:
            head |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        request = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + content
        try:
            if self._reader is None or self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
            self._writer.write(request)
            status, answer, closes = await asyncio.wait_for(read_answer(self._reader), WAIT_SECONDS)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.close()
            raise Lost(type(error).__name__) from error
        if closes:
            self.close()
        return status, answer


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """(status, body, whether the server closes the connection) of one answer in HTTP/1."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    closes = b"\r\nconnection: close" in head or head.startswith(b"http/1.0")
    if b"\r\ntransfer-encoding: chunked" in head:
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return status, body, closes
    _, there, after = head.partition(b"\r\ncontent-length:")
    if there:
        length = int(after.split(b"\r\n", 1)[0])
        return status, await reader.readexactly(length) if length else b"", closes
    return status, await reader.read(), True


class Worker(Protocol):
    """One person: gets to the first item, then answers."""

    untimed: int
    """Requests between answers that no answer's time holds."""

    async def begin(self) -> None:
        """Come to an item."""

    async def answer(self) -> tuple[int, bytes]:
        """Answer the item at hand, as its page does."""

    async def go_on(self, answer: bytes) -> None:
        """Come to the next; Lost when there is none."""


class OurWorker:
    """A person in a campaign of the way `pairs`. The answer to a comparison brings the next item along."""

    def __init__(self, connection: Connection, session: Mapping[str, str], slug: str) -> None:
        self.connection, self.slug = connection, slug
        origin = f"http://{connection.host}:{connection.port}"
        self.headers = {
            "Cookie": f"whetstone_session={session['cookie']}", "X-CSRF-Token": session["csrf_token"],
            "Origin": origin, "Referer": f"{origin}/chat/{slug}",
        }  # fmt: skip
        self.turn: int | None = None
        self.count = self.untimed = 0

    async def begin(self) -> None:
        """Ask for an item as a page does that was opened anew."""
        self.untimed += 1
        path = f"/api/campaigns/{self.slug}/conversation"
        status, answer = await self.connection.ask("GET", path, self.headers)
        if status != 200:
            raise Lost(f"{status} {answer[:200]!r}")
        self._take(json.loads(answer)["second_opinion"])

    def _take(self, item: Any) -> None:
        if not item:
            raise Lost(NOTHING_LEFT)
        self.turn = item["turn"]["id"]

    async def answer(self) -> tuple[int, bytes]:
        """One comparison with all that the page sends beside it."""
        self.count += 1
        body = {
            "scale_position": self.count % 8 + 1, "verdict": "picked", "milliseconds": 3200 + self.count % 1000,
            "idempotency_key": str(uuid.uuid4()),
            "signals": {"visible_ms": 4100, "active_ms": 3200, "typed_chars": 0, "pasted_chars": 0},
        }  # fmt: skip
        return await self.connection.ask("POST", f"/api/turns/{self.turn}/comparison", self.headers, body)

    async def go_on(self, answer: bytes) -> None:
        """The item that came along; where none did, ask."""
        item = json.loads(answer)["next"]
        if item:
            self._take(item)
        else:
            await self.begin()


class PotatoWorker:
    """Somebody at Potato's page, who chooses another label for the item at hand: the one request that stores it, and no more."""

    def __init__(self, connection: Connection, session: Mapping[str, str], _slug: str) -> None:
        self.connection, self.item = connection, session["item"]
        self.headers = {"Cookie": session["cookie"]}
        self.count = self.untimed = 0

    async def begin(self) -> None:
        """The session already holds an item."""

    async def answer(self) -> tuple[int, bytes]:
        """What Potato's page sends when a radio button is clicked."""
        self.count += 1
        label = ("A", "B", "tie")[self.count % 3]
        body = {"instance_id": self.item, "annotations": {f"pref:::{label}": label}, "span_annotations": []}
        return await self.connection.ask("POST", "/updateinstance", self.headers, body)

    async def go_on(self, _answer: bytes) -> None:
        """Stay at the item: its next page would cost it several times this request."""


class Reader:
    """Somebody who loads one page over and over."""

    def __init__(self, connection: Connection, session: Mapping[str, str], slug: str) -> None:
        self.connection, self.path = connection, slug
        cookie = session["cookie"]
        self.headers = {"Cookie": cookie if "=" in cookie else f"whetstone_session={cookie}"}
        self.untimed = 0

    async def begin(self) -> None:
        """Nothing comes before."""

    async def answer(self) -> tuple[int, bytes]:
        """The page alone, without what belongs to it."""
        return await self.connection.ask("GET", self.path, self.headers, accept="text/html")

    async def go_on(self, _answer: bytes) -> None:
        """Again."""


WORKERS = {"ours": OurWorker, "potato": PotatoWorker, "page": Reader}


class Tally:
    """What all clients saw together."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self.acknowledged = self.untimed = 0


async def client(worker: Worker, tally: Tally, warm_until: float, until: float) -> None:
    """Answer until the time is over; what was sent before is waited for, so that nothing is under way at the end."""
    while time.perf_counter() < until:
        sent = time.perf_counter()
        try:
            status, answer = await worker.answer()
            done = time.perf_counter()
            if not 200 <= status < 300:
                tally.errors[f"{status} {answer[:120]!r}"] += 1
                await worker.begin()
                continue
            tally.acknowledged += 1
            if warm_until <= done < until:
                tally.latencies.append(done - sent)
            await worker.go_on(answer)
        except Lost as lost:
            tally.errors[str(lost)] += 1
            if str(lost) == NOTHING_LEFT:
                return
            await asyncio.sleep(0.05)


async def spent(pids: Mapping[str, Any], warm_until: float, until: float) -> dict[str, float]:
    """Processor seconds in the measured time: of the family and of its web process."""
    found = {"side": 0.0, "web": 0.0}
    for moment, sign in ((warm_until, -1), (until, 1)):
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        if pids.get("pid"):
            found["side"] += sign * cpu_seconds(family(pids["pid"]))
        if pids.get("web_pid"):
            found["web"] += sign * cpu_seconds([psutil.Process(pids["web_pid"])])
    return found


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which this share lies, in milliseconds; None of nothing."""
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


async def perform(job: Mapping[str, Any]) -> dict[str, Any]:
    """Let all clients of a job work at once."""
    tally = Tally()
    connections = [Connection(job["host"], job["port"]) for _ in job["people"]]
    workers = [
        WORKERS[job["target"]](connection, session, job.get("slug", ""))
        for connection, session in zip(connections, job["people"], strict=True)
    ]
    began = await asyncio.gather(*(worker.begin() for worker in workers), return_exceptions=True)
    for lost in began:
        if isinstance(lost, Lost):
            tally.errors[str(lost)] += 1
        elif isinstance(lost, BaseException):
            raise lost
    ready = [worker for worker, lost in zip(workers, began, strict=True) if lost is None]
    warm_until = time.perf_counter() + job["warm"]
    until = warm_until + job["seconds"]
    meter = asyncio.create_task(spent(job, warm_until, until))
    await asyncio.gather(*(client(worker, tally, warm_until, until) for worker in ready))
    if time.perf_counter() < until:  # nobody had anything left to do
        meter.cancel()
        cpu = {"side": 0.0, "web": 0.0}
    else:
        cpu = await meter
    for connection in connections:
        connection.close()
    ordered = sorted(tally.latencies)
    return {
        "rate": len(ordered) / job["seconds"], "p50_ms": quantile(ordered, 0.5), "p99_ms": quantile(ordered, 0.99),
        "acknowledged": tally.acknowledged, "untimed": sum(worker.untimed for worker in workers),
        "errors": sum(tally.errors.values()), "kinds_of_error": dict(tally.errors.most_common(4)),
        "load_cpu_seconds": time.process_time(),
        "cpu_ms": 1000 * cpu["side"] / max(1, len(ordered)), "web_cpu_ms": 1000 * cpu["web"] / max(1, len(ordered)),
    }  # fmt: skip


def main() -> None:
    """Read the job, perform it, tell what came."""
    print(json.dumps(uvloop.run(perform(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
