"""Modules and optimizers as named tensors, so that a checkpoint needs no pickle.

Of a model in shards they are the whole tensors: all processes must ask, and any number may go on from them. No state of a random generator is among them: every draw of a job comes from its seed and the step alone.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.processes.sharding import gathered, like


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Name every trained tensor of `module` once; tied weights appear under their first name."""
    return {f"{prefix}.{name}": gathered(parameter.detach()) for name, parameter in trained(module)}


def trained(module: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The weights that a run trains, by name. What is frozen, as the weights beside an adapter, is in the directory that the run started from."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def first_unsound(module: nn.Module) -> str | None:
    """The first trained weight with a number that is not finite, in this process's part of it; None where all are."""
    for name, parameter in trained(module):
        held = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if not bool(held.isfinite().all()):
            return name
    return None


def restore_module(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of `module_tensors` back; a missing one is a KeyError."""
    with torch.no_grad():
        for name, parameter in trained(module):
            parameter.copy_(like(tensors[f"{prefix}.{name}"], parameter))


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Name every state tensor (moments, step counts) by the place of its parameter among the groups."""
    return {
        f"{prefix}.{place}.{key}": gathered(value)
        for place, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out; learning rates are the schedule's business."""
    fused = [bool(group.get("fused")) for group in optimizer.param_groups for _ in group["params"]]
    for place, parameter in enumerate(_parameters(optimizer)):
        begin = f"{prefix}.{place}."
        state = {name.removeprefix(begin): value for name, value in tensors.items() if name.startswith(begin)}
        if state:
            # Adam's moments live where the parameter does, its step count too when fused, else on the CPU
            optimizer.state[parameter] = {
                key: value.clone()
                if key == "step" and not fused[place]
                else like(value.to(parameter.device, copy=True), parameter)
                for key, value in state.items()
            }


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
