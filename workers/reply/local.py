"""The thread that owns the engines: it writes all waiting replies together, and new ones join at the next token.

Everything else talks to it through its inbox. Weights are loaded in a second thread and replies to choose from are scored in a
third, so that the others write on meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from server.services.chat import failures
from training.models.snapshots import Fitted, PromptTooLong, render_within
from training.sampling.engine import Event, Request
from workers.reply.asks import TOLD_BROKEN, TOLD_NOT_LOADED, BestOf, CannotAnswer, Failed, Outcome, Source, Written
from workers.reply.best_of import Draw
from workers.reply.loading import Resident, Scorer, Writing, load_source
from workers.reply.spelling import Spelling, whole_text
from workers.reply.stream import Pen, StreamWriter
from workers.reply.threads import start_essential

log = logging.getLogger("whetstone.reply")

MAX_RESIDENT = 6  # models in memory; beyond it the one used longest ago goes
UNUSED_SECONDS = 600.0  # after which a model that serves no campaign any more is let go
RETRY_SECONDS = 60.0  # before a model that could not be preloaded is tried again unasked
IDLE_SECONDS = 5.0  # how often an idle thread looks for models to let go


class LocalBackend:
    """Writes replies with snapshots whose files lie here."""

    def __init__(
        self, writer: StreamWriter, artifacts: Path, load: Callable[[Source, Path], Resident | Scorer] = load_source
    ) -> None:
        self._writer = writer
        self._artifacts = artifacts
        self._load_source = load
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._stopping, self._stopped = Lock(), False
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # Of the engines' thread:
        self._residents: dict[int, Resident | Scorer] = {}
        self._parked: defaultdict[int, list[Pen]] = defaultdict(list)  # until their snapshot is loaded
        self._drawing: Counter[int] = Counter()  # replies to choose from, written or scored now, by preference model
        self._unscored: defaultdict[int, list[Draw]] = defaultdict(list)  # until their preference model is loaded
        self._loading: set[int] = set()
        self._failed_at: dict[int, float] = {}
        self._kept: set[int] = set()

    def start(self) -> None:
        """Begin to write."""
        start_essential("engines", self._run)

    def stop(self) -> None:
        """Load and score nothing more; the engines' thread ends with the process."""
        with self._stopping:
            self._stopped = True
            for pool in (self._loader, self._scoring):
                pool.shutdown(wait=False, cancel_futures=True)

    def _beside(self, pool: ThreadPoolExecutor, work: Callable[..., None], *given: Any) -> None:
        """Let another thread do it, unless this process stops: then whoever takes the replies over does it anew."""
        with self._stopping:
            if not self._stopped:
                pool.submit(work, *given)

    def write(self, pens: Sequence[Pen]) -> None:
        """Write these replies, those of one turn in one call; each pen's `end` is called once."""
        self._inbox.put(partial(self._begin, pens))

    def keep(self, sources: Sequence[Source]) -> None:
        """Have these in memory before they are asked, and let go of others in time."""
        parts = {part.id: part for source in sources for part in _parts(source)}
        self._inbox.put(partial(self._keep, list(parts.values())))

    def names(self) -> list[str]:
        """What is in memory now."""
        return [resident.source.name for resident in list(self._residents.values())]

    # -- the engines' thread ------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while True:
            busy = [each for each in self._residents.values() if isinstance(each, Resident) and not each.idle]
            self._listen(wait=not busy)
            for resident in busy:
                self._step(resident)
            if not busy:
                self._let_go()

    def _listen(self, *, wait: bool) -> None:
        try:
            if wait:
                self._inbox.get(timeout=IDLE_SECONDS)()
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return

    def _begin(self, pens: Sequence[Pen]) -> None:
        prompts: dict[tuple[int, int], Fitted] = {}  # two candidates of a turn have the same prompt
        for pen in pens:
            source = pen.ask.source
            if source.best_of is not None:
                self._begin(self._draw(pen, source.best_of))
                continue
            match self._residents.get(source.id):
                case Resident() as resident:
                    self._submit(resident, pen, prompts)
                case Scorer():
                    pen.end(Failed(f"Snapshot {source.name} is a preference model and writes no replies.", TOLD_BROKEN))
                case None:
                    self._parked[source.id].append(pen)
                    self._load(source)

    def _submit(self, resident: Resident, pen: Pen, prompts: dict[tuple[int, int], Fitted]) -> None:
        ask, engine = pen.ask, resident.engine
        # A reply may be cut short by the model's length, but the prompt keeps at least half of it.
        room = engine.max_length - min(ask.max_new_tokens, engine.max_length // 2)
        try:
            fitted = prompts.get((resident.source.id, room))
            if fitted is None:
                fitted = prompts[resident.source.id, room] = render_within(resident.tokenizer, ask.messages, room)
        except PromptTooLong as error:
            pen.end(Failed(f"Snapshot {resident.source.name}: {error}.", failures.TOO_LONG))
            return
        except Exception as error:  # a chat template may refuse in any way; recorded in the row
            log.exception("%s cannot render a conversation.", resident.source.name)
            pen.end(
                Failed(
                    f"Snapshot {resident.source.name} cannot render this conversation: {error!r}"[:2000], TOLD_BROKEN
                )
            )
            return
        notes = {"dropped_messages": fitted.dropped} if fitted.dropped else {}
        pen.spell = Spelling(resident.tokenizer).advance
        resident.writing[pen] = Writing(pen, notes)
        resident.used = time.monotonic()
        engine.submit(Request(pen, fitted.ids, ask.max_new_tokens, ask.temperature, ask.top_p, ask.seed))

    def _step(self, resident: Resident) -> None:
        for pen in [pen for pen in resident.writing if pen.dropped]:
            resident.engine.cancel(pen)
            self._end(resident, pen, Failed("Another worker has taken it over.", TOLD_BROKEN))
        try:
            events = resident.engine.step()
        except Exception as error:  # one broken model must not stop the others; recorded in the rows of its replies
            log.exception("%s broke while it was writing %d replies.", resident.source.name, len(resident.writing))
            del self._residents[resident.source.id]
            for pen in list(resident.writing):
                self._end(
                    resident, pen, Failed(f"Snapshot {resident.source.name} broke: {error!r}"[:2000], TOLD_BROKEN)
                )
            return
        self._writer.take([item for event in events if (item := self._note(resident, event)) is not None])
        resident.used = time.monotonic()

    def _note(self, resident: Resident, event: Event) -> tuple[Pen, Any] | None:
        """One token, as an item for the writer; None for a token that nobody may see before the last."""
        pen = event.key
        assert isinstance(pen, Pen)
        writing = resident.writing[pen]
        writing.tokens += 1
        writing.log_probability += event.logp
        if event.finish_reason != "stop":
            writing.ids.append(event.token_id)
        if event.finish_reason is None:
            return None if pen.withheld else self._writer.grown(pen, event.token_id)
        del resident.writing[pen]
        return self._writer.finished(pen, partial(_whole, resident.tokenizer, writing, event.finish_reason))

    @staticmethod
    def _end(resident: Resident, pen: Pen, outcome: Failed) -> None:
        del resident.writing[pen]
        pen.end(outcome)

    # -- the best of several replies ----------------------------------------------------------------------------------
    def _draw(self, pen: Pen, best_of: BestOf) -> list[Pen]:
        """The pens of the replies to choose from, which the policy's engine writes as any others."""
        self._drawing[best_of.pm.id] += 1
        if best_of.pm.id not in self._residents:
            self._load(best_of.pm)  # while they are written
        return Draw(pen, best_of, self._writer, lambda draw: self._inbox.put(partial(self._score, draw))).pens

    def _score(self, draw: Draw) -> None:
        """All replies of a draw are written, or will not come."""
        if (failed := draw.failed()) is not None:
            self._end_draw(draw, failed)
            return
        scorer = self._residents.get(draw.best_of.pm.id)
        if not isinstance(scorer, Scorer):
            self._unscored[draw.best_of.pm.id].append(draw)
            self._load(draw.best_of.pm)
            return
        self._beside(self._scoring, self._choose, scorer, draw)

    def _choose(self, scorer: Scorer, draw: Draw) -> None:
        """Runs in the thread of scoring."""
        broken = False
        try:
            outcome = draw.choose(scorer)
        except Exception as error:  # a broken model must not stop the others; recorded in the row of its reply
            log.exception("%s broke while it was scoring %d replies.", scorer.source.name, draw.best_of.k)
            outcome, broken = Failed(f"Snapshot {scorer.source.name} broke: {error!r}"[:2000], TOLD_BROKEN), True
        self._inbox.put(partial(self._chosen, scorer, draw, outcome, broken=broken))

    def _chosen(self, scorer: Scorer, draw: Draw, outcome: Outcome, *, broken: bool) -> None:
        self._end_draw(draw, outcome)
        scorer.used = time.monotonic()
        if broken and self._residents.get(scorer.source.id) is scorer:  # loaded anew when it is next asked
            del self._residents[scorer.source.id]

    def _end_draw(self, draw: Draw, outcome: Outcome) -> None:
        self._drawing[draw.best_of.pm.id] -= 1
        draw.pen.end(outcome)

    # -- what is in memory --------------------------------------------------------------------------------------------
    def _load(self, source: Source) -> None:
        if source.id not in self._loading:
            self._loading.add(source.id)
            self._beside(self._loader, self._load_beside, source)

    def _load_beside(self, source: Source) -> None:
        """Runs in the loader's thread."""
        try:
            found: Resident | Scorer | Failed = self._load_source(source, self._artifacts)
        except CannotAnswer as error:
            log.error("%s", error)
            found = error.failed
        except Exception as error:  # recorded in the rows of the replies that wait for it
            log.exception("Loading %s broke.", source.name)
            found = Failed(f"Loading {source.name} broke: {error!r}"[:2000], TOLD_NOT_LOADED)
        self._inbox.put(partial(self._loaded, source, found))

    def _loaded(self, source: Source, found: Resident | Scorer | Failed) -> None:
        self._loading.discard(source.id)
        waiting, unscored = self._parked.pop(source.id, []), self._unscored.pop(source.id, [])
        if isinstance(found, Failed):
            self._failed_at[source.id] = time.monotonic()
            for pen in waiting:
                pen.end(found)
            for draw in unscored:
                self._end_draw(draw, found)
            return
        self._failed_at.pop(source.id, None)
        self._residents[source.id] = found
        for turn_id in dict.fromkeys(pen.ask.turn_id for pen in waiting):
            self._begin([pen for pen in waiting if pen.ask.turn_id == turn_id])
        for draw in unscored:
            self._score(draw)
        self._let_go()  # only now, when what was loaded has its work

    def _keep(self, sources: Sequence[Source]) -> None:
        self._kept = {source.id for source in sources}
        now = time.monotonic()
        for source in sources:
            # Where more serve than have room, those that are asked stay: loading the others would push them out in turn.
            if len(self._kept & (self._residents.keys() | self._loading)) >= MAX_RESIDENT:
                return
            rested = now - self._failed_at.get(source.id, -RETRY_SECONDS) >= RETRY_SECONDS
            if source.id not in self._residents and rested:
                self._load(source)

    def _idle(self, each: Resident | Scorer) -> bool:
        """Nothing is asked of it now, nor will be by replies that are being written."""
        return each.idle if isinstance(each, Resident) else not self._drawing[each.source.id]

    def _let_go(self) -> None:
        """Unload what serves nowhere and was not used for a while, and the least recently used beyond MAX_RESIDENT."""
        now = time.monotonic()
        idle = sorted((each for each in self._residents.values() if self._idle(each)), key=lambda each: each.used)
        for resident in idle:
            unused = resident.source.id not in self._kept and now - resident.used > UNUSED_SECONDS
            if unused or (len(self._residents) > MAX_RESIDENT and now > resident.used):
                log.info("Unloaded %s.", resident.source.name)
                del self._residents[resident.source.id]


def _parts(source: Source) -> tuple[Source, ...]:
    """What must be in memory for a snapshot to answer."""
    return (source.best_of.policy, source.best_of.pm) if source.best_of else (source,)


def _whole(tokenizer: Any, writing: Writing, finish_reason: str) -> Written:
    text = whole_text(tokenizer, writing.ids)
    return Written(text, writing.log_probability, writing.tokens, finish_reason, writing.notes)
