"""Optimizers and random states as named tensors, so that a checkpoint needs no pickle."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Name every trained tensor of `module` once; tied weights appear under their first name."""
    return {f"{prefix}.{name}": parameter.detach() for name, parameter in module.named_parameters()}


def restore_module(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of `module_tensors` back; a missing one is a KeyError."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors[f"{prefix}.{name}"])


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Name every state tensor (moments, step counts) by the place of its parameter among the groups."""
    return {
        f"{prefix}.{place}.{key}": value
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
                key: value.clone() if key == "step" and not fused[place] else value.to(parameter.device, copy=True)
                for key, value in state.items()
            }


def random_tensors() -> dict[str, Tensor]:
    """Return the state of torch's own generators (CPU, and each CUDA device)."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"random.cuda{n}": state for n, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Put the generators back where `random_tensors` saw them."""
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([tensors[f"random.cuda{n}"] for n in range(torch.cuda.device_count())])


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
