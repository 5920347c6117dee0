"""The sampling engine: many replies written at once, new ones joining while others are under way.

`submit` queues a request, `step` reads the prompts of those that now fit, writes one token of every active reply and
says what was written; `generate` (below) is the same for a whole batch. A reply depends on its own seed and settings
alone: its random numbers are drawn from its seed, so company changes it by no more than the rounding of a matrix product.
Active replies always lie in the key-value rows 0..n-1; when one ends, the last row moves into its place.
Not thread-safe: one thread calls an engine.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.models.context import context_of
from training.sampling.decoders import Replies, decoder_for
from training.sampling.sampling import reply_mask, uniforms

# Prompt tokens read in one step: more would keep the replies already under way waiting.
PREFILL_TOKENS = 4096
# Tokens a reply of a batch is written ahead in one call, where the decoder can: beyond it a signal would wait too long.
STRETCH = 32


@dataclass(frozen=True)
class Request:
    """One reply to write. `key` names it in events; `seed` decides it; temperature 0 is greedy."""

    key: Hashable
    prompt_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("a prompt needs at least one token")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")


class Event(NamedTuple):
    """One token of one reply. `logp`: at the sampling temperature, before top_p. `finish_reason` once finished."""

    key: Hashable
    token_id: int
    logp: float
    finished: bool
    finish_reason: Literal["stop", "length"] | None


class Stretch(NamedTuple):
    """Some tokens of some replies: step after step, one of each reply. Only the last of them may end a reply."""

    keys: list[Hashable]  # [n]
    tokens: np.ndarray  # [s, n]
    logps: np.ndarray  # [s, n]
    reasons: dict[int, Literal["stop", "length"]]  # place of a reply that is finished -> why


class Engine:
    """Samples a causal language model in `slots` rows of `max_length` tokens, prompt and reply together."""

    def __init__(
        self, model: Any, tokenizer: Any, slots: int = 64, max_length: int | None = None, *, half: bool = False
    ) -> None:
        """`half`: matrix products in bfloat16, where the decoder has them."""
        limit = context_of(model.config)
        self.max_length: int = max_length or limit
        if self.max_length > limit:
            raise ValueError(f"max_length {self.max_length} is more than the {limit} positions of the model")
        self.slots = slots
        self.device = model.device
        self._decoder = decoder_for(model, slots, self.max_length, half=half)
        self._words: int = model.get_output_embeddings().weight.shape[0]
        self.stop_ids = stop_tokens(model, tokenizer)
        self._replies = Replies(slots, self.max_length, self.device)
        self._waiting: deque[Request] = deque()
        self._active: list[Request] = []  # in the rows of `_replies` and of the decoder
        self._keys: set[Hashable] = set()
        self._released = False

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a reply."""
        return self._stop_ids

    @stop_ids.setter
    def stop_ids(self, ids: frozenset[int]) -> None:
        self._stop_ids = ids
        self._stops_host = np.zeros(self._words, dtype=bool)
        self._stops_host[[token for token in ids if token < self._words]] = True
        self._stops = torch.from_numpy(self._stops_host)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being written."""
        return not self._waiting and not self._active

    def submit(self, request: Request) -> None:
        """Queue a reply; ValueError if its key is in use, its prompt leaves no room for a token, or the weights are gone."""
        if self._released:
            raise ValueError("the engine's weights were released; refresh it with a model first")
        if request.key in self._keys:
            raise ValueError(f"a reply with the key {request.key!r} is already being written")
        if len(request.prompt_ids) >= self.max_length:
            raise ValueError(
                f"the prompt has {len(request.prompt_ids)} tokens and the engine holds {self.max_length} "
                "with the reply; leave out the oldest turns"
            )
        self._keys.add(request.key)
        self._waiting.append(request)

    def room(self, prompt_length: int, max_new_tokens: int) -> int:
        """How many tokens a reply to a prompt of this length may have."""
        return min(max_new_tokens, self.max_length - prompt_length)

    def cancel(self, key: Hashable) -> bool:
        """Drop a reply, waiting or under way; False when there is none of that key (it may have just finished)."""
        if key not in self._keys:
            return False
        self._keys.remove(key)
        for row, request in enumerate(self._active):
            if request.key == key:
                self._release(row)
                return True
        self._waiting = deque(request for request in self._waiting if request.key != key)
        return True

    def refresh(self, model: Any) -> None:
        """Sample from the present weights of `model` from now on. ValueError while replies are under way."""
        if self._active:
            raise ValueError("the weights cannot change while replies are being written with them")
        self._decoder.refresh(model)
        self._released = False

    def release(self) -> None:
        """Give back the memory of the weights until the next `refresh`. ValueError while replies are under way."""
        if not self.idle:
            raise ValueError("the weights cannot go while replies are being written with them")
        self._decoder.release()
        self._released = True

    def step(self) -> list[Event]:
        """Admit what fits, then write one token of every reply that was under way."""
        return [event for stretch in self.advance(1) for event in _events(stretch)]

    @torch.inference_mode()
    def advance(self, steps: int) -> list[Stretch]:
        """As `step`, but up to `steps` tokens of each reply; fewer when one ends, so that its row can be used."""
        found = [self._write(steps)] if self._active else []
        admitted = self._admit()
        return found + ([admitted] if admitted else [])

    def _write(self, steps: int) -> Stretch:
        n, replies = len(self._active), self._replies
        left = int((replies.last_column[:n] - replies.columns[:n]).min())
        replies.plain = all(r.temperature == 1 for r in self._active)
        replies.whole = all(r.top_p == 1 for r in self._active)
        return self._note(range(n), *self._decoder.write(replies, n, min(steps, left), self._stops))

    def _admit(self) -> Stretch | None:
        """Read waiting prompts into free rows, equal prompts once, and write the first token of each reply."""
        budget, replies = PREFILL_TOKENS, self._replies
        taken: list[int] = []
        prompts: dict[tuple[int, ...], list[int]] = {}  # prompt -> the rows that start from it
        while self._waiting and len(self._active) < self.slots:
            prompt = tuple(self._waiting[0].prompt_ids)
            if prompt not in prompts:
                if taken and len(prompt) > budget:
                    break
                budget -= len(prompt)
            request = self._waiting.popleft()
            row = len(self._active)
            room = self.room(len(prompt), request.max_new_tokens)
            self._active.append(request)
            prompts.setdefault(prompt, []).append(row)
            taken.append(row)
            replies.columns[row], replies.last_column[row] = len(prompt), len(prompt) + room
            replies.temperature[row] = request.temperature
            replies.top_p[row] = request.top_p
            drawn = uniforms(request.seed, room)
            replies.uniform[row, len(prompt) - 1 : len(prompt) - 1 + room] = drawn.to(self.device)
        if not taken:
            return None
        logits = self._decoder.read(list(prompts), [rows[0] for rows in prompts.values()])
        for prompt, (first, *others) in prompts.items():
            self._decoder.copy_row(first, others, len(prompt))
        source = {row: place for place, rows in enumerate(prompts.values()) for row in rows}
        if len(source) != len(prompts):
            logits = logits[torch.tensor([source[row] for row in taken], device=self.device)]
        index = replies.numbers[taken[0] : taken[-1] + 1]
        replies.position[index] = torch.from_numpy(replies.columns[taken] - 1).to(self.device)
        replies.plain = all(self._active[row].temperature == 1 for row in taken)
        replies.whole = all(self._active[row].top_p == 1 for row in taken)
        tokens, logps = replies.draw(logits, index)
        return self._note(range(taken[0], taken[-1] + 1), tokens[None], logps[None])

    def _note(self, rows: range, tokens: Tensor, logps: Tensor) -> Stretch:
        """Tokens [s, n] were written in `rows`: release the rows that are finished."""
        here, replies = slice(rows.start, rows.stop), self._replies
        found, chances = tokens.cpu().numpy(), logps.cpu().numpy()
        replies.columns[here] += len(found)
        stopped = self._stops_host[found[-1]]
        over = stopped | (replies.columns[here] == replies.last_column[here])
        keys = [request.key for request in self._active[here]]
        reasons: dict[int, Literal["stop", "length"]] = {}
        for place in np.flatnonzero(over).tolist():
            reasons[place] = "stop" if stopped[place] else "length"
            self._keys.remove(keys[place])
        for place in reversed(reasons):
            self._release(rows[place])
        return Stretch(keys, found, chances, reasons)

    def _release(self, row: int) -> None:
        """Free a row by moving the last active one into it."""
        last = len(self._active) - 1
        if row != last:
            self._decoder.move_row(last, row, int(self._replies.columns[last]))
            self._replies.move(last, row)
            self._active[row] = self._active[last]
        self._active.pop()


def _events(stretch: Stretch) -> Iterator[Event]:
    for step, (tokens, logps) in enumerate(zip(stretch.tokens.tolist(), stretch.logps.tolist(), strict=True)):
        reasons = stretch.reasons if step == len(stretch.tokens) - 1 else {}
        for place, (key, token, logp) in enumerate(zip(stretch.keys, tokens, logps, strict=True)):
            yield Event(key, token, logp, place in reasons, reasons.get(place))


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a reply: the tokenizer's end token and those of the model's generation settings."""
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = {tokenizer.eos_token_id} | set(declared if isinstance(declared, list) else [declared])
    found.discard(None)
    if not found:
        raise ValueError("the model has no end token: set eos_token of its tokenizer")
    return frozenset(found)


class Generated(NamedTuple):
    """Replies of a batch, right-padded. `mask` is the only truth about which tokens count."""

    tokens: Tensor  # [B, R] token ids, the end token included; 0 in the padding
    logp: Tensor  # [B, R] log-probability of each at the sampling temperature; 0 in the padding
    mask: Tensor  # [B, R] True on tokens of the reply
    ended: Tensor  # [B] True where the reply ended by itself, False where it was cut


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    each_step: Callable[[int], None] | None = None,
) -> Generated:
    """One reply to every prompt, in the order given; `each_step` is told how many are finished."""
    if not engine.idle:
        raise ValueError("the engine is writing other replies; a batch needs it for itself")
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        engine.submit(Request(index, prompt, max_new_tokens, temperature, top_p, seed))
    count, most = len(prompts), max((engine.room(len(prompt), max_new_tokens) for prompt in prompts), default=0)
    tokens, logps = np.zeros((count, most), dtype=np.int64), np.zeros((count, most), dtype=np.float32)
    lengths, ended = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
    finished = 0
    while not engine.idle:
        for stretch in engine.advance(STRETCH):
            rows, steps = np.array(stretch.keys), len(stretch.tokens)
            where = rows[:, None], lengths[rows][:, None] + np.arange(steps)
            tokens[where], logps[where] = stretch.tokens.T, stretch.logps.T
            lengths[rows] += steps
            for place, reason in stretch.reasons.items():
                ended[rows[place]] = reason == "stop"
            finished += len(stretch.reasons)
        if each_step is not None:
            each_step(finished)
    longest = int(lengths.max())
    mask = reply_mask(torch.from_numpy(lengths).to(engine.device))
    return Generated(
        torch.from_numpy(tokens[:, :longest]).to(engine.device),
        torch.from_numpy(logps[:, :longest]).to(engine.device),
        mask,
        torch.from_numpy(ended).to(engine.device),
    )
