"""Llama-family trunks in one autograd function: packed rows, products joined, a backward pass written by hand.

The module's own parameters go in and get their gradients, so optimizers, checkpoints and save_pretrained know nothing of
this. Query, key and value are one product, gate and up another; only what the backward pass needs is kept; in the last
block queries, feed-forward part and final norm are computed for the states that somebody reads.
Products run in bfloat16 where `half` says so; weights, norms, attention and sums stay float32.
N tokens, M states that are read, d wide, H query and KV key heads of width D.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from training.trunk.attention import Attended
from training.trunk.general import GeneralTrunk
from training.trunk.half import Rows, rows_of
from training.trunk.layout import Layout, layout_of
from training.trunk.llama_family import LLAMA_FAMILY, is_llama_shaped
from training.trunk.packing import Packed
from training.trunk.pointwise import gate, gate_backward, norm, norm_backward, turn, turned, turned_back
from training.trunk.recomputing import recomputes


def is_fusible_trunk(backbone: Any) -> bool:
    """Whether FusedTrunk computes exactly what this backbone does, with plain weights of its own in float32 on a CPU."""
    if (
        not is_llama_shaped(backbone.config)
        or (backbone.training and getattr(backbone.config, "attention_dropout", 0.0) != 0.0)
        or not all(hasattr(backbone, part) for part in ("embed_tokens", "layers", "norm", "rotary_emb"))
    ):
        return False
    if any(type(part) is not nn.Linear for layer in backbone.layers for part in _linears(layer)):
        return False  # LoRA and quantised layers do more than a product
    if any(_hooked(module) for module in backbone.modules()):
        return False
    return all(
        type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
        for weight in backbone.parameters()
    )


def has_plain_head(model: Any) -> bool:
    """Whether a causal model is a backbone that a fused trunk may know, and one linear vocabulary head on it, no more."""
    return (
        isinstance(model, PreTrainedModel)
        and model.config.model_type in LLAMA_FAMILY
        and type(model).__name__.endswith("ForCausalLM")
        and not _hooked(model)
        and type(model.get_output_embeddings()) is nn.Linear
    )


def _hooked(module: nn.Module) -> bool:
    """Whether somebody wants to see or change what a module's forward pass does."""
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001  # torch has no public question


def _linears(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


class _Block(NamedTuple):
    """The weights of one block, None where the architecture has none."""

    norm1: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    query_bias: Tensor | None
    key_bias: Tensor | None
    value_bias: Tensor | None
    query_norm: Tensor | None  # Qwen3 alone
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    norm2: Tensor
    gate: Tensor
    up: Tensor
    gate_bias: Tensor | None
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


def _block_of(layer: Any) -> _Block:
    query, key, value, out, gate_proj, up, down = _linears(layer)
    query_norm, key_norm = getattr(layer.self_attn, "q_norm", None), getattr(layer.self_attn, "k_norm", None)
    return _Block(
        layer.input_layernorm.weight, query.weight, key.weight, value.weight, query.bias, key.bias, value.bias,
        query_norm and query_norm.weight, key_norm and key_norm.weight, out.weight, out.bias,
        layer.post_attention_layernorm.weight, gate_proj.weight, up.weight, gate_proj.bias, up.bias, down.weight,
        down.bias,
    )  # fmt: skip


class FusedTrunk:
    """A Llama, Mistral, Qwen2 or Qwen3 backbone over packed rows."""

    shares = True

    def __init__(self, backbone: Any, *, half: bool) -> None:
        self.backbone, self.half = backbone, half

    def hidden(self, packing: Packed, columns: Tensor | None = None) -> Tensor:
        """The last hidden states at `columns` [M], or at all columns; differentiable in the backbone's parameters.  -> [M, d]"""
        backbone, config = self.backbone, self.backbone.config
        if _hooked(backbone.layers[0]):  # its weights have been put into shards since
            return GeneralTrunk(backbone, half=self.half).hidden(packing, columns)
        chosen = places = None
        if columns is not None:
            chosen, places = torch.unique(columns, return_inverse=True)
            if len(chosen) == len(packing.tokens):  # all of them: attention tells two tables from one by their lengths
                chosen = None
        with torch.no_grad():
            cos, sin = backbone.rotary_emb(backbone.embed_tokens.weight[:1], packing.positions[None])
        head = backbone.layers[0].self_attn.head_dim
        layout = layout_of(packing)
        work = _Work(
            packing.tokens, cos[0, :, : head // 2].contiguous(), sin[0, :, : head // 2].contiguous(),
            layout, layout if chosen is None else layout_of(packing, chosen), chosen,
            config.num_attention_heads, config.num_key_value_heads, head, config.rms_norm_eps,
            backbone.embed_tokens.padding_idx, self.half, recomputes(backbone),
        )  # fmt: skip
        weights = [backbone.embed_tokens.weight, *(w for layer in backbone.layers for w in _block_of(layer))]
        weights.append(backbone.norm.weight)
        learn = torch.is_grad_enabled() and any(w is not None and w.requires_grad for w in weights)
        found: Tensor = _Trunk.apply(work, learn, *weights)
        # a column that was asked for twice, as the end of a shared prompt is, takes the sum of its gradients
        return found if places is None or torch.equal(places, torch.arange(len(found))) else found[places]


@dataclass
class _Work:
    """What a pass needs beside the weights; `chosen` is None where all states are read."""

    tokens: Tensor
    cos: Tensor  # [N, D/2]
    sin: Tensor
    layout: Layout
    last_layout: Layout  # of the last block
    chosen: Any  # Tensor [M], ascending, or None
    heads: int
    kv_heads: int
    size: int
    eps: float
    silent: int | None  # the pad token, whose embedding torch does not train
    half: bool
    again: bool  # blocks keep their input alone and are computed again in the backward pass


class _Products:
    """Matrix products in the precision of the pass."""

    def __init__(self, half: bool) -> None:
        self.half = half

    def rows(self, x: Tensor) -> Rows:
        """A table of states for several products, converted once."""
        return rows_of(x, self.half)

    def weight(self, *parts: Tensor) -> Tensor:
        """Weights below each other, as products take them.  [a, b] each -> [sum of a, b]"""
        if not self.half:
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        found = parts[0].new_empty(sum(map(len, parts)), parts[0].shape[1], dtype=torch.bfloat16)
        for part, place in zip(parts, found.split([len(part) for part in parts]), strict=True):
            place.copy_(part)
        return found

    def raw(self, x: Rows, weight: Tensor) -> Rows:
        """The product x W as it is made, for what reads it in any precision.  [N, a], [a, b] -> [N, b]"""
        return Rows(torch.mm(x.table, weight), x.filled)

    def __call__(self, x: Rows, weight: Tensor, plus: Tensor | None = None) -> Tensor:
        """The product x W, plus `plus` [columns] or [rows, columns], in float32.  [N, a], [a, b] -> [N, b]"""
        if not self.half:
            return torch.mm(x.table, weight) if plus is None else torch.addmm(plus, x.table, weight)
        found = self.raw(x, weight).own.float()
        return found if plus is None else found.add_(plus)

    def across(self, x: Rows, y: Rows) -> Tensor:
        """The sum over rows of their outer products, xᵀ y: a weight's gradient.  [N, a], [N, b] -> [a, b]"""
        return torch.mm(x.table.t(), y.table).float()


class _Kept(NamedTuple):
    """What the backward pass of a block needs."""

    x: Tensor
    scale1: Tensor
    normed1: Rows
    qkv: Tensor  # the joined weight, as products take it; so are those below
    raw: tuple[Tensor, Tensor, Tensor, Tensor] | None  # queries and keys before their norms, and the inverse roots
    attended: Attended
    out: Tensor
    x2: Tensor
    scale2: Tensor
    normed2: Rows
    gate_up: Tensor
    opened: Rows  # gate and up
    down: Tensor


def _joined(*parts: Tensor | None) -> Tensor | None:
    """Biases end to end, or none."""
    return None if parts[0] is None else torch.cat([part for part in parts if part is not None])


def _angles(work: _Work, chosen: Tensor | None) -> list[tuple[Tensor, Tensor, int]]:
    """For each table of heads the angles of its rows and how many heads are turned: one table, or queries apart from the rest."""
    if chosen is None:
        return [(work.cos, work.sin, work.heads + work.kv_heads)]
    return [(work.cos[chosen], work.sin[chosen], work.heads), (work.cos, work.sin, work.kv_heads)]


def _forward(block: _Block, x: Tensor, work: _Work, chosen: Tensor | None, learn: bool) -> tuple[Tensor, _Kept]:
    """One block; with `chosen` the states of those columns alone come out.  [N, d] -> [N or M, d]"""
    product, heads, kv, size = _Products(work.half), work.heads, work.kv_heads, work.size
    normed1, scale1 = norm(x, block.norm1, work.eps, half=work.half)
    weight = product.weight(block.query, block.key, block.value)
    bias = _joined(block.query_bias, block.key_bias, block.value_bias)
    asking = heads * size  # columns of the queries in the joined product
    columns = [(normed1, slice(None))]
    if chosen is not None:
        columns = [(product.rows(normed1.table[chosen]), slice(asking)), (normed1, slice(asking, None))]
    tables = [
        (product.raw(rows, weight[at].t()).own if bias is None else product(rows, weight[at].t(), bias[at])).view(
            rows.filled, -1, size
        )
        for rows, at in columns
    ]
    raw = None
    if block.query_norm is not None and block.key_norm is not None:
        tables = [table.float() for table in tables]
        query, key = tables[0][:, :heads], tables[-1][:, -2 * kv : -kv]
        kept = query.clone(), key.clone()
        normed_query, query_scale = norm(kept[0], block.query_norm, work.eps)
        normed_key, key_scale = norm(kept[1], block.key_norm, work.eps)
        query.copy_(normed_query.table)
        key.copy_(normed_key.table)
        raw = (*kept, query_scale, key_scale)
    tables = [turned(table, *angles) for table, angles in zip(tables, _angles(work, chosen), strict=True)]
    query, key, value = tables[0][:, :heads], tables[-1][:, -2 * kv : -kv], tables[-1][:, -kv:]
    attended = Attended(
        query, key, value, work.layout if chosen is None else work.last_layout, learn=learn, half=work.half
    )
    out, gate_up, down = product.weight(block.out), product.weight(block.gate, block.up), product.weight(block.down)
    x2 = product(attended.found, out.t(), x if chosen is None else x[chosen])
    if block.out_bias is not None:
        x2 += block.out_bias
    normed2, scale2 = norm(x2, block.norm2, work.eps, half=work.half)
    opened = product.raw(normed2, gate_up.t())
    gate_up_bias = _joined(block.gate_bias, block.up_bias)
    if gate_up_bias is not None:
        opened.own.add_(gate_up_bias)
    found = product(Rows(gate(opened.table), opened.filled), down.t(), x2)
    if block.down_bias is not None:
        found += block.down_bias
    return found, _Kept(
        x, scale1, normed1, weight, raw, attended, out, x2, scale2, normed2, gate_up, opened, down
    )  # fmt: skip


def _backward(
    block: _Block, gradient: Tensor, kept: _Kept, work: _Work, chosen: Tensor | None, wanted: Mapping[str, bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradients of a block's input and of its weights, in the order of their names; None where none is wanted."""
    product, heads, kv, size = _Products(work.half), work.heads, work.kv_heads, work.size
    asking = heads * size
    into: dict[str, Tensor | None] = dict.fromkeys(_Block._fields)

    # feed-forward part
    pushed = product.rows(gradient)
    gated = product.raw(pushed, kept.down)
    opened = kept.opened
    gate_backward(opened.table, gated.table)  # now the gradient of `opened`, and what the gate let through
    if wanted["down"]:
        into["down"] = product.across(pushed, gated)
    if wanted["down_bias"]:
        into["down_bias"] = gradient.sum(0)
    if wanted["gate"] or wanted["up"]:
        into["gate"], into["up"] = product.across(opened, kept.normed2).chunk(2)
    if wanted["gate_bias"]:
        into["gate_bias"], into["up_bias"] = opened.own.sum(0, dtype=torch.float32).chunk(2)
    normed = product.raw(opened, kept.gate_up)
    gradient, into["norm2"] = norm_backward(normed.own, kept.x2, block.norm2, kept.scale2, gradient)

    # attention
    pushed = product.rows(gradient)
    if wanted["out"]:
        into["out"] = product.across(pushed, kept.attended.found)
    if wanted["out_bias"]:
        into["out_bias"] = gradient.sum(0)
    tables = kept.attended.backward(product.raw(pushed, kept.out).own)
    angles = _angles(work, chosen)
    if kept.raw is not None and block.query_norm is not None and block.key_norm is not None:
        for table, (cos, sin, count) in zip(tables, angles, strict=True):
            turn(table[:, :count], cos, sin, back=True)
        query, key = tables[0][:, :heads], tables[-1][:, -2 * kv : -kv]
        raw_query, raw_key, query_scale, key_scale = kept.raw
        unnormed, into["query_norm"] = norm_backward(query.contiguous(), raw_query, block.query_norm, query_scale)
        query.copy_(unnormed)
        unnormed, into["key_norm"] = norm_backward(key.contiguous(), raw_key, block.key_norm, key_scale)
        key.copy_(unnormed)
        mixed = [product.rows(table.flatten(1)) for table in tables]
    else:
        mixed = [turned_back(table, *angle, half=work.half) for table, angle in zip(tables, angles, strict=True)]
    sizes = [asking, kv * size, kv * size]
    names = ("query", "key", "value")
    if chosen is None:
        through = product.raw(mixed[0], kept.qkv).own
        parts = product.across(mixed[0], kept.normed1).split(sizes)
    else:
        asked, told = mixed
        through = product(told, kept.qkv[asking:])
        through.index_add_(0, chosen, product(asked, kept.qkv[:asking]))
        asked_of = product.rows(kept.normed1.table[chosen])
        parts = (product.across(asked, asked_of), *product.across(told, kept.normed1).split(sizes[1:]))
    into |= dict(zip(names, parts, strict=True))
    if block.query_bias is not None:
        biases = torch.cat([rows.own.sum(0, dtype=torch.float32) for rows in mixed]).split(sizes)
        into |= dict(zip((f"{name}_bias" for name in names), biases, strict=True))
    through, into["norm1"] = norm_backward(
        through, kept.x, block.norm1, kept.scale1, gradient if chosen is None else None
    )
    if chosen is not None:
        through.index_add_(0, chosen, gradient)
    return through, [part if wanted[name] else None for name, part in into.items()]


class _Trunk(torch.autograd.Function):
    """Embedding, blocks, final norm."""

    @staticmethod
    def forward(ctx: Any, work: _Work, learn: bool, *weights: Any) -> Tensor:
        width = len(_Block._fields)
        blocks = [_Block(*weights[at : at + width]) for at in range(1, len(weights) - 1, width)]
        x = functional.embedding(work.tokens, weights[0])
        kept = []
        for number, block in enumerate(blocks):
            chosen = work.chosen if number == len(blocks) - 1 else None
            given = x
            x, block_kept = _forward(block, x, work, chosen, learn and not work.again)
            if learn:
                kept.append(given if work.again else block_kept)
            del block_kept
        found, scale = norm(x, weights[-1], work.eps)
        if learn:
            ctx.save_for_backward(*weights)
            ctx.work, ctx.kept, ctx.blocks, ctx.last = work, kept, len(blocks), (x, scale)
        return found.table

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        if ctx.kept is None:
            raise RuntimeError("the gradient of a fused trunk can be taken once; run its forward pass again")
        width, work = len(_Block._fields), ctx.work
        weights, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        gradient, final = norm_backward(gradient.contiguous(), ctx.last[0], weights[-1], ctx.last[1])
        found: list[Tensor | None] = [final if wanted[-1] else None]
        for number in reversed(range(ctx.blocks)):
            at = 1 + number * width
            block, wants = (
                _Block(*weights[at : at + width]),
                dict(zip(_Block._fields, wanted[at : at + width], strict=True)),
            )
            chosen = work.chosen if number == ctx.blocks - 1 else None
            kept = ctx.kept.pop()
            if work.again:
                kept = _forward(block, kept, work, chosen, True)[1]
            gradient, into = _backward(block, gradient, kept, work, chosen, wants)
            found = [*into, *found]
        ctx.kept = None  # gate_backward wrote over it
        words = None
        if wanted[0]:
            words = torch.zeros_like(weights[0]).index_add_(0, work.tokens, gradient)
            if work.silent is not None:
                words[work.silent] = 0.0
        return None, None, words, *found
