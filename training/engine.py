"""The sampling engine: many replies written at once, new ones joining while others are under way.

`submit` queues a request, `step` reads the prompts of those that now fit, writes one token of every active reply and
says what was written; `generate` (below) is the same for a whole batch. A reply depends on its own seed and settings
alone: its random numbers are drawn from its seed, so company changes it by no more than the rounding of a matrix product.
Active replies always lie in the key-value rows 0..n-1; when one ends, the last row moves into its place.
Not thread-safe: one thread calls an engine.
"""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from training.decoders import decoder_for
from training.sampling import choose, reply_mask, uniforms

# Prompt tokens read in one step: more would keep the replies already under way waiting.
PREFILL_TOKENS = 4096
# Prompts shorter than this share of the longest of their pass go into a pass of their own, to read little padding.
PREFILL_EVENNESS = 0.6


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


@dataclass(slots=True)
class _Active:
    """A reply under way: what was asked, and how many columns its row holds (prompt and written tokens)."""

    request: Request
    columns: int
    last_column: int  # the reply ends when `columns` reaches it


class Engine:
    """Samples a causal language model in `slots` rows of `max_length` tokens, prompt and reply together."""

    def __init__(self, model: Any, tokenizer: Any, slots: int = 64, max_length: int | None = None) -> None:
        limit = getattr(model.config, "max_position_embeddings", None)
        self.max_length: int = max_length or limit or 2048
        if limit is not None and self.max_length > limit:
            raise ValueError(f"max_length {self.max_length} is more than the {limit} positions of the model")
        self.slots = slots
        self.device = model.device
        self.stop_ids = stop_tokens(model, tokenizer)
        self._decoder = decoder_for(model, slots, self.max_length)
        self._waiting: deque[Request] = deque()
        self._active: list[_Active] = []
        self._keys: set[Hashable] = set()

        def per_row(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=self.device)

        self._token = per_row(dtype=torch.long)
        self._position = per_row(dtype=torch.long)
        self._temperature = per_row(dtype=torch.float32)
        self._top_p = per_row(dtype=torch.float32)
        self._uniform = per_row(self.max_length, dtype=torch.float32)  # by the column of the state it is used at
        self._numbers = torch.arange(slots, device=self.device)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being written."""
        return not self._waiting and not self._active

    def submit(self, request: Request) -> None:
        """Queue a reply; ValueError if its key is in use or its prompt leaves no room for a token."""
        if request.key in self._keys:
            raise ValueError(f"a reply with the key {request.key!r} is already being written")
        if len(request.prompt_ids) >= self.max_length:
            raise ValueError(
                f"the prompt has {len(request.prompt_ids)} tokens and the engine holds {self.max_length} "
                "with the reply; leave out the oldest turns"
            )
        self._keys.add(request.key)
        self._waiting.append(request)

    def cancel(self, key: Hashable) -> bool:
        """Drop a reply, waiting or under way; False when there is none of that key (it may have just finished)."""
        if key not in self._keys:
            return False
        self._keys.remove(key)
        for row, active in enumerate(self._active):
            if active.request.key == key:
                self._release(row)
                return True
        self._waiting = deque(request for request in self._waiting if request.key != key)
        return True

    def refresh(self, model: Any) -> None:
        """Sample from the present weights of `model` from now on. ValueError while replies are under way."""
        if self._active:
            raise ValueError("the weights cannot change while replies are being written with them")
        self._decoder.refresh(model)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit what fits, then write one token of every reply that was under way."""
        running = len(self._active)
        events: list[Event] = self._decode() if running else []
        return events + self._admit()

    def _decode(self) -> list[Event]:
        n = len(self._active)
        columns = [active.columns for active in self._active]
        reach = max(columns)
        logits = self._decoder.decode(self._token[:n], self._position[:n], reach, level=min(columns) == reach)
        return self._draw(logits, list(range(n)), self._numbers[:n])

    def _admit(self) -> list[Event]:
        """Read waiting prompts into free rows, equal prompts once, and write the first token of each reply."""
        budget = PREFILL_TOKENS
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
            room = min(request.max_new_tokens, self.max_length - len(prompt))
            self._active.append(_Active(request, len(prompt), len(prompt) + room))
            prompts.setdefault(prompt, []).append(row)
            taken.append(row)
            self._temperature[row] = request.temperature
            self._top_p[row] = request.top_p
            self._uniform[row, len(prompt) - 1 : len(prompt) - 1 + room] = uniforms(request.seed, room).to(self.device)
        if not taken:
            return []
        logits, rows = [], []
        for group in _even_groups(list(prompts)):
            found = self._decoder.prefill(
                *_right_padded(group, self.device), torch.tensor([prompts[p][0] for p in group], device=self.device)
            )
            for place, prompt in enumerate(group):
                first, *others = prompts[prompt]
                self._decoder.copy_row(first, others, len(prompt))
                rows += [first, *others]
                logits += [found[place]] * (1 + len(others))
        index = torch.tensor(rows, device=self.device)
        self._position[index] = torch.tensor([self._active[row].columns - 1 for row in rows], device=self.device)
        return self._draw(torch.stack(logits), rows, index)

    def _draw(self, logits: Tensor, rows: list[int], index: Tensor) -> list[Event]:
        """Choose the next token of `rows`, note it, and release the rows that are finished."""
        position = self._position[index]
        requests = [self._active[row].request for row in rows]
        tokens, logps = choose(
            logits,
            self._uniform[index, position],
            None if all(r.temperature == 1 for r in requests) else self._temperature[index],
            None if all(r.top_p == 1 for r in requests) else self._top_p[index],
        )
        self._token[index], self._position[index] = tokens, position + 1
        events, ended = [], []
        for row, request, token, logp in zip(rows, requests, tokens.tolist(), logps.tolist(), strict=True):
            active = self._active[row]
            active.columns += 1
            reason: Literal["stop", "length"] | None = None
            if token in self.stop_ids:
                reason = "stop"
            elif active.columns == active.last_column:
                reason = "length"
            if reason:
                ended.append(row)
                self._keys.remove(request.key)
            events.append(Event(request.key, token, logp, reason is not None, reason))
        for row in sorted(ended, reverse=True):
            self._release(row)
        return events

    def _release(self, row: int) -> None:
        """Free a row by moving the last active one into it."""
        last = len(self._active) - 1
        if row != last:
            self._decoder.copy_row(last, [row], self._active[last].columns)
            for table in (self._token, self._position, self._temperature, self._top_p, self._uniform):
                table[row] = table[last]
            self._active[row] = self._active[last]
        self._active.pop()


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a reply: the tokenizer's end token and those of the model's generation settings."""
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = {tokenizer.eos_token_id} | set(declared if isinstance(declared, list) else [declared])
    found.discard(None)
    if not found:
        raise ValueError("the model has no end token: set eos_token of its tokenizer")
    return frozenset(found)


def _even_groups(prompts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Split prompts, longest first, so that each group pads little."""
    groups: list[list[tuple[int, ...]]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if groups and len(prompt) >= PREFILL_EVENNESS * len(groups[-1][0]):
            groups[-1].append(prompt)
        else:
            groups.append([prompt])
    return groups


def _right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token table [n, T] filled up with id 0, which causal attention never reaches, and true lengths [n]."""
    lengths = [len(row) for row in rows]
    table = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor(row)
    return table.to(device), torch.tensor(lengths, device=device)


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
    tokens: list[list[int]] = [[] for _ in prompts]
    logps: list[list[float]] = [[] for _ in prompts]
    ended, finished = [False] * len(prompts), 0
    while not engine.idle:
        for event in engine.step():
            index = event.key
            assert isinstance(index, int)
            tokens[index].append(event.token_id)
            logps[index].append(event.logp)
            ended[index] = event.finish_reason == "stop"
            finished += event.finished
        if each_step is not None:
            each_step(finished)
    table, lengths = _right_padded(tokens, engine.device)
    mask = reply_mask(lengths)
    logp = torch.tensor([p for row in logps for p in row], device=engine.device)
    return Generated(
        table,
        torch.zeros(table.shape, device=engine.device).masked_scatter(mask, logp),
        mask,
        torch.tensor(ended, device=engine.device),
    )
