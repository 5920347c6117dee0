"""A reply worker in this process, chats that wait for it, and what the page would hear."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from redis import Redis
from sqlalchemy.orm import joinedload

from server.db import session_factory
from server.models import Campaign, Candidate, Snapshot, Turn
from server.services.chat.reply_stream import stream_key
from server.services.snapshots import best_of, candidates, registry
from tests import factories
from tests.training.conftest import built_policies, pm_path, tiny_policy, tokenizer
from workers.reply.worker import ReplyWorker

__all__ = ["built_policies", "pm_path", "tiny_policy", "tokenizer"]


class Chats:
    """Rows that are committed, and a look at what became of them."""

    def __init__(self, database_url: str, redis: Redis) -> None:
        self._sessions = session_factory(database_url)
        self._redis = redis

    def register(self, name: str, folder: Path, kind: str = "policy") -> int:
        with self._sessions.begin() as db:
            manifest = registry.folder_manifest(folder, kind)
            return registry.register_policy(
                db, name=name, origin="initial", path=folder, manifest=manifest, kind=kind
            ).id

    def best_of(self, name: str, policy: int, pm: int, k: int) -> int:
        with self._sessions.begin() as db:
            parts = {"policy": db.get_one(Snapshot, policy), "preference_model": db.get_one(Snapshot, pm)}
            return best_of.register_best_of(db, name=name, k=k, **parts).id

    def endpoint(self, name: str, **endpoint) -> int:
        with self._sessions.begin() as db:
            return registry.register_policy(db, name=name, origin="registered", endpoint=endpoint).id

    def turn(self, snapshots: list[int], message: str = "How do I boil an egg?", **sampling) -> int:
        """A first turn whose candidates are queued, one from each snapshot, with seeds from its id."""
        settings = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24} | sampling
        with self._sessions.begin() as db:
            person = factories.person(db)
            conversation = factories.conversation(db, factories.campaign(db), person)
            turn = factories.turn(db, conversation, message, replies=(), status="sampling")
            for position, snapshot in enumerate(snapshots):
                seed = Random(turn.id * 10 + position).randrange(candidates.SEED_LIMIT)
                db.add(
                    Candidate(
                        turn_id=turn.id,
                        position=position,
                        snapshot_id=snapshot,
                        seed=seed,
                        sampling=settings,
                        status="queued",
                    )
                )
            return turn.id

    def next_turn(self, turn_id: int, message: str, snapshots: list[int], **sampling) -> int:
        """Let the left reply carry the chat on and ask something more."""
        settings = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24} | sampling
        with self._sessions.begin() as db:
            last = db.get_one(Turn, turn_id)
            last.continued_by_id, last.status = last.candidates[0].id, "compared"
            turn = factories.turn(db, last.conversation, message, replies=(), status="sampling")
            for position, snapshot in enumerate(snapshots):
                db.add(
                    Candidate(
                        turn_id=turn.id, position=position, snapshot_id=snapshot, seed=position, sampling=settings
                    )
                )
            return turn.id

    def edit(self, turn_id: int, **values) -> None:
        """Set columns of a turn's candidates."""
        with self._sessions.begin() as db:
            for candidate in db.get_one(Turn, turn_id).candidates:
                for name, value in values.items():
                    setattr(candidate, name, value)

    def look(self, turn_id: int) -> Turn:
        with self._sessions() as db:
            return db.query(Turn).options(joinedload(Turn.candidates)).filter_by(id=turn_id).one()

    def wait(self, turn_id: int, *statuses: str, seconds: float = 20) -> Turn:
        give_up = time.monotonic() + seconds
        while (turn := self.look(turn_id)).status not in (statuses or ("ready", "failed")):
            assert time.monotonic() < give_up, f"turn {turn_id} is still {turn.status}"
            time.sleep(0.02)
        return turn

    def heard(self, turn_id: int) -> list[dict[str, str]]:
        """The entries of the turn's stream."""
        return [fields for _, fields in self._redis.xrange(stream_key(turn_id))]

    def shown(self, turn_id: int) -> dict[int, str]:
        """What a page that followed the stream has on it."""
        texts: dict[int, str] = {}
        for entry in self.heard(turn_id):
            if entry["event"] == "restart":
                texts[int(entry["position"])] = ""
            if entry["event"] == "text":
                place = int(entry["position"])
                texts[place] = texts.get(place, "") + entry["text"]
        return texts

    def campaign_served_by(self, snapshot: int) -> int:
        with self._sessions.begin() as db:
            from_id = registry.snapshots(db)
            return factories.campaign(db, served_by=next(row for row in from_id if row.id == snapshot)).id

    def campaign(self, campaign_id: int) -> Campaign:
        with self._sessions() as db:
            return db.get_one(Campaign, campaign_id)


@pytest.fixture
def chats(committed: str, redis: Redis) -> Chats:
    return Chats(committed, redis)


@pytest.fixture
def worker(settings, committed, redis, tmp_path) -> Iterator[ReplyWorker]:
    """A worker whose threads run."""
    made = ReplyWorker(replace(settings, artifacts=str(tmp_path)))
    made.start()
    yield made
    made.stop()
