"""Supervised updates of one model: schedule, optimizer, checkpoints, metrics and progress, the same for every job.

A job hands over `learn(batch, mine)`: it runs forward and backward over the examples `mine` of the update's `batch` (this
process's part; with one process they are equal) and returns numbers. Gradients and numbers are shares of the whole batch's
mean, so that those of several processes add up to it.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from training.config.fitting import FitConfig
from training.failure import JobFailed
from training.models import lora
from training.models.checkpoint import (
    first_unsound,
    module_tensors,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
)
from training.processes import distributed, ranks
from training.processes.device import device_of_choice
from training.processes.sharding import Level, clip_gradients, learning, shard, whole
from training.runs.cadence import Cadence
from training.runs.progress import Bar
from training.runs.run_folder import Checkpoint, RunFolder

Learn = Callable[[list[int], list[int]], Mapping[str, float]]


def chosen_learning_rate(config: FitConfig, width: int) -> float:
    """Return the configured rate, or one from the width: 1e-3 at 128, falling with its square, never under 1e-5.

    Adapters learn at about ten times the rate of full weights.
    """
    if config.learning_rate:
        return config.learning_rate
    rate = min(1e-3, max(1e-5, 1e-3 * (128 / width) ** 2))
    return min(2e-3, 10 * rate) if config.lora_rank else rate


def rate_share(step: int, updates: int, config: FitConfig) -> float:
    """Return the share of the learning rate at update `step` (from 1): linear warm-up, then down to `final_share`."""
    warm = max(1, round(config.warmup_share * updates))
    if step <= warm:
        return step / warm
    if config.schedule == "constant":
        return 1.0
    # a last update at rate 0 would learn nothing: 0 would be that of the one after it
    gone = (step - warm) / max(1, updates - warm + (config.final_share == 0))
    left = 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
    return config.final_share + (1 - config.final_share) * left


class Watch:
    """What a job looks at between updates, and what a checkpoint keeps of it; this one looks at nothing."""

    def reads_model(self, step: int) -> bool:  # noqa: ARG002 (a job needs it)
        """Whether `look` reads the model after update `step`, so that one in shards must be gathered for it."""
        return False

    def look(self, step: int, numbers: Mapping[str, float]) -> Mapping[str, float]:  # noqa: ARG002 (a job needs them)
        """Return what is logged beside the `numbers` of update `step`, which is done."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what a resume needs, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; {} at a fresh start."""

    def settle(self) -> None:
        """The present state is in the checkpoint: what only an earlier one needed may go."""


def draw_of(seed: int, step: int) -> int:
    """A seed for what is dropped in update `step` by this process."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {ranks.rank()}".encode()).digest()[:7])


class Fit:
    """The updates of one run; `step` counts those that are done."""

    def __init__(
        self,
        folder: RunFolder,
        config: FitConfig,
        model: nn.Module,
        batches: Sequence[list[int]],
        learn: Learn,
        *,
        title: str,
        rate: float,
        began: float,
        watch: Watch | None = None,
        named: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        """`title` names the bar, `rate` is the full learning rate, `began` is time.monotonic() at the process's start.

        `named` says in words which examples have these numbers.
        """
        self.folder, self.config, self.model, self.batches, self.learn = folder, config, model, batches, learn
        self.title, self.learning_rate, self.began = title, rate, began
        self.watch = watch or Watch()
        self.named = named or (lambda numbers: f"examples {', '.join(map(str, numbers[:4]))}, …")
        self.step = 0
        self.earlier_seconds = 0.0  # of processes before this one
        self.same: dict[str, int] = {}
        self.level: Level | None = None
        if ranks.size() > 1:
            self.same["weights"] = distributed.exact_sum(model)
            if config.sharding == "full":
                self.level = shard(model, device_of_choice())
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=rate, betas=(0.9, config.adam_beta2), eps=config.adam_eps,
            fused=self.level is None, foreach=False if self.level else None,  # neither takes shards and whole weights together
        )  # fmt: skip

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Go back to where the checkpoint was written; None is a fresh start."""
        self.watch.restore({} if checkpoint is None else checkpoint.state.get("watch", {}))
        if checkpoint is None:
            return
        restore_module(self.model, "model", checkpoint.tensors)
        restore_optimizer(self.optimizer, "adam", checkpoint.tensors)
        self.step = checkpoint.step
        self.earlier_seconds = checkpoint.state["seconds"]

    def seconds(self) -> float:
        """Return the seconds this run has taken, all its processes together."""
        return self.earlier_seconds + time.monotonic() - self.began

    @contextmanager
    def done(self) -> Iterator[None]:
        """Do the updates that are left; inside, the model is whole: what comes after them knows nothing of shards."""
        self._run()
        with self._whole():
            yield

    def _run(self) -> None:
        """Do the updates with a checkpoint now and then and one at the end."""
        config = self.config
        cadence = Cadence(config.checkpoint_seconds, config.checkpoint_steps, together=self.level is not None)
        self._agree()
        with Bar(self.title, len(self.batches)) as bar:
            while self.step < len(self.batches):
                batch = self.batches[self.step]
                numbers = self.update(batch)
                self.step += 1
                looks = self.watch.reads_model(self.step)
                if looks:
                    self.try_out(batch)
                with self._whole() if looks else nullcontext():
                    numbers |= self.watch.look(self.step, numbers)
                self._refuse(numbers, batch)
                self.folder.log(step=self.step, of=len(self.batches), **numbers, seconds=round(self.seconds(), 3))
                bar.at(self.step, f"loss {numbers['loss']:.3f}")
                if cadence.due(self.step, len(self.batches)):
                    with cadence.saving():
                        if not looks:
                            self.try_out(batch)
                        self.save()
        distributed.barrier()  # metrics and checkpoint are whole before another process reads them

    def _whole(self) -> AbstractContextManager[None]:
        """All weights on every process, for what reads the model."""
        return whole(self.model) if self.level is not None else nullcontext()

    def _agree(self) -> None:
        """Stop when the processes of this run did not begin with the same."""
        if ranks.size() == 1:
            return
        begin = {"steps done": self.step, "updates": len(self.batches)} | self.same
        other = distributed.differing(begin)
        if other:
            raise JobFailed(f"the processes of this run disagree on their {other}; give all the same folder and model")

    def save(self) -> None:
        """Write the checkpoint of this step."""
        tensors = module_tensors(self.model, "model") | optimizer_tensors(self.optimizer, "adam")
        self.folder.save_checkpoint(self.step, tensors, {"seconds": self.seconds(), "watch": self.watch.state()})
        self.watch.settle()

    def try_out(self, batch: list[int]) -> None:
        """Stop before weights that make no numbers are kept: JobFailed where one, or what an example says of them, is not finite.

        The loss of an update is that of the weights before it. What a process finds here it finds alone.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with learning(self.level):
            found = dict(self.learn(batch, batch[:1]))
        self.optimizer.zero_grad(set_to_none=True)
        unsound = first_unsound(self.model)
        self._refuse(found if unsound is None else {unsound: math.nan}, batch)

    def _refuse(self, numbers: Mapping[str, float], batch: list[int], during: int | None = None) -> None:
        """JobFailed where a number is not finite: of update `during`, or of the weights that the last one made."""
        wrong = [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
        if not wrong:
            return
        when = f"after step {self.step}" if during is None else f"at step {during}"
        raise JobFailed(
            f"{wrong[0]} {when} ({self.named(batch)}); "
            f"{'the last checkpoint is kept; ' if self.folder.checkpoint.exists() else ''}lower learning_rate and start "
            "a new folder",
        )

    def update(self, batch: list[int]) -> dict[str, float]:
        """Do one update on the examples of these numbers and return what is worth logging."""
        rate = self.learning_rate * rate_share(self.step + 1, len(self.batches), self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        mine = distributed.share(batch)
        with lora.dropping(self.model, draw_of(self.config.seed, self.step)), learning(self.level):
            said = self.learn(batch, mine) if mine else {}
        numbers = distributed.summed(said)
        distributed.add_gradients(self.model.parameters())
        norm = clip_gradients(self.model.parameters(), self.config.max_grad_norm)
        self._refuse(numbers | {"the gradient norm": norm}, batch, self.step + 1)
        self.optimizer.step()
        return numbers | {"learning_rate": rate, "grad_norm": norm}
