"""The calls of pointwise.c and attention.c, from tensors. Shapes and meanings stand there."""

from collections.abc import Sequence
from ctypes import CDLL, c_float, c_int, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from training import native

P, L, N, F = c_void_p, c_long, c_int, c_float
ARGUMENTS: dict[str, list[type]] = {
    "trunk_norm": [P, P, P, P, L, L, F, N, N],
    "trunk_norm_backward": [P, P, P, P, P, P, P, L, L, N, N],
    "trunk_turn": [P, P, P, L, L, L, L, N, N],
    "trunk_turn_into": [P, P, P, P, L, L, L, L, N, N, N],
    "trunk_gate": [P, P, L, L, N, N],
    "trunk_gate_backward": [P, P, L, L, N, N],
    "trunk_normalise": [P, P, P, P, P, F, L, L, N, N],
    "trunk_denormalise": [P, P, P, P, F, L, L, N, N],
    "trunk_attend": [P, P, P, L, L, L, L, P, L, P, L, P, L, P, P, N, N],
    "trunk_attend_backward": [P, P, P, L, L, L, L, P, L, P, L, P, L, P, P, P, P, L, P, P, L, N, N],
}


@cache
def kernels() -> CDLL | None:
    """The library with the calls of this file declared, None where there is none."""
    found = native.library()
    if found is not None:
        for name, arguments in ARGUMENTS.items():
            call = getattr(found, name)
            call.argtypes, call.restype = arguments, c_int if name.startswith("trunk_attend") else None
    return found


def takes(*tensors: Tensor, tables: Sequence[Tensor] = ()) -> bool:
    """Whether the kernels can work on these, contiguous and on the CPU: float32, `tables` all so or all bfloat16; and there is a library."""
    return (
        kernels() is not None
        and all(part.dtype is torch.float32 for part in tensors)
        and len({part.dtype for part in tables}) <= 1
        and all(part.dtype in (torch.float32, torch.bfloat16) for part in tables)
        and all(part.device.type == "cpu" and part.is_contiguous() for part in (*tensors, *tables))
    )


def _half(table: Tensor) -> bool:
    return table.dtype is torch.bfloat16


def norm(x: Tensor, weight: Tensor, eps: float, found: Tensor) -> Tensor:
    """Into the first rows of `found`; the inverse roots."""
    scale = x.new_empty(*x.shape[:-1], 1)
    width = x.shape[-1]
    _lib().trunk_norm(
        x.data_ptr(), weight.data_ptr(), found.data_ptr(), scale.data_ptr(), x.numel() // width, width, eps,
        _half(found), native.threads(),
    )  # fmt: skip
    return scale


def norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, plus: Tensor | None
) -> tuple[Tensor, Tensor]:
    width, threads = x.shape[-1], native.threads()
    into, sums = torch.empty_like(x), x.new_empty(threads, width)
    _lib().trunk_norm_backward(
        gradient.data_ptr(), x.data_ptr(), weight.data_ptr(), scale.data_ptr(),
        None if plus is None else plus.data_ptr(), into.data_ptr(), sums.data_ptr(), x.numel() // width, width,
        _half(gradient), threads,
    )  # fmt: skip
    return into, sums[0]


def turn(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> None:
    """`x` may be some of the heads of a larger table: its last two dimensions are dense."""
    rows, heads, width = x.shape
    _lib().trunk_turn(
        x.data_ptr(), cos.data_ptr(), sin.data_ptr(), rows, heads, width, x.stride(0), back, native.threads()
    )


def turn_into(found: Tensor, x: Tensor, cos: Tensor, sin: Tensor, heads: int, *, back: bool) -> None:
    """From `x` [N, H, D] into the first rows of `found`, one of them in bfloat16; the first `heads` heads are turned."""
    rows, every, width = x.shape
    _lib().trunk_turn_into(
        x.data_ptr(), found.data_ptr(), cos.data_ptr(), sin.data_ptr(), rows, heads, every, width, back, _half(x),
        native.threads(),
    )  # fmt: skip


def gate(gate_up: Tensor) -> Tensor:
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    found = gate_up.new_empty(rows, width)
    _lib().trunk_gate(gate_up.data_ptr(), found.data_ptr(), rows, width, _half(found), native.threads())
    return found


def gate_backward(gate_up: Tensor, gradient: Tensor) -> None:
    _lib().trunk_gate_backward(
        gate_up.data_ptr(), gradient.data_ptr(), *gradient.shape, _half(gradient), native.threads()
    )


def normalise(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    logp, entropy, total = logits.new_empty(3, len(logits), dtype=torch.float32)
    _lib().trunk_normalise(
        logits.data_ptr(), tokens.data_ptr(), logp.data_ptr(), entropy.data_ptr(), total.data_ptr(), 1 / temperature,
        *logits.shape, _half(logits), native.threads(),
    )  # fmt: skip
    return logp, entropy, total


def denormalise(logits: Tensor, tokens: Tensor, gradient: Tensor, total: Tensor, temperature: float) -> None:
    _lib().trunk_denormalise(
        logits.data_ptr(), tokens.data_ptr(), gradient.data_ptr(), total.data_ptr(), 1 / temperature, *logits.shape,
        _half(logits), native.threads(),
    )  # fmt: skip


class Tables:
    """The segments of a layout as the kernels read them."""

    def __init__(self, segments: Tensor, groups: Tensor, reach: Tensor) -> None:
        self.segments, self.groups, self.reach = segments, groups, reach.contiguous()

    def pointers(self) -> tuple[int, int, int, int]:
        return self.segments.data_ptr(), self.groups.data_ptr(), self.reach.data_ptr(), len(self.groups) - 1


def attend(query: Tensor, key: Tensor, value: Tensor, tables: Tables, found: Tensor) -> Tensor:
    """Into the first rows of `found`, and logarithms of sums [M, H].  [M, H, D], [N, KV, D] twice; heads of larger tables."""
    queries, heads, width = query.shape
    total = query.new_empty(queries, heads)
    failed = _lib().trunk_attend(
        *tables.pointers(), heads, key.shape[1], width, query.data_ptr(), query.stride(0), key.data_ptr(),
        key.stride(0), value.data_ptr(), value.stride(0), found.data_ptr(), total.data_ptr(), _half(found),
        native.threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("no memory for the scores of attention; make the batches smaller")
    return total


def attend_backward(
    query: Tensor, key: Tensor, value: Tensor, tables: Tables, found: Tensor, total: Tensor, gradient: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of queries, keys and values in one table [N, H + 2 KV, D], or in two where M < N.

    `found` and `gradient` are of one kind.
    """
    queries, heads, width = query.shape
    columns, key_heads = key.shape[0], key.shape[1]
    if queries == columns:
        whole = query.new_empty(columns, heads + 2 * key_heads, width)
        asked, told = whole, whole[:, heads:]
    else:
        asked = query.new_empty(queries, heads, width)
        told = query.new_empty(columns, 2 * key_heads, width)
    failed = _lib().trunk_attend_backward(
        *tables.pointers(), heads, key_heads, width, query.data_ptr(), query.stride(0), key.data_ptr(), key.stride(0),
        value.data_ptr(), value.stride(0), found.data_ptr(), total.data_ptr(), gradient.data_ptr(), asked.data_ptr(),
        asked.stride(0), told.data_ptr(), told[:, key_heads:].data_ptr(), told.stride(0), _half(found),
        native.threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("no memory for the scores of attention; make the batches smaller")
    return (asked,) if queries == columns else (asked, told)


def _lib() -> CDLL:
    found = kernels()
    assert found is not None
    return found
