"""What a simulated person's browser does: the same JSON API, cookies, tokens and event streams that the real pages use."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Self

import httpx

Json = dict[str, Any]
COOKIE = "whetstone_session"

# A web process that is being restarted refuses connections for a few seconds; a person would press the button again.
_AWAY = (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout)


class Refused(Exception):
    """The server answered with an error; `code` and the message are the server's own."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


class Browser:
    """One signed-in session. Requests that may be sent twice are sent again while the server is away, up to `patience` s."""

    def __init__(self, base_url: str, *, patience: float = 60.0) -> None:
        self.http = httpx.Client(base_url=base_url, timeout=httpx.Timeout(30.0, connect=5.0))
        self.patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send one request; every unsafe one of ours carries an idempotency key, so repeating it is harmless."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                answer = self.http.request(method, path, json=body)
            except _AWAY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
                continue
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and time.monotonic() < deadline:
                time.sleep(float(answer.headers.get("Retry-After", 1)))
                continue
            if answer.is_error:
                error = answer.json().get("error", {}) if "json" in answer.headers.get("content-type", "") else {}
                raise Refused(answer.status_code, error.get("code", "unknown"), error.get("message", answer.text[:200]))
            found: Json = answer.json() if answer.content else {}
            return found

    def use(self, session: Json) -> None:
        """Take over a signed-in session: {"cookie", "csrf_token"}."""
        self.http.cookies.set(COOKIE, session["cookie"])
        self.http.headers["X-CSRF-Token"] = session["csrf_token"]

    def prompts(self, slug: str, count: int) -> list[Json]:
        """Openings from the campaign's pool."""
        found: list[Json] = self.request("GET", f"/api/campaigns/{slug}/prompts?count={count}")["prompts"]
        return found

    def send_message(self, slug: str, text: str, prompt_id: int | None = None) -> Json:
        """Send one message; returns the new turn."""
        body = {"text": text, "idempotency_key": uuid.uuid4().hex, "prompt_id": prompt_id}
        turn: Json = self.request("POST", f"/api/campaigns/{slug}/messages", body)["turn"]
        return turn

    def wait_for_replies(self, turn_id: int) -> Json:
        """Follow the turn's event stream until both replies are there; returns the turn, ready or failed."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            try:
                for event, _data in self.events(turn_id):
                    if event in ("ready", "failed"):
                        break
            except _AWAY:
                time.sleep(0.5)
            turn: Json = self.request("GET", f"/api/turns/{turn_id}")["turn"]
            if turn["status"] != "sampling":
                return turn
        raise Refused(
            504, "no_reply", f"turn {turn_id} had no replies after {self.patience:.0f} s; is a reply worker running?"
        )

    def events(self, turn_id: int) -> Iterator[tuple[str, Json]]:
        """The turn's server-sent events as (name, data)."""
        with self.http.stream("GET", f"/api/turns/{turn_id}/events", headers={"Accept": "text/event-stream"}) as stream:
            if stream.is_error:
                return
            event = "message"
            for line in stream.iter_lines():
                if line.startswith("event:"):
                    event = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    yield event, json.loads(line.removeprefix("data:"))
                    event = "message"

    def compare(self, turn_id: int, scale_position: int, milliseconds: int) -> Json:
        """Store one comparison."""
        body = {"scale_position": scale_position, "milliseconds": milliseconds, "idempotency_key": uuid.uuid4().hex}
        return self.request("POST", f"/api/turns/{turn_id}/comparison", body)
