"""One forward step of a causal language model over a table of key-value rows, for the sampling engine.

Two decoders with one face: `FusedDecoder` runs Llama, Mistral, Qwen2 and Qwen3 weights in a loop of our own (query, key
and value in one matrix product, gate and up in another, rotation as a complex product); `GeneralDecoder` runs any other
causal model through its own forward. Row r of the table belongs to one reply being written; the engine keeps its active
replies in rows 0..n-1. Shapes: n rows, T prompt columns, L key columns in reach, M columns a row can hold, V words.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache


class Decoder(Protocol):
    """What the engine asks of a model."""

    def prefill(self, tokens: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        """Read right-padded prompts [n, T] into `rows` [n]; the logits after each one's last token.  -> [n, V]"""

    def decode(self, tokens: Tensor, positions: Tensor, reach: int, level: bool) -> Tensor:
        """Read one token [n] at `positions` [n] of rows 0..n-1; reach = max(positions)+1, level: all equal.  -> [n, V]"""

    def copy_row(self, source: int, targets: list[int], length: int) -> None:
        """Give rows `targets` the first `length` columns of row `source`."""

    def refresh(self, model: nn.Module) -> None:
        """Take over the present weights of `model`."""


def decoder_for(model: Any, slots: int, max_length: int) -> Decoder:
    """The fused decoder where it knows the architecture exactly, the general one elsewhere."""
    return (FusedDecoder if fusible(model) else GeneralDecoder)(model, slots, max_length)


def fusible(model: Any) -> bool:
    """Whether FusedDecoder computes exactly what this model does: gated SiLU, RMS norms, one static rotation, full attention."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in {"llama", "mistral", "qwen2", "qwen3"}
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in {"default", "linear", "llama3"}
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and all(layer.self_attn.head_dim % 2 == 0 for layer in model.model.layers)
        and not any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or [])
        and (config.model_type != "mistral" or config.sliding_window is None)
    )


def causal_bias(positions: Tensor, reach: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """0 where a token at `positions` [n, T] may look, the lowest number elsewhere.  -> [n, 1, T, reach]"""
    column = torch.arange(reach, device=positions.device)
    hidden = column > positions[:, None, :, None]
    if window is not None:
        hidden |= column <= positions[:, None, :, None] - window
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, torch.finfo(dtype).min)


class _Layer(NamedTuple):
    """Our own copies of one block's weights; a bias is None where the architecture has none."""

    norm1: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim], Qwen3 alone
    out: Tensor
    out_bias: Tensor | None
    norm2: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class FusedDecoder:
    """Llama-family weights in a loop of our own; holds copies, so the model object may change or go."""

    def __init__(self, model: Any, slots: int, max_length: int) -> None:
        config, attention = model.config, model.model.layers[0].self_attn
        self.head_dim: int = attention.head_dim
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.eps: float = config.rms_norm_eps
        weight = model.model.embed_tokens.weight
        self.dtype, self.device = weight.dtype, weight.device
        with torch.no_grad():
            positions = torch.arange(max_length, device=self.device)[None]
            cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float32, device=self.device), positions)
        half = self.head_dim // 2
        self.turn = torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())  # [M, head_dim/2]
        # One tensor per layer, keys then values: a single stacked one is copied by functional backends.
        self.rows = [
            torch.zeros(slots, 2 * self.kv_heads, max_length, self.head_dim, dtype=self.dtype, device=self.device)
            for _ in model.model.layers
        ]
        self.refresh(model)

    @torch.no_grad()
    def refresh(self, model: Any) -> None:
        """Copy all weights; query and key heads interleaved so that rotation is a complex product."""

        def interleave(x: Tensor) -> Tensor:
            # Hugging Face pairs component i with i + d/2; a complex number pairs neighbours. Dot products do not mind.
            turned: Tensor = x.unflatten(0, (-1, 2, self.head_dim // 2)).transpose(1, 2).flatten(0, 2)
            return turned

        def fused(parts: list[nn.Linear], turned: int) -> tuple[Tensor, Tensor | None]:
            weights = [interleave(p.weight) if i < turned else p.weight for i, p in enumerate(parts)]
            if parts[0].bias is None:
                return torch.cat(weights), None
            return torch.cat(weights), torch.cat(
                [interleave(p.bias) if i < turned else p.bias for i, p in enumerate(parts)]
            )

        def own(x: Tensor) -> Tensor:
            return x.detach().clone()

        def own_bias(linear: nn.Linear) -> Tensor | None:
            return None if linear.bias is None else own(linear.bias)

        def qk_norm(attention: Any) -> Tensor | None:
            if getattr(attention, "q_norm", None) is None:
                return None
            query, key = interleave(attention.q_norm.weight), interleave(attention.k_norm.weight)
            return torch.cat([query.expand(self.heads, -1), key.expand(self.kv_heads, -1)])

        core = model.model
        self.embedding = own(core.embed_tokens.weight)
        head = model.lm_head
        self.head = self.embedding if head.weight is core.embed_tokens.weight else own(head.weight)
        self.head_bias = own_bias(head)
        self.final_norm = own(core.norm.weight)
        self.layers = []
        for layer in core.layers:
            attention, mlp = layer.self_attn, layer.mlp
            qkv, qkv_bias = fused([attention.q_proj, attention.k_proj, attention.v_proj], turned=2)
            gate_up, gate_up_bias = fused([mlp.gate_proj, mlp.up_proj], turned=0)
            self.layers.append(
                _Layer(
                    norm1=own(layer.input_layernorm.weight),
                    qkv=qkv,
                    qkv_bias=qkv_bias,
                    qk_norm=qk_norm(attention),
                    out=own(attention.o_proj.weight),
                    out_bias=own_bias(attention.o_proj),
                    norm2=own(layer.post_attention_layernorm.weight),
                    gate_up=gate_up,
                    gate_up_bias=gate_up_bias,
                    down=own(mlp.down_proj.weight),
                    down_bias=own_bias(mlp.down_proj),
                )
            )

    def copy_row(self, source: int, targets: list[int], length: int) -> None:
        for rows in self.rows:
            for target in targets:
                rows[target, :, :length] = rows[source, :, :length]

    def prefill(self, tokens: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        n, columns = tokens.shape
        hidden = self._forward(tokens, self.turn[None, :columns, None], rows=rows, bias=None)
        last = hidden.view(n, columns, -1)[torch.arange(n, device=tokens.device), lengths - 1]
        return functional.linear(self._norm(last, self.final_norm), self.head, self.head_bias)

    def decode(self, tokens: Tensor, positions: Tensor, reach: int, level: bool) -> Tensor:
        bias = None if level else causal_bias(positions[:, None], reach, self.dtype)
        turn = self.turn[positions][:, None, None]
        hidden = self._forward(tokens[:, None], turn, positions=positions, bias=bias, reach=reach, level=level)
        return functional.linear(self._norm(hidden, self.final_norm), self.head, self.head_bias)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.eps)

    def _forward(
        self,
        tokens: Tensor,
        turn: Tensor,
        bias: Tensor | None,
        rows: Tensor | None = None,
        positions: Tensor | None = None,
        reach: int = 0,
        level: bool = False,
    ) -> Tensor:
        """Hidden states [n·T, d] of tokens [n, T]: a prompt pass when `rows` is given, else one token a row."""
        n, columns = tokens.shape
        heads, kv, size = self.heads, self.kv_heads, self.head_dim
        x = functional.embedding(tokens.reshape(-1), self.embedding)
        numbers = torch.arange(n, device=tokens.device)
        for index, layer in enumerate(self.layers):
            mixed = functional.linear(self._norm(x, layer.norm1), layer.qkv, layer.qkv_bias).view(
                n, columns, heads + 2 * kv, size
            )
            turned = mixed[:, :, : heads + kv]
            if layer.qk_norm is not None:
                turned.copy_(functional.rms_norm(turned, (size,), None, self.eps) * layer.qk_norm)
            if self.dtype == torch.float32:
                torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(turn)
            else:
                wide = torch.view_as_complex(turned.float().unflatten(-1, (-1, 2)))
                turned.copy_(torch.view_as_real(wide * turn).flatten(-2))
            kept = self.rows[index]
            if rows is not None:
                heads_first = mixed.transpose(1, 2)  # [n, heads, T, size]
                kept[rows, :, :columns] = heads_first[:, heads:]
                query, key, value = heads_first.split([heads, kv, kv], dim=1)
                found = functional.scaled_dot_product_attention(
                    query, key, value, is_causal=True, enable_gqa=heads != kv
                )
                found = found.transpose(1, 2)
            else:
                assert positions is not None
                if level:
                    kept[:n, :, reach - 1] = mixed[:, 0, heads:]
                else:
                    kept[numbers, :, positions] = mixed[:, 0, heads:]
                # The queries that share a key head stand where several positions would: no key is repeated.
                query = mixed[:, 0, :heads].unflatten(1, (kv, heads // kv))
                found = functional.scaled_dot_product_attention(
                    query, kept[:n, :kv, :reach], kept[:n, kv:, :reach], attn_mask=bias
                )
            x = _add_product(x, found.reshape(n * columns, heads * size), layer.out, layer.out_bias)
            gate, up = functional.linear(self._norm(x, layer.norm2), layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
            x = _add_product(x, functional.silu(gate) * up, layer.down, layer.down_bias)
        return x


def _add_product(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Residual + x Wᵀ + b in one operation where there is no bias."""
    found = torch.addmm(residual, x, weight.t())
    return found if bias is None else found + bias


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


class GeneralDecoder:
    """Any causal model whose memory is keys and values, through its own forward with explicit positions and masks."""

    def __init__(self, model: Any, slots: int, max_length: int) -> None:
        config = model.config
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and max_length > limit:
            raise ValueError(
                f"max_length {max_length} is more than the {limit} positions of this {config.model_type} model"
            )
        self.cache = _RowCache(slots, max_length)
        self.kinds = set(getattr(config, "layer_types", None) or [])
        self.window: int | None = getattr(config, "sliding_window", None)
        if not self.kinds <= {"full_attention", "sliding_attention"}:
            raise ValueError(
                f"a {config.model_type} model keeps more than keys and values; this engine cannot sample it"
            )
        self.refresh(model)

    def refresh(self, model: Any) -> None:
        self.model = model

    def copy_row(self, source: int, targets: list[int], length: int) -> None:
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
        logits: Tensor = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits
