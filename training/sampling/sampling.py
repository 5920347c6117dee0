"""Choosing tokens, and the log-probabilities of tokens that were chosen: the off-by-one lives here once.

A token at column t of a sequence is predicted from the hidden state at column t-1. So the states of a reply of R tokens
after a prompt of P are columns P-1 .. P+R-2, and its value estimates stand at those same columns.
Sequences are right-padded and run without a padding mask: causal attention never looks to the right, so padding is
inert by construction (tested), and no mask is derived from token ids anywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training import native
from training.native.decoding import Choice, kernels, pointer
from training.objective import entropy
from training.processes.device import products
from training.trunk import FusedTrunk, has_plain_head, trunk_for
from training.trunk.packing import packed_rows
from training.trunk.recomputing import recomputing
from training.trunk.vocabulary import Told, tell


def uniforms(seed: int, count: int) -> Tensor:
    """The numbers in [0, 1) that one reply's tokens are drawn with; they depend on the seed alone.  -> [count]"""
    # 24 bits: exact in float32, and u·total < total in float64 whatever the total.
    found = np.random.Generator(np.random.Philox(key=seed % 2**64)).integers(0, 2**24, size=count)
    return torch.from_numpy(found.astype(np.float32) / 2**24)


def choose(
    logits: Tensor, uniform: Tensor, temperature: Tensor | None = None, top_p: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverse CDF, and its log-probability.  [n, V], [n] -> [n], [n]

    `temperature` [n] (None: all 1; 0 takes the most likely token). `top_p` [n] (None: all 1) keeps the fewest most
    likely tokens that hold that mass, the one that crosses it included. The log-probability is that of the whole
    distribution at the sampling temperature (at 1 for temperature 0), before top_p.
    """
    if top_p is None and logits.device.type == "cpu" and logits.dtype == torch.float32 and kernels() is not None:
        return _chosen_by_kernel(logits, uniform, temperature)
    return chosen_in_torch(logits, uniform, temperature, top_p)


def _chosen_by_kernel(logits: Tensor, uniform: Tensor, temperature: Tensor | None) -> tuple[Tensor, Tensor]:
    """`choose` without top_p in one call of C (training/native/choose.c)."""
    library, (n, words) = kernels(), logits.shape
    assert library is not None
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    uniform, temperature = uniform.contiguous(), None if temperature is None else temperature.contiguous()
    token, logp = torch.empty(n, dtype=torch.long), torch.empty(n)
    scratch = torch.empty(library.native_choice_scratch(n, words))
    library.native_choose(
        Choice(
            logits=pointer(logits), stride=logits.stride(0), words=words, n=n, temperature=pointer(temperature),
            uniform=pointer(uniform), uniform_stride=1, token=pointer(token), logp=pointer(logp),
            scratch=pointer(scratch),
        ),
        native.threads(),
    )  # fmt: skip
    return token, logp


def chosen_in_torch(
    logits: Tensor, uniform: Tensor, temperature: Tensor | None = None, top_p: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`choose` as its definition reads."""
    logits = logits.float()
    if temperature is not None:
        logits = logits / torch.where(temperature > 0, temperature, 1.0)[:, None]
    probability = logits.softmax(-1)
    weight = probability
    if top_p is not None:
        descending, order = probability.sort(-1, descending=True)
        before = descending.cumsum(-1) - descending
        weight = torch.zeros_like(probability).scatter(-1, order, descending.where(before < top_p[:, None], 0.0))
    cumulative = weight.cumsum(-1, dtype=torch.float64)
    # right=True: a token of probability zero spans an empty interval and is never found.
    token = torch.searchsorted(cumulative, uniform.double()[:, None] * cumulative[:, -1:], right=True)
    if temperature is not None:
        token = torch.where(temperature[:, None] > 0, token, logits.argmax(-1, keepdim=True))
    return token[:, 0], probability.gather(1, token)[:, 0].log()


class ReplyStates:
    """The states of all reply tokens of a batch, laid out flat: N = mask.sum(), row after row; V words.

    `logp` and `entropy` are at the temperature and differentiable. Each is found when first asked for.
    """

    def __init__(
        self,
        tokens: Tensor,
        hidden: Tensor,
        head: nn.Linear | None,
        temperature: float,
        logits: Tensor | None = None,
        *,
        half: bool = False,
    ) -> None:
        """`hidden` [N, d] is what the vocabulary head read; without a plain linear head its logits [N, V] are given."""
        self.tokens, self.hidden, self._half = tokens, hidden, half
        self._head, self._temperature, self._logits = head, temperature, logits

    @cached_property
    def _told(self) -> Told:
        assert self._head is not None
        weight, bias = self._head.weight, self._head.bias
        return tell(self.hidden, weight, bias, self.tokens, self._temperature, half=self._half)

    @cached_property
    def logits(self) -> Tensor:
        """In float32, divided by the temperature.  [N, V]"""
        with products(self._half, self.hidden.device):
            found = self._logits if self._head is None else self._head(self.hidden)
        assert found is not None
        found = found.float()
        return found if self._temperature == 1.0 else found / self._temperature

    @property
    def logp(self) -> Tensor:
        """Log π(a_t | s_t).  [N]"""
        if self._head is not None:
            return self._told.logp
        return -functional.cross_entropy(self.logits, self.tokens, reduction="none")

    @property
    def entropy(self) -> Tensor:
        """-Σ π log π in nats.  [N]"""
        return self._told.entropy if self._head is not None else entropy(self.logits)


def reply_mask(reply_length: Tensor) -> Tensor:
    """True on the tokens of each reply.  [B] -> [B, R], R the longest reply"""
    return torch.arange(int(reply_length.max()), device=reply_length.device) < reply_length[:, None]


def state_columns(prompt_length: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of the state before each reply token, flat in the order of `mask`.  [B], [B, R] -> [N], [N]"""
    row, step = mask.nonzero(as_tuple=True)
    return row, prompt_length[row] - 1 + step


@contextmanager
def _head_reads_only(model: Any, row: Tensor, column: Tensor, seen: list[Tensor]) -> Iterator[None]:
    """Let the vocabulary head see the chosen states alone; whatever the model does to its logits still applies."""

    def select(_module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        chosen = inputs[0][row, column]
        seen.append(chosen)
        return (chosen[None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def reply_states(
    model: Any, tokens: Tensor, prompt_length: Tensor, mask: Tensor, temperature: float = 1.0, *, half: bool = False
) -> ReplyStates:
    """Run right-padded sequences [B, T] once; logits only where a reply token was chosen.  See the module docstring.

    Packed through the fused trunk where there is one, else through the model's own forward pass; `half`: products in bfloat16.
    """
    if has_plain_head(model) and isinstance(trunk := trunk_for(model.base_model, half=half), FusedTrunk):
        packing = packed_rows(tokens, prompt_length, prompt_length + mask.sum(1))
        hidden = trunk.hidden(packing, packing.state_columns())
        chosen, head = packing.tokens[packing.reply_columns()], model.get_output_embeddings()
        return ReplyStates(chosen, hidden, head, temperature, half=half)
    row, column = state_columns(prompt_length, mask)
    seen: list[Tensor] = []
    with _head_reads_only(model, row, column, seen), products(half, tokens.device), recomputing(model):
        logits = model(input_ids=tokens, use_cache=False).logits[0]
    return ReplyStates(tokens[row, column + 1], seen[0], None, temperature, logits)


def log_probs(states: ReplyStates, mask: Tensor) -> Tensor:
    """Log π(a_t | s_t) of every reply token, 0 in the padding.  -> [B, R]"""
    found = states.logp
    return torch.zeros(mask.shape, device=found.device).masked_scatter(mask, found)
