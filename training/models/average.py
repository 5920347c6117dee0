"""An exponential moving average of a model's weights, the model that InstructGPT saves (Ouyang et al. 2022, App. C.4)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.models.checkpoint import trained
from training.processes.sharding import gathered, like


class WeightAverage:
    """θ̄ ← d θ̄ + (1-d) θ after every update of `model`, from the weights it begins with; float32 whatever the model's are."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: weight.detach().float().clone() for name, weight in trained(model)}

    @torch.no_grad()
    def observe(self) -> None:
        """Take in the weights after an update."""
        for name, weight in trained(self.model):
            self.weights[name].lerp_(weight.detach().float(), 1.0 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model carries its average inside the block, and its own weights again after it."""
        own = {name: weight.detach().clone() for name, weight in trained(self.model)}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in trained(self.model):
            weight.copy_(weights[name])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {f"average.{name}": gathered(weight) for name, weight in self.weights.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        for name, weight in self.weights.items():
            weight.copy_(like(tensors[f"average.{name}"], weight))
