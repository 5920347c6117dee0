"""One turn: claim its candidates, have them written, store them, tell the page."""

from __future__ import annotations

import itertools
import logging
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError

from server.transaction import transaction
from workers.reply import rows
from workers.reply.asks import TOLD_BROKEN, Ask, Failed, Outcome, Written
from workers.reply.stream import Pen

if TYPE_CHECKING:
    from workers.reply.worker import ReplyWorker

log = logging.getLogger("whetstone.reply")

# While Postgres is away finished replies are kept; after this the sweep has them written again, by their seeds the same.
STORE_SECONDS = 60.0
# A reply at which the worker died as often is given up: otherwise one that kills its model would keep everybody's worker dying.
MOST_ATTEMPTS = 5
_claims = itertools.count(1)


def answer(turn_id: int, worker: ReplyWorker) -> None:
    """Write what waits of this turn; nothing when there is nothing, or someone else writes it."""
    claim = f"{worker.name}/{next(_claims)}"
    with transaction(worker.database_url, worker.redis_url) as db:
        asks, withheld = rows.claim(db, turn_id, claim)
    worn = [ask for ask in asks if ask.attempt > MOST_ATTEMPTS]
    if worn:
        reason = f"Given up: the worker ended {MOST_ATTEMPTS} times before this reply was whole; its log says why."
        _store(worker, turn_id, [(ask, Failed(reason, TOLD_BROKEN)) for ask in worn], withheld=withheld)
        asks = [ask for ask in asks if ask.attempt <= MOST_ATTEMPTS]
    if not asks:
        return
    ended: SimpleQueue[tuple[Ask, Outcome]] = SimpleQueue()
    pens = [Pen(worker.writer, ask, ended, withheld=withheld) for ask in asks]
    # of withheld replies nothing is on any page yet, and none is to be told from the others
    if not withheld and (any(ask.attempt > 1 for ask in asks) or worker.writer.has_entries(turn_id)):
        for pen in pens:
            pen.begin_again()
    with worker.holding(pens):
        worker.write(pens)
        if withheld:  # stored together too: a page that is loaded anew must not see one before the other
            _store(worker, turn_id, [ended.get() for _ in asks], withheld=True)
            return
        for _ in asks:
            _store(worker, turn_id, [ended.get()], withheld=False)


def _store(worker: ReplyWorker, turn_id: int, outcomes: list[tuple[Ask, Outcome]], *, withheld: bool) -> None:
    """Commit, then say so in the stream.

    Of withheld replies only the turn is told of: `ready` brings all of it. One by one, the one that took longest would always be
    the last, and where it failed its rival would stand there alone.
    """
    settled = _settle(worker, turn_id, outcomes)
    for ask, outcome in outcomes:
        match outcome:
            case Failed(reason=reason):
                log.error("Turn %d, candidate %d failed: %s", turn_id, ask.candidate_id, reason)
            case Written() if ask in settled.stored and not withheld:
                worker.writer.send(turn_id, "done", ask.position)
    if settled.stored and settled.status == "ready":
        worker.writer.send(turn_id, "ready")
    if settled.stored and settled.status == "failed":
        worker.writer.send(turn_id, "failed", reason=settled.told)


def _settle(worker: ReplyWorker, turn_id: int, outcomes: list[tuple[Ask, Outcome]]) -> rows.Settled:
    give_up = time.monotonic() + STORE_SECONDS
    while True:
        try:
            with transaction(worker.database_url, worker.redis_url) as db:
                return rows.settle(db, turn_id, outcomes)
        except OperationalError:
            if time.monotonic() > give_up:
                raise
            log.warning("Postgres did not take the replies of turn %d; trying again.", turn_id)
            time.sleep(1)
