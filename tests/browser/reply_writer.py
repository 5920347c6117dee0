"""A stand-in for the reply worker that keeps its contract: candidate rows, the Redis stream, then the turn is ready.

It needs no model: the reply is chosen by the message. `slow` in a message makes it slow, `fail` makes the first attempt fail.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from redis import Redis
from sqlalchemy import select

from server.db import session_factory
from server.models import Candidate, Turn

REPLIES = (
    (
        "Fill a pot with water and bring it to the boil. **Lower the eggs in gently**, wait eight minutes, and cool them in cold water.\n\n"
        "1. Six minutes: soft.\n2. Eight minutes: firm but moist.\n3. Ten minutes: hard."
    ),
    "I do not know. Perhaps you can ask somebody else about eggs? <script>document.title='broken'</script>",
)


class ReplyWriter(threading.Thread):
    """Answers every queued candidate until it is stopped."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        super().__init__(daemon=True)
        self.new_session = session_factory(database_url)
        self.redis = Redis.from_url(redis_url, decode_responses=True)
        self.stopped = threading.Event()
        self.failed: set[int] = set()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            with self.new_session() as db:
                waiting = db.scalars(
                    select(Turn.id).join(Candidate, Candidate.turn_id == Turn.id).where(Candidate.status == "queued")
                )
                turn_ids = sorted(set(waiting))
            for turn_id in turn_ids:
                self.answer(turn_id)

    def answer(self, turn_id: int) -> None:
        with self.new_session() as db:
            message = db.get_one(Turn, turn_id).message
        if "fail" in message and turn_id not in self.failed:
            self.failed.add(turn_id)
            self._fail(turn_id)
            return
        texts = [REPLIES[(turn_id + place) % 2] for place in range(2)]
        pieces = [text.split(" ") for text in texts]
        for step in range(max(map(len, pieces))):
            for place in range(2):
                if step < len(pieces[place]):
                    self._say(turn_id, "text", place, text=pieces[place][step] + " ")
            if self.stopped.wait(0.06 if "slow" in message else 0.002):
                return
        with self.new_session.begin() as db:
            turn = db.get_one(Turn, turn_id)
            for candidate in turn.candidates:
                candidate.text, candidate.status = texts[candidate.position], "done"
                candidate.token_count, candidate.finish_reason, candidate.log_probability = 40, "stop", -12.5
            turn.status, turn.ready_at = "ready", datetime.now(UTC)
        for place in range(2):
            self._say(turn_id, "done", place)
        self._say(turn_id, "ready", 0)

    def _fail(self, turn_id: int) -> None:
        with self.new_session.begin() as db:
            turn = db.get_one(Turn, turn_id)
            turn.status, turn.failure = "failed", "The model's weight file is missing."
            for candidate in turn.candidates:
                candidate.status, candidate.failure = "failed", turn.failure
        self._say(turn_id, "failed", 0, reason="The model's weight file is missing.")

    def _say(self, turn_id: int, event: str, position: int, **fields: str) -> None:
        self.redis.xadd(f"turn:{turn_id}", {"event": event, "position": str(position), **fields})
        self.redis.expire(f"turn:{turn_id}", 3600)

    def stop(self) -> None:
        self.stopped.set()
        self.join(timeout=5)
        time.sleep(0)
