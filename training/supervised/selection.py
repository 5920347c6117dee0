"""Which of a run's models is kept: the one whose replies a preference model likes best, or that of the least held-out loss.

The loss on held-out demonstrations is at its best after about one epoch, while the preference model's score of the replies,
and people's opinion of them, go on rising (Ouyang et al. 2022 §3.5, C.1): so the score decides where there is one.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.prompts import Prompt
from training.models.models import PreferenceModel
from training.processes import ranks
from training.sampling.rollouts import Occasion, reply_seeds
from training.sampling.variants import Policy, Sampling, scores
from training.supervised.pace import Pace


class Selection(Pace):
    """Looks at the model after the updates `looks`; the best so far lies in `folder`, in a directory named by its step.

    `held_out_loss` is None where nothing is held out; without a preference model the loss decides, without both the last
    model is kept and nothing lies in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        looks: Sequence[int],
        held_out_loss: Callable[[], float] | None,
        pm: PreferenceModel | None,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        sampling: Sampling,
    ) -> None:
        super().__init__()
        self.folder, self.policy, self.looks = folder, policy, frozenset(looks)
        self.held_out_loss, self.pm = held_out_loss, pm
        self.prompts, self.seed, self.sampling = list(prompts), seed, sampling
        self.by = "score" if pm is not None and prompts else "held_out_loss" if held_out_loss else "last"
        self.found: list[dict[str, float]] = []  # one look each
        self.best: dict[str, float] | None = None

    def reads_model(self, step: int) -> bool:
        """At each look, where anything chooses."""
        return step in self.looks and self.by != "last"

    def see(self, step: int, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """Return the perplexity of every update, and what a look found."""
        more = {"perplexity": math.exp(min(numbers["loss"], 700.0))}
        if self.reads_model(step):
            more |= self._look(step)
        return more

    def _look(self, step: int) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.held_out_loss is not None:
            found["held_out_loss"] = self.held_out_loss()
        if self.pm is not None and self.prompts:
            self.policy.refresh()
            seeds = reply_seeds(self.seed, Occasion.LOOKS, len(self.prompts))
            replies = self.policy.reply(self.prompts, seeds, self.sampling)
            said = scores(self.pm, self.policy.tokenizer, self.prompts, replies)
            found["score"] = float(said.double().mean())
            found["length_mean"] = float(replies.generated.mask.sum(1).double().mean())
            found["eos_share"] = float(replies.generated.ended.double().mean())
        self.found.append({"step": step, **found})
        if self.best is None or self._worth(found) > self._worth(self.best):
            self.best = self.found[-1]
            if ranks.leads():
                shutil.rmtree(self.kept, ignore_errors=True)  # of a start that was killed before its checkpoint
                self.kept.mkdir(parents=True)
                self.policy.save(self.kept)
        return found

    def _worth(self, found: Mapping[str, float]) -> float:
        return found["score"] if self.by == "score" else -found["held_out_loss"]

    @property
    def kept(self) -> Path:
        """Where the best model so far lies."""
        assert self.best is not None
        return self.folder / f"step-{self.best['step']}"

    def state(self) -> dict[str, Any]:
        """What was found so far; the best is one of it."""
        return {"found": self.found, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; models of looks that the checkpoint does not know of are dropped."""
        self.found = list(state.get("found", []))
        self.best = state.get("best")
        self.settle()

    def settle(self) -> None:
        """Drop the models that were the best once."""
        if not ranks.leads() or not self.folder.exists():
            return
        for other in self.folder.iterdir():
            if self.best is None or other != self.kept:
                shutil.rmtree(other)
