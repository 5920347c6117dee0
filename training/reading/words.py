"""What a causal model says of the words of examples: packed without padding, and read only where words are learnt.

A token at column t is foretold by the state at column t-1. M tokens are learnt in all, V words wide, d the width.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.examples import Example
from training.failure import JobFailed
from training.models.context import context_of
from training.processes.device import Precision, device_of_choice, in_half, products
from training.trunk import FusedTrunk, GeneralTrunk, Trunk, passes, trunk_for
from training.trunk.packing import packed
from training.trunk.vocabulary import tell

LOGITS = 2**27  # numbers of one pass's logits, half a gigabyte: a large vocabulary makes parts smaller
UNLIKE = "examples read together give other logits than each alone"  # what a self-check says
# The two parts of a block that add to its residual stream, by the names that transformers gives them.
BLOCK_PARTS = frozenset({"self_attn", "attn", "attention", "mlp", "feed_forward"})


class WordReader:
    """Reads examples with `model`, a causal language model, which it puts on the device."""

    def __init__(self, model: Any, *, precision: Precision = "auto", dropout: float = 0.0) -> None:
        self.device = device_of_choice()
        self.model = model.to(self.device)
        self.context = context_of(model.config)
        self.half = in_half(precision, self.device, int(model.config.hidden_size))
        self.head = model.get_output_embeddings()
        self.cap = getattr(model.config, "final_logit_softcapping", None)  # Gemma 2 bends its logits
        self.trunk: Trunk = trunk_for(model.base_model, half=self.half)
        self.budget = max(1, min(passes.budget(self.device), LOGITS // len(self.head.weight)))
        self._drop = _Drop(model, dropout)

    def parts(self, examples: Sequence[Example]) -> list[list[int]]:
        """Cut examples into parts of one pass each, by number, the longest first; together every example once."""
        parts: list[list[int]] = []
        room, packs = 0, isinstance(self.trunk, FusedTrunk)
        for number in sorted(range(len(examples)), key=lambda n: len(examples[n].tokens), reverse=True):
            # packed, a part holds its tokens; in rows, all are as long as its first
            size = len(examples[number].tokens) if packs or not parts else len(examples[parts[-1][0]].tokens)
            if not parts or size > room:
                parts.append([])
                room, size = self.budget, len(examples[number].tokens)
            parts[-1].append(number)
            room -= size
        return parts

    def logits(self, examples: Sequence[Example]) -> Tensor:
        """Return the logits at the states before the learnt tokens, example after example, in float32.  -> [M, V]"""
        return self._logits(self._states(examples, self.trunk), half=self.half)

    def targets(self, examples: Sequence[Example]) -> Tensor:
        """Return the learnt tokens in the order of `logits`.  -> [M]"""
        found = [example.tokens[column] for example in examples for column in example.learnt]
        return torch.tensor(found, device=self.device)

    def losses(self, examples: Sequence[Example]) -> Tensor:
        """Return -log p of every learnt token, in nats.  -> [M]"""
        hidden, targets = self._states(examples, self.trunk), self.targets(examples)
        if self.cap:
            return functional.cross_entropy(self._logits(hidden, half=self.half), targets, reduction="none")
        return -tell(hidden, self.head.weight, self.head.bias, targets, half=self.half).logp

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Example]) -> float:
        """Return the mean of `losses` over all learnt tokens of many examples, without dropout."""
        found = [self.losses([examples[number] for number in part]).double().sum() for part in self.parts(examples)]
        return float(torch.stack(found).sum()) / sum(len(example.learnt) for example in examples)

    @contextmanager
    def dropping(self, draw: str) -> Iterator[None]:
        """Inside, dropout is on, its draws decided by `draw` alone."""
        usual = self.trunk
        if self._drop.share:  # the fused trunk knows nothing of it
            self.trunk = GeneralTrunk(self.model.base_model, half=self.half)
        try:
            with self._drop.on(draw, self.device):
                yield
        finally:
            self.trunk = usual

    def _states(self, examples: Sequence[Example], trunk: Trunk) -> Tensor:
        """The states before the learnt tokens; no example sees another.  -> [M, d]"""
        row = packed(([], [example.tokens]) for example in examples).to(self.device)
        columns = [
            group.start + column - 1
            for group, example in zip(row.groups, examples, strict=True)
            for column in example.learnt
        ]
        return trunk.hidden(row, torch.tensor(columns, device=self.device))

    def logits_behind(self, head: Sequence[int], tails: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits before every token of each tail behind the one head, which is computed once.  -> [M, V]"""
        return self._logits(self._states_behind(head, tails, self.trunk), half=self.half)

    def _states_behind(self, head: Sequence[int], tails: Sequence[Sequence[int]], trunk: Trunk) -> Tensor:
        row = packed([(head, tails)]).to(self.device)
        # the head's last state foretells the first token of every tail, and a trunk gives each state once
        columns, place = row.state_columns().unique(return_inverse=True)
        return trunk.hidden(row, columns)[place]

    def _logits(self, hidden: Tensor, *, half: bool) -> Tensor:
        with products(half, self.device):
            found: Tensor = self.head(hidden).float()
        if self.cap:
            found = self.cap * torch.tanh(found / self.cap)
        return found

    @torch.no_grad()
    def self_check(self, examples: Sequence[Example]) -> None:
        """Fail loudly when what is read here is not what the model itself says of each example alone; in float32."""
        alone = torch.cat([
            self.model(input_ids=torch.tensor([example.tokens], device=self.device), use_cache=False)
            .logits[0, torch.tensor(example.learnt, device=self.device) - 1]
            .float()
            for example in examples
        ])  # fmt: skip
        states = self._states(examples, trunk_for(self.model.base_model))
        passes.check_alike(alone, self._logits(states, half=False), UNLIKE)

    @torch.no_grad()
    def self_check_behind(self, head: list[int], tails: Sequence[list[int]]) -> None:
        """The same for tails that are read together behind one head."""
        alone = torch.cat([
            self.model(input_ids=torch.tensor([head + tail], device=self.device), use_cache=False)
            .logits[0, len(head) - 1 : -1]
            .float()
            for tail in tails
        ])  # fmt: skip
        states = self._states_behind(head, tails, trunk_for(self.model.base_model))
        passes.check_alike(alone, self._logits(states, half=False), UNLIKE)


class _Drop:
    """Dropout on what attention and feed-forward add to the residual stream, whatever the architecture brings itself."""

    def __init__(self, model: Any, share: float) -> None:
        self.share = share
        self.generator: torch.Generator | None = None
        if share:
            parts = [module for name, module in model.named_modules() if name.rpartition(".")[2] in BLOCK_PARTS]
            if not parts:
                raise JobFailed(f"dropout knows no place in a {model.config.model_type}; set it to 0")
            for part in parts:
                part.register_forward_hook(self._dropped)

    def _dropped(self, _module: nn.Module, _inputs: Any, found: Any) -> Any:
        if self.generator is None:
            return found
        first = found[0] if isinstance(found, tuple) else found
        kept = torch.empty_like(first).bernoulli_(1 - self.share, generator=self.generator) / (1 - self.share)
        return (first * kept, *found[1:]) if isinstance(found, tuple) else first * kept

    @contextmanager
    def on(self, draw: str, device: torch.device) -> Iterator[None]:
        """Drop inside, by draws that `draw` alone decides."""
        seed = int.from_bytes(hashlib.sha256(draw.encode()).digest()[:7])
        self.generator = torch.Generator(device).manual_seed(seed) if self.share else None
        try:
            yield
        finally:
            self.generator = None
