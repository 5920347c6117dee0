"""Low-rank adapters: W + (α/r) B A with W frozen (Hu et al. 2021); only A and B, and a job's heads, are trained.

The layers are peft's. What reads weights by name (sampling engine, fused trunk, snapshots) asks `effective` for them, so
that an adapted model is served as any other: its snapshot holds merged weights, with the adapter alone beside them.
`adapters_off` gives the model that training began with back for as long as a block lasts, at no memory.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.config.adapter import AdapterConfig
from training.config.loading import BadConfig

ADAPTER = "adapter"  # folder of a snapshot
ADAM_BYTES = 12  # of each trained float32 weight beside itself: its gradient and Adam's two moments


def adapt(model: nn.Module, trunk: Any, config: AdapterConfig, seed: int) -> None:
    """Freeze `model` and put adapters beside the linear layers of `trunk`, which is `model` or its backbone.

    A is drawn from the seed, B is zero, so that the model says what it said before.
    """
    from peft import LoraConfig, inject_adapter_in_model  # here: it takes seconds, and most runs have no adapter

    linear = linear_layers(trunk)
    targets = sorted(linear) if config.lora_targets == "auto" else list(config.lora_targets)
    unknown = [name for name in targets if name not in linear]
    if unknown or not targets:
        raise BadConfig(
            f"lora_targets: the blocks have no linear layer {unknown[:1]}; they have {', '.join(sorted(linear))}"
        )
    model.requires_grad_(False)
    settings = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=targets,
        fan_in_fan_out=any(linear[name] for name in targets),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, trunk)
    model.eval()


def linear_layers(trunk: Any) -> dict[str, bool]:
    """Name the linear layers of the blocks; True where the weight lies transposed, as GPT-2's do."""
    found: dict[str, bool] = {}
    for blocks in trunk.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) == trunk.config.num_hidden_layers:
            for name, module in blocks.named_modules():
                kind = type(module).__name__
                if isinstance(module, nn.Linear) or kind == "Conv1D":
                    found[name.rpartition(".")[2]] = kind == "Conv1D"
    return found


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers by name."""
    return ((name, module) for name, module in model.named_modules() if getattr(module, "lora_A", None) is not None)


def adapted(model: nn.Module) -> bool:
    """Whether the model has adapters."""
    return next(_layers(model), None) is not None


def effective(linear: Any) -> Tensor:
    """The weight that a linear layer computes with: its own, plus its adapter's where it has one that is on."""
    base = getattr(linear, "base_layer", None)
    weight: Tensor = linear.weight if base is None else base.weight
    if base is None or linear.disable_adapters:
        return weight
    for name in linear.active_adapters:
        weight = weight + linear.get_delta_weight(name).to(weight.dtype)
    return weight


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model without its adapters inside the block: the policy that PPO began with, its reference."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


class Unadapted:
    """A model as it is without its adapters, sharing all weights with it: called, or asked for anything, it answers as that."""

    def __init__(self, model: Any) -> None:
        self._whole = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def off(self) -> AbstractContextManager[None]:
        """The shared model's adapters are off inside."""
        return adapters_off(self._whole)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Do a forward pass with the adapters off."""
        with self.off():
            return self._whole(*arguments, **named)


def seen(model: Any) -> AbstractContextManager[None]:
    """Inside, the weights of `model` are read by name as it computes with them."""
    return model.off() if isinstance(model, Unadapted) else nullcontext()


@contextmanager
def dropping(model: nn.Module, draw: int) -> Iterator[None]:
    """The adapters' dropout is on inside the block, its draws decided by `draw` alone; nothing where it is 0."""
    drops = [
        drop for _, layer in _layers(model) for drop in layer.lora_dropout.values() if isinstance(drop, nn.Dropout)
    ]
    if not drops:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(draw)
        for drop in drops:
            drop.train()
        try:
            yield
        finally:
            for drop in drops:
                drop.eval()


# -- snapshots --------------------------------------------------------------------------------------------------------
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the same model without adapters that says what this one says, by its own names."""
    found = {}
    layers = dict(_layers(model))
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        found[f"{owner}.{leaf}" if owner else name] = (
            effective(layers[owner]).detach() if owner and leaf == "weight" else tensor
        )
    return found


def save_merged(trunk: Any, path: Path) -> None:
    """Write the model as save_pretrained does, with merged weights, and its adapter beside it where it has one."""
    if adapted(trunk):
        trunk.save_pretrained(str(path), state_dict=merged_state(trunk))
        save_adapter(trunk, path / ADAPTER)
    else:
        trunk.save_pretrained(str(path))


def save_adapter(trunk: Any, path: Path) -> None:
    """Write the adapter alone, as peft does: adapter_model.safetensors and adapter_config.json."""
    from peft import get_peft_model_state_dict

    path.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(trunk)
    save_file(
        {f"base_model.model.{name}": part.detach().cpu().contiguous() for name, part in state.items()},
        path / "adapter_model.safetensors",
    )
    settings = trunk.peft_config["default"].to_dict()
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    (path / "adapter_config.json").write_text(json.dumps(plain, indent=2, default=str) + "\n", encoding="utf-8")


# -- what it saves ----------------------------------------------------------------------------------------------------
def sizes(model: nn.Module, *, copies: int = 0) -> dict[str, int]:
    """Count the weights of the snapshot, those that are trained, and the bytes that training need not hold for the others.

    `copies`: weights of whole models that need not be there twice, four bytes each.
    """
    every = sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return {"parameters": every, "trained_parameters": trained, "saved_bytes": frozen * ADAM_BYTES + copies * 4}
