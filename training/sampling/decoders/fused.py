"""Llama-shaped weights in a loop of our own in torch: on GPUs, in bfloat16, and where there are no native kernels.

Query, key and value are one matrix product, gate and up another, rotation is a complex product.
Shapes: n rows, T prompt columns, L key columns in reach, M columns a row can hold, V words.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.lora import effective
from training.sampling.decoders.decoder import causal_bias, rotations
from training.sampling.decoders.stepwise import StepwiseDecoder


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


class FusedDecoder(StepwiseDecoder):
    """Llama-family weights in a loop of our own; holds copies, so the model object may change or go."""

    def __init__(self, model: Any, slots: int, max_length: int, *, half: bool = False) -> None:
        """`half`: the copies are bfloat16, whatever the model is kept in."""
        config, attention = model.config, model.model.layers[0].self_attn
        self.head_dim: int = attention.head_dim
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.eps: float = config.rms_norm_eps
        weight = model.model.embed_tokens.weight
        self.dtype, self.device = torch.bfloat16 if half else weight.dtype, weight.device
        self.turn = torch.complex(*rotations(model, max_length))  # [M, head_dim/2]
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
            weights = [interleave(effective(p)) if i < turned else effective(p) for i, p in enumerate(parts)]
            if parts[0].bias is None:
                return torch.cat(weights).to(self.dtype), None
            biases = [interleave(p.bias) if i < turned else p.bias for i, p in enumerate(parts)]
            return torch.cat(weights).to(self.dtype), torch.cat(biases).to(self.dtype)

        def own(x: Tensor) -> Tensor:
            return x.detach().to(self.dtype, copy=True)

        def own_bias(linear: nn.Linear) -> Tensor | None:
            return None if linear.bias is None else own(linear.bias)

        def qk_norm(attention: Any) -> Tensor | None:
            if getattr(attention, "q_norm", None) is None:
                return None
            query, key = interleave(attention.q_norm.weight), interleave(attention.k_norm.weight)
            return torch.cat([query.expand(self.heads, -1), key.expand(self.kv_heads, -1)]).to(self.dtype)

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
                    out=own(effective(attention.o_proj)),
                    out_bias=own_bias(attention.o_proj),
                    norm2=own(layer.post_attention_layernorm.weight),
                    gate_up=gate_up,
                    gate_up_bias=gate_up_bias,
                    down=own(effective(mlp.down_proj)),
                    down_bias=own_bias(mlp.down_proj),
                )
            )

    def release(self) -> None:
        """Let the copies of the weights go."""
        self.layers, self.embedding, self.head = [], self.embedding.new_empty(0), self.embedding.new_empty(0)

    def copy_row(self, source: int, targets: Sequence[int], length: int) -> None:
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
