"""A model's blocks in shards: each process holds its part of every weight, gradient and moment (FSDP2), and gathers a block when
it is its turn.

Only the blocks are sharded; embeddings and heads, which are read by name, stay whole on every process and their gradients
are added. All processes must do as many passes as the one with most: `Level` lets those that are done early join in with
passes of nothing. Checkpoints and snapshots hold whole tensors, so that any number of processes can go on from them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.processes import distributed, ranks


def trunk_of(model: nn.Module) -> Any:
    """The module that owns the list of blocks."""
    for module in model.modules():
        count = getattr(getattr(module, "config", None), "num_hidden_layers", None)
        if any(isinstance(child, nn.ModuleList) and len(child) == count for child in module.children()):
            return module
    raise ValueError(f"no blocks are found in a {type(model).__name__}")


def shard(model: nn.Module, device: torch.device) -> "Level":
    """Give every process its part of the blocks of `model`; what remains whole is the same everywhere."""
    trunk = trunk_of(model)
    blocks = next(
        child
        for child in trunk.children()
        if isinstance(child, nn.ModuleList) and len(child) == trunk.config.num_hidden_layers
    )
    mesh = init_device_mesh(device.type, (ranks.size(),))
    inside = set(blocks.parameters())
    outside = {weight for weight in trunk.parameters() if weight not in inside}
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(trunk, mesh=mesh, ignored_params=outside)
    for module in _sharded(model):
        module.set_gradient_divide_factor(1.0)  # shares of a mean are added
        module.set_force_sum_reduction_for_comms(True)
    # a pass of nothing: FSDP2 sets itself up in the first one, and `whole` asks it to forget passes
    with torch.no_grad():
        trunk(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    return Level(trunk)


def _sharded(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


class Level:
    """Keeps the processes' passes level: before each, all are told that there is one more."""

    def __init__(self, trunk: Any) -> None:
        self.trunk, self.listening = trunk, False
        trunk.register_forward_pre_hook(self._told, prepend=True)  # before the weights of the pass are gathered

    def _told(self, _module: nn.Module, _inputs: Any) -> None:
        if self.listening:
            self._more(1.0)

    def _more(self, mine: float) -> bool:
        """Whether any process has another pass."""
        return float(distributed.added(torch.tensor([mine], device=self.trunk.device))) > 0

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Inside, any number of forward and backward passes; they end together."""
        self.listening = True
        try:
            yield
        finally:
            self.listening = False  # after an error, too: passes that follow it are nobody else's
        while self._more(0.0):
            token = torch.zeros(1, 1, dtype=torch.long, device=self.trunk.device)
            (self.trunk(input_ids=token, use_cache=False).last_hidden_state.sum() * 0.0).backward()


def learning(level: Level | None) -> AbstractContextManager[None]:
    """Inside, forward and backward passes of a model in shards; of one that is whole (None) as ever."""
    return nullcontext() if level is None else level.learning()


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Inside, every process holds all weights, for passes and for saving that know nothing of shards; no gradients.

    Nothing happens where the model is whole already. Enter it outside of inference mode: the tensors that are made here serve
    passes that learn, too.
    """
    modules = [
        module for module in _sharded(model) if any(isinstance(weight, DTensor) for weight in module.parameters())
    ]
    hooks = [(module, module._state_dict_pre_hooks) for module in model.modules()] if modules else []  # noqa: SLF001
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    for owner, _ in hooks:  # they would put the shards back before a weight is saved
        owner._state_dict_pre_hooks = OrderedDict()  # noqa: SLF001
    try:
        yield
    finally:
        for owner, hook in hooks:
            owner._state_dict_pre_hooks = hook  # noqa: SLF001
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(True, recurse=False)
        # the outermost first: forget the passes of this block, or the next backward would gather in their order
        if modules:
            modules[0].reset_iter_state()


# -- tensors ----------------------------------------------------------------------------------------------------------
def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor, for writing it; all processes must ask, the first alone gets the whole of one in shards.

    It comes in the host's memory: together the tensors of a checkpoint are what no accelerator could hold.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    found: Tensor = tensor.full_tensor()
    return found.cpu() if ranks.leads() else found.new_empty(0)


def like(whole_tensor: Tensor, sharded: Tensor) -> Tensor:
    """Cut a whole tensor as `sharded` is; all processes must ask."""
    if not isinstance(sharded, DTensor) or whole_tensor.shape != sharded.shape:
        return whole_tensor
    return distribute_tensor(whole_tensor.to(sharded.device), sharded.device_mesh, sharded.placements)


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> float:
    """Scale gradients, sharded and whole ones, to a joint norm of at most `most`; the norm they had."""
    every = list(parameters)
    grads = [parameter.grad for parameter in every if parameter.grad is not None]
    parts = [grad.to_local().square().sum() for grad in grads if isinstance(grad, DTensor)]
    if not parts:
        total = nn.utils.get_total_norm(grads)
        norm = float(total)
        if not norm + 1e-6 <= most:  # clipping multiplies by 1 up to there: a pass over all weights for nothing
            nn.utils.clip_grads_with_norm_(every, most, total)
        return norm
    squares = distributed.added(torch.stack(parts).sum())
    squares = squares + sum(grad.square().sum() for grad in grads if not isinstance(grad, DTensor))
    norm = float(squares.sqrt())
    if norm > most:
        for grad in grads:
            grad.mul_(most / (norm + 1e-6))
    return norm
