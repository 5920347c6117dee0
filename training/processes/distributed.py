"""Several processes doing one run: they start together, each takes its share of a batch, and sums make them one.

Started by `torchrun -m training.<job> FOLDER`, `accelerate launch -m training.<job> FOLDER` or `whetstone train … --processes N`.
With one process every function here gives back what it was given. Gradients and numbers are shares of a whole batch's
mean, so they are added, never averaged: a batch that does not divide evenly, or a process with nothing to do, changes
nothing. Data order is drawn from the same seed everywhere; replies from seeds of their own, whoever samples them.
"""

import ctypes
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from training.processes import ranks
from training.processes.device import device_of_choice

PATIENCE = timedelta(hours=4)  # for a process that writes a model or evaluates alone; one that died is noticed at once
BUCKET_BYTES = 64 * 2**20  # gradients added in one message: large enough for the wire, small beside the model
PR_SET_PDEATHSIG = 1

Item = TypeVar("Item")


class PeerLost(RuntimeError):
    """Another process of the run ended, so this one cannot go on; whoever failed has written its reason."""


# -- coming and going -------------------------------------------------------------------------------------------------
@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes of this run; leaving early is how the others learn that this one failed."""
    if ranks.size() == 1:
        yield
        return
    _die_with_launcher()
    device = device_of_choice()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _die_with_launcher() -> None:
    """Ask the kernel to end this process with the one that started it: a killed launcher must not leave workers behind."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as lost:
        reason = f"another process of this run ended (seen by process {ranks.rank()} of {ranks.size()}: {lost})"
        raise PeerLost(reason) from lost


def barrier() -> None:
    """Wait until every process is here."""
    gathered(None)


# -- saying ----------------------------------------------------------------------------------------------------------
def gathered(value: Any) -> list[Any]:
    """Return what every process says, in the order of ranks; a JSON value, small."""
    if ranks.size() == 1:
        return [value]
    said = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    with _meeting():
        lengths = [torch.zeros(1, dtype=torch.long) for _ in range(ranks.size())]
        distributed.all_gather(lengths, torch.tensor([said.numel()]))
        longest = int(max(lengths))
        rows = [torch.zeros(longest, dtype=torch.uint8) for _ in range(ranks.size())]
        distributed.all_gather(rows, nn.functional.pad(said, (0, longest - said.numel())))
    return [json.loads(bytes(row[: int(length)].tolist()).decode()) for row, length in zip(rows, lengths, strict=True)]


def said_first(value: Any) -> Any:
    """Return what process 0 says, on every process."""
    return gathered(value if ranks.leads() else None)[0]


def summed(numbers: Mapping[str, float]) -> dict[str, float]:
    """Add up numbers by name; a process that has none of a name adds nothing."""
    found: dict[str, float] = {}
    for some in gathered(dict(numbers)):
        for name, number in some.items():
            found[name] = found.get(name, 0.0) + number
    return found


def differing(values: Mapping[str, Any]) -> str | None:
    """Return the first name whose value is not the same on every process; None when all agree."""
    first, *others = gathered(dict(values))
    return next((name for name in first if any(other.get(name) != first[name] for other in others)), None)


# -- sharing work and adding it up ------------------------------------------------------------------------------------
def share(items: Sequence[Item]) -> list[Item]:
    """Return this process's part of `items`: every size()-th one."""
    return list(items[ranks.rank() :: ranks.size()])


def added(x: Tensor) -> Tensor:
    """Return the sum of what every process holds, in place; the same bits everywhere.  Any shape, the same on all"""
    if ranks.size() > 1:
        with _meeting():
            distributed.all_reduce(x)
    return x


def assembled(rows: Tensor | None, places: Sequence[int], count: int, like: Tensor) -> Tensor:
    """Put the rows of all processes together: `rows` [n, R] of this one stand at `places` of `count`; 0 in the padding.

    None where it has none; `like` tells type and device. R may differ, the widest decides.  -> [count, R]
    """
    width = max(gathered(0 if rows is None else rows.shape[1]))
    table = torch.zeros(count, width, dtype=like.dtype, device=like.device)
    if rows is not None:
        table[list(places), : rows.shape[1]] = rows
    return added(table)


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by the sum of all processes'; one that no process has stays None, one in shards is a sum."""
    if ranks.size() == 1:
        return
    trained = [weight for weight in parameters if weight.requires_grad and not isinstance(weight, DTensor)]
    there = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
    with _meeting():
        distributed.all_reduce(there, op=distributed.ReduceOp.MAX)
        bucket: list[Tensor] = []
        for parameter, has in zip(trained, there.tolist(), strict=True):
            if not has:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grad = parameter.grad
            if bucket and (bucket[0].dtype, bucket[0].device) != (grad.dtype, grad.device):
                _add(bucket)
                bucket = []
            bucket.append(grad)
            if sum(some.nbytes for some in bucket) >= BUCKET_BYTES:
                _add(bucket)
                bucket = []
        _add(bucket)


def _add(bucket: list[Tensor]) -> None:
    """Sum these gradients over the processes, in one message, in place."""
    if not bucket:
        return
    flat = torch.cat([grad.flatten() for grad in bucket])
    distributed.all_reduce(flat)
    for grad, total in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
        grad.copy_(total.view_as(grad))


def exact_sum(module: nn.Module) -> int:
    """Return a number of the bits of all weights, the same in whatever order they are added: equal weights, equal sums."""
    return sum(
        int(parameter.detach().contiguous().flatten().view(torch.uint8).sum(dtype=torch.long))
        for parameter in module.parameters()
    )
