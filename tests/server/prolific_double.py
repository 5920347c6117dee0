"""Prolific as its documentation describes it, on a local port: secrets, subscriptions with their confirmation, signed messages.

It signs what it sends, sends again what was not taken (same `X-Event-ID`, a signature of its own time), and can be told to send
twice or in another order. `now` is its clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "token-of-the-researcher"
# What sends a body with headers to an address, and says the status of the answer.
Post = Callable[[str, bytes, dict[str, str]], int]


@dataclass
class Message:
    """One event on its way."""

    body: bytes
    event_id: str
    sent_at: int


@dataclass
class Prolific:
    """The state of one workspace."""

    workspace: str = "63722982f9cc073ecc730f6b"
    secret: str = ""
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def message(self, submission: str, participant: str, status: str, at: int | None = None) -> Message:
        """An event of a submission that changed its status."""
        body = {
            "resource_id": submission,
            "event_type": "submission.status.change",
            "participant_id": participant,
            "status": status,
        }
        return Message(json.dumps(body).encode(), secrets.token_hex(12), at or int(time.time()))

    def headers(self, message: Message, at: int | None = None, secret: str | None = None) -> dict[str, str]:
        """Signed anew for each attempt."""
        stamp = str(at or int(time.time()))
        digest = hmac.new((secret or self.secret).encode(), stamp.encode() + message.body, hashlib.sha256).digest()
        return {
            "Content-Type": "application/json",
            "X-Prolific-Request-Timestamp": stamp,
            "X-Prolific-Request-Signature": base64.b64encode(digest).decode(),
            "X-Event-ID": message.event_id,
            "X-Timestamp": str(message.sent_at),
        }

    def deliver(self, post: Post, url: str, message: Message, attempts: int = 5) -> list[int]:
        """Send until it is taken; the status of each attempt."""
        statuses: list[int] = []
        while len(statuses) < attempts and not (statuses and 200 <= statuses[-1] < 300):
            statuses.append(post(url, message.body, self.headers(message)))
        return statuses

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        """The endpoints of its API that subscribing needs."""
        if (method, path) == ("POST", "/api/v1/hooks/secrets/"):
            self.secret = secrets.token_urlsafe(32)  # replaces the one before
            return 201, {}, {"id": "secret-1", "value": self.secret, "workspace_id": body["workspace_id"]}
        if (method, path) == ("GET", "/api/v1/hooks/subscriptions/"):
            public = [{k: v for k, v in each.items() if k != "hook_secret"} for each in self.subscriptions.values()]
            return 200, {}, {"results": public}
        if (method, path) == ("POST", "/api/v1/hooks/subscriptions/"):
            if not self.secret or not body["target_url"].startswith("https://"):
                return 400, {}, {"error": {"detail": "target_url must use https"}}
            number = secrets.token_hex(12)
            made = {"id": number, "is_enabled": False, **body, "hook_secret": secrets.token_urlsafe(16)}
            self.subscriptions[number] = made
            return 201, {"X-Hook-Secret": made["hook_secret"]}, {"id": number, "event_type": body["event_type"]}
        if method == "POST" and path.startswith("/api/v1/hooks/subscriptions/"):
            found = self.subscriptions.get(path.rstrip("/").rpartition("/")[2])
            if found is None or body.get("secret") != found["hook_secret"]:
                return 400, {}, {"error": {"detail": "the secret does not fit"}}
            found["is_enabled"] = True
            return 200, {}, {"id": found["id"], "is_enabled": True}
        return 404, {}, {"error": {"detail": "no such endpoint"}}


@contextmanager
def running() -> Iterator[Prolific]:
    """Its API on a port of its own."""
    double = Prolific()

    class Answers(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            path = self.path.partition("?")[0]
            double.asked.append(f"{self.command} {path}")
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                status, more, told = 401, {}, {"error": {"detail": "Invalid token"}}
            else:
                status, more, told = double.answer(self.command, path, body)
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        do_GET = do_POST = _answer  # noqa: N815 - the library's names

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    double.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
