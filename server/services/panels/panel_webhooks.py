"""What a panel tells us by signed messages: verified, taken once, and followed in the order in which they were sent.

The protocol is Prolific's (docs.prolific.com, Webhooks): `X-Prolific-Request-Signature` is the base64 of HMAC-SHA256, with
the workspace's secret, over the text of `X-Prolific-Request-Timestamp` (Unix seconds) followed by the body as it came.
`X-Event-ID` stays the same when a message is sent again, up to two days long; `X-Timestamp` says when the event was first
sent. Neither of these two is signed, so the second counts only up to the signed time. A workspace tells every subscriber of
all its studies: a message about a submission that never came here is kept, since the visit may follow it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound, NotSignedIn
from server.models import Panel, WebhookEvent
from server.models.panels import SUBMISSION_STATUSES
from server.services.panels import panels

SIGNATURE, SIGNED_AT = "x-prolific-request-signature", "x-prolific-request-timestamp"
EVENT, SENT_AT = "x-event-id", "x-timestamp"
TOLERANCE_SECONDS = 300  # between the panel's clock and ours, and how long a captured message could be sent again
KEPT_DAYS = 90  # a message may come before its submission does, never by months
STATUS_CHANGE = "submission.status.change"
_SECONDS = re.compile(r"[0-9]{9,11}(\.[0-9]{1,9})?")


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The signature of a body sent at a time."""
    return base64.b64encode(hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()).decode()


def take(db: Session, slug: str, headers: Mapping[str, str], body: bytes) -> str:
    """Verify one message and do what it says; how it was taken: followed, older, unknown, ignored, or seen before."""
    panel = db.scalar(select(Panel).where(Panel.slug == slug))
    if panel is None or panel.webhook_secret is None:
        raise NotFound("There is no study here that takes messages.")
    signed_at = _verified(db, panel.webhook_secret, headers, body)
    event_id = headers.get(EVENT, "")
    if not 1 <= len(event_id) <= 200 or not event_id.isprintable():
        raise BadInput("The header X-Event-ID is missing.", field="X-Event-ID")
    told = _parsed(body)
    kind, resource = _text(told, "event_type"), _text(told, "resource_id")
    status = _status(told) if kind == STATUS_CHANGE and resource else None
    if resource:
        panels.lock_submission(db, panel, resource)
    event = db.scalar(
        insert(WebhookEvent)
        .values(
            panel_id=panel.id,
            event_id=event_id,
            kind=kind,
            resource=resource or None,
            status=status,
            sent_at=_sent_at(headers, signed_at),
            body=told,
        )
        .on_conflict_do_nothing(index_elements=["panel_id", "event_id"])
        .returning(WebhookEvent)
    )
    if event is None:
        return "seen before"
    taken = _follow(db, panel, event)
    event.outcome = taken
    db.flush()
    return taken


def clear(db: Session) -> int:
    """Remove messages that have grown old; how many. A repeated one is refused by its time long before."""
    old = WebhookEvent.received_at < func.now() - timedelta(days=KEPT_DAYS)
    return len(db.scalars(delete(WebhookEvent).where(old).returning(WebhookEvent.id)).all())


def _follow(db: Session, panel: Panel, event: WebhookEvent) -> str:
    if event.status is None or event.resource is None:
        return "ignored"
    submission = panels.find_submission(db, panel, event.resource)
    if submission is None:
        return "unknown"
    newest = panels.follow_events(db, panel, submission)
    return "followed" if newest is not None and newest.id == event.id else "older"


def _verified(db: Session, secret: str, headers: Mapping[str, str], body: bytes) -> float:
    """When the message was signed; NotSignedIn when it was not, by another secret, or too long ago."""
    timestamp, signature = headers.get(SIGNED_AT, ""), headers.get(SIGNATURE, "")
    if not _SECONDS.fullmatch(timestamp):
        raise NotSignedIn("The header X-Prolific-Request-Timestamp is missing or no Unix time in seconds.")
    if not hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode()):
        raise NotSignedIn("The signature does not fit the body and this study's secret.")
    now = float(db.scalar(select(func.extract("epoch", func.now()))) or 0)
    if abs(now - float(timestamp)) > TOLERANCE_SECONDS:
        raise NotSignedIn(f"The message was signed more than {TOLERANCE_SECONDS} seconds from now.")
    return float(timestamp)


def _sent_at(headers: Mapping[str, str], signed_at: float) -> datetime:
    said = headers.get(SENT_AT, "")
    seconds = min(float(said), signed_at) if _SECONDS.fullmatch(said) else signed_at
    return datetime.fromtimestamp(seconds, UTC)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError as error:
        raise BadInput("The body is not JSON.", field="body") from error
    if not isinstance(told, dict) or b"\\u0000" in body:
        raise BadInput("The body is not a JSON object that can be stored.", field="body")
    return told


def _text(told: dict[str, Any], key: str) -> str:
    value = told.get(key)
    return value[:200] if isinstance(value, str) else ""


def _status(told: dict[str, Any]) -> str | None:
    """`TIMED-OUT`, `AWAITING REVIEW` and the like in our words; None for one we do not know."""
    said = re.sub(r"[ -]", "_", _text(told, "status").strip().lower())
    return said if said in SUBMISSION_STATUSES else None
