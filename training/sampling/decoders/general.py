"""Any causal language model whose memory is keys and values, through its own forward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from training.processes.device import products
from training.sampling.decoders.decoder import causal_bias
from training.sampling.decoders.stepwise import StepwiseDecoder


class _RowCache(Cache):  # type: ignore[misc]  # transformers ships no types
    """The key-value table as transformers' models see it: written at given places, read up to `reach`."""

    def __init__(self, slots: int, max_length: int) -> None:
        super().__init__(layers=[])
        self.slots, self.max_length = slots, max_length
        self.tables: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows: Tensor | None = None
        self.positions: Tensor = torch.empty(0)
        self.reach = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx not in self.tables:

            def table(like: Tensor) -> Tensor:
                shape = (self.slots, like.shape[1], self.max_length, like.shape[3])
                return torch.zeros(shape, dtype=like.dtype, device=like.device)

            self.tables[layer_idx] = (table(key_states), table(value_states))
        keys, values = self.tables[layer_idx]
        n, columns = key_states.shape[0], key_states.shape[2]
        if self.rows is not None:
            keys[self.rows, :, :columns], values[self.rows, :, :columns] = key_states, value_states
            return key_states, value_states
        numbers = torch.arange(n, device=keys.device)
        keys[numbers, :, self.positions], values[numbers, :, self.positions] = (
            key_states[:, :, 0],
            value_states[:, :, 0],
        )
        return keys[:n, :, : self.reach], values[:n, :, : self.reach]

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        return 0 if self.rows is not None else self.reach - 1


class GeneralDecoder(StepwiseDecoder):
    """Any causal model whose memory is keys and values, through its own forward with explicit positions and masks."""

    def __init__(self, model: Any, slots: int, max_length: int, *, half: bool = False) -> None:
        config, self.half = model.config, half
        self.cache = _RowCache(slots, max_length)
        self.kinds = set(getattr(config, "layer_types", None) or [])
        self.window: int | None = getattr(config, "sliding_window", None)
        if not self.kinds <= {"full_attention", "sliding_attention"}:
            raise ValueError(
                f"a {config.model_type} model keeps more than keys and values; this engine cannot sample it"
            )
        self.refresh(model)

    def refresh(self, model: Any) -> None:
        self.model, self.device = model, model.device

    def release(self) -> None:
        """It reads the model itself and holds nothing of it."""

    def copy_row(self, source: int, targets: Sequence[int], length: int) -> None:
        for tables in self.cache.tables.values():
            for table in tables:
                for target in targets:
                    table[target, :, :length] = table[source, :, :length]

    def prefill(self, tokens: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        n, columns = tokens.shape
        self.cache.rows = rows
        positions = torch.arange(columns, device=tokens.device).expand(n, -1)
        last, where = torch.unique(lengths - 1, return_inverse=True)
        logits: Tensor = self._logits(tokens, positions, columns, last)
        return logits[torch.arange(n, device=tokens.device), where]

    def decode(self, tokens: Tensor, positions: Tensor, reach: int, level: bool) -> Tensor:  # noqa: ARG002  # explicit masks serve both
        self.cache.rows, self.cache.positions, self.cache.reach = None, positions, reach
        return self._logits(tokens[:, None], positions[:, None], reach, 1)[:, 0]

    def _logits(self, tokens: Tensor, positions: Tensor, reach: int, keep: Tensor | int) -> Tensor:
        full = causal_bias(positions, reach, self.model.dtype)
        mask: Tensor | dict[str, Tensor] = full
        if self.window is not None and self.kinds != {"full_attention"}:
            sliding = causal_bias(positions, reach, self.model.dtype, self.window)
            both = self.kinds == {"full_attention", "sliding_attention"}
            mask = {"full_attention": full, "sliding_attention": sliding} if both else sliding
        with products(self.half, tokens.device):
            logits: Tensor = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=keep,
            ).logits
        return logits
