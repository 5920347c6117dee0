"""Several policies on the same prompts: replies of each, their scores under one or two preference models, KL from the first."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training import objective
from training.config import BadConfig, FieldConfig
from training.data.prompts import Prompt, evenly, line_of, read_prompts
from training.failure import JobFailed
from training.measuring.contest import mean_ci95
from training.models.context import UNSTATED, context_of
from training.models.models import PreferenceModel
from training.models.snapshots import check_snapshot
from training.processes.device import Precision, device_of_choice, in_half
from training.runs.parts import Parts
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.runs.telling import tell_unfit
from training.sampling.rollouts import Occasion, reply_seeds
from training.sampling.self_checks import check_tokenizers
from training.sampling.variants import Policy, Prefix, Replies, Sampling, answerable, scores


class Judges:
    """Preference models by the name of their score in results: "score", and "test_score" where there is a second one."""

    def __init__(
        self, paths: dict[str, str], policy_tokenizer: PreTrainedTokenizerBase, *, precision: Precision = "float32"
    ) -> None:
        """Empty paths are left out; a model that reads other tokens than the policy writes is refused."""
        self.models: dict[str, PreferenceModel] = {}
        for name, path in paths.items():
            if path:
                pm, tokenizer = PreferenceModel.load(path)
                check_tokenizers(policy_tokenizer, tokenizer, "preference model")
                self.models[name] = pm.to(device_of_choice())
        self.tokenizer, self.precision = policy_tokenizer, precision

    def scores(self, conversations: Sequence[Prompt], replies: Replies) -> dict[str, Tensor]:
        """Return the score of every reply under each.  -> [B] each"""
        return {
            name: scores(
                pm, self.tokenizer, conversations, replies,
                half=in_half(self.precision, pm.head.weight.device, pm.width),
            )
            for name, pm in self.models.items()
        }  # fmt: skip

    def readers(self, new: int) -> list[tuple[Prefix, int]]:
        """How much each can read before a reply of `new` tokens and the end token that a cut one is given."""
        return [(Prefix(), context_of(pm.backbone.config) - new - 1) for pm in self.models.values()]


def fitting(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], readers: Sequence[tuple[Prefix, int]], most: int
) -> tuple[list[Prompt], dict[str, int]]:
    """At most `most` (0: all) prompts that every reader has room for, behind its own prefix, and what was left out.

    "shortened" lose their oldest turns for one of the readers at least; "over_long" do not fit at all. JobFailed when none does.
    """
    found, told = answerable(prompts, [partial(prefix.within, tokenizer, room=room) for prefix, room in readers])
    tell_unfit("prompts", told)
    if not found:
        raise JobFailed("no prompt fits into the context beside a reply; give shorter ones or lower max_new_tokens")
    return evenly(found, most or len(found)), told


def standing(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Means over prompts of one snapshot's numbers by reply, with their intervals."""
    found: dict[str, Any] = {}
    for name in ("score", "test_score", "kl"):
        if name in numbers:
            key = name if name == "kl" else f"{name}_mean"
            found[key], found[f"{key}_ci95"] = mean_ci95(torch.tensor(numbers[name]))
    for name, key in (("kl_k3", "kl_k3"), ("length", "length_mean"), ("eos", "eos_share")):
        found[key] = sum(numbers[name]) / len(numbers[name])
    return found


class Field:
    """The policies of one run; each is measured once and kept as a part."""

    def __init__(self, folder: RunFolder, config: FieldConfig, judges: dict[str, str], least: int) -> None:
        """`judges`: directories of preference models by the name of their score; `least` snapshots are needed."""
        self.folder, self.config, self.paths = folder, config, config.paths()
        self.prompts_file = folder.data / "prompts.jsonl"
        if len(self.paths) < least:
            raise BadConfig(
                f"snapshots needs {least} or more directories, the reference first; {len(self.paths)} given"
            )
        self.prefixes = {name: Prefix.read(file) for name, file in config.prefix_files().items()}
        self.names = list(self.paths)
        self.reference = self.policy(self.names[0])
        self.judges = Judges(judges, self.reference.tokenizer, precision=config.precision)
        self.sampling = Sampling(config.max_new_tokens, config.temperature)
        readers = self.judges.readers(config.max_new_tokens)
        for name, path in self.paths.items():
            context = check_snapshot(path, verify=False).context or UNSTATED
            readers.append((self.prefixes.get(name, Prefix()), context - config.max_new_tokens))
        self.prompts, self.left_out = fitting(
            self.reference.tokenizer, read_prompts(self.prompts_file), readers, config.evaluation_prompts
        )

    def policy(self, name: str) -> Policy:
        """Load a snapshot behind its prefix."""
        config = self.config
        return Policy.load(
            self.paths[name], self.prefixes.get(name), slots=config.slots, precision=config.precision, shared=True
        )

    @cached_property
    def parts(self) -> Parts:
        """What is kept of this run, begun when something is measured: until then its settings may change."""
        return Parts(self.folder, self.config)

    def measure(self, of: int = 0) -> dict[str, dict[str, Any]]:
        """Each snapshot's numbers by reply, in the order of the prompts; those of an earlier try are kept. `of`: all parts of the run."""
        with Bar("snapshots", len(self.names)) as bar:
            found = self.parts.measure(
                self.names,
                self._measured,
                lambda step, _: bar.at(step, self.names[step - 1]),
                whose=self._whose,
                told=lambda name, own: {"snapshot": name} | standing(own) | {"seconds": own["seconds"]},
                of=of,
            )
        return dict(zip(self.names, found, strict=True))

    def _whose(self, name: str, place: int) -> str:
        asked = self.prompts[place]
        return f"snapshot {name} on {line_of(self.prompts_file, lambda prompt: prompt == asked)}"

    @torch.inference_mode()
    def _measured(self, name: str) -> dict[str, Any]:
        began, config = time.monotonic(), self.config
        policy = self.reference if name == self.names[0] else self.policy(name)
        check_tokenizers(self.reference.tokenizer, policy.tokenizer, f"snapshot {name}")
        seeds = reply_seeds(config.seed, Occasion.FIELD + self.names.index(name), len(self.prompts))
        replies = policy.reply(self.prompts, seeds, self.sampling)
        logp = policy.log_probs(self.prompts, replies, config.temperature)
        ref_logp = self.reference.log_probs(self.prompts, replies, config.temperature)
        k1, _, k3 = objective.kl_estimators(logp, ref_logp, replies.generated.mask)
        scored = self.judges.scores(self.prompts, replies)
        return {name: score.tolist() for name, score in scored.items()} | {
            "kl": k1.sum(1).tolist(),
            "kl_k3": k3.sum(1).tolist(),
            "length": replies.generated.mask.sum(1).tolist(),
            "eos": replies.generated.ended.float().tolist(),
            "seconds": time.monotonic() - began,
        }
