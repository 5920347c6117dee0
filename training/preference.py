"""Train a preference model: `python -m training.preference FOLDER [--model DIR]`.

One pass over the comparisons with L = -log σ(r_chosen - r_rejected) (Bai et al. 2022 §2), then an honest look at held-out
ones. Killed at any moment and started again, it goes on from the last checkpoint to the same numbers.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.batches import Pair, by_length, order, tokenised
from training.calibration import accuracy
from training.checkpoint import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from training.config import PreferenceConfig
from training.job import JobFailed, run_job
from training.models import PreferenceModel
from training.objective import preference_loss
from training.progress import Bar
from training.prompts import evenly
from training.reading import Reader
from training.records import Comparison, read_comparisons, split
from training.report import report
from training.run_folder import Checkpoint, RunFolder

NORMALISING_PAIRS = 256  # pairs whose replies give the scores their mean and spread: a standard error of 1/√512 < 5%


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the job; the exit code is run_job's."""
    parser = argparse.ArgumentParser(
        prog="python -m training.preference",
        description="Train a preference model.",
        epilog="Example: whetstone train preference my-pm --model training/starter/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/train.jsonl")
    parser.add_argument("--model", help="policy directory to start from, in place of the one in config.json")
    parser.add_argument("--seed", type=int, help="in place of the one in config.json")
    given = parser.parse_args(arguments)

    def work(folder: RunFolder) -> dict[str, Any]:
        return train(folder, folder.configure(PreferenceConfig, "preference", model=given.model, seed=given.seed))

    return run_job(given.folder, work)


def train(folder: RunFolder, config: PreferenceConfig) -> dict[str, Any]:
    """Do the run and return its result; model/ is written before."""
    if not config.model:
        raise JobFailed('no model is named: set "model" in config.json or give --model DIR')
    if config.epochs > 1:
        print(f"warning: {config.epochs} epochs; preference models learn pairs by heart after one", file=sys.stderr)
    if config.threads:
        torch.set_num_threads(config.threads)
    began = time.monotonic()
    comparisons, held_out = read_data(folder, config)
    model, tokenizer = PreferenceModel.from_policy(config.model, seed=config.seed, words=config.lm_weight > 0)
    reader = Reader(model, pad=int(tokenizer.pad_token_id), precision=config.precision)
    limit = config.max_tokens or reader.context
    usable = {"max_tokens": min(limit, reader.context), "weakest_strength": config.weakest_strength}
    pairs, dropped, shortened = tokenised(comparisons, tokenizer, **usable)
    test_pairs, test_dropped, test_shortened = tokenised(held_out, tokenizer, **usable)
    if not pairs:
        raise JobFailed(f"none of the {len(comparisons)} comparisons can be learnt from: {reasons(dropped)}")
    by_size = sorted(pairs[:64], key=lambda pair: pair.tokens)
    reader.self_check(by_size[:2] + by_size[2:][-2:])  # of unlike lengths: equal ones need no padding
    fit = Fit(folder, config, model, reader, pairs, began)
    fit.resume(folder.load_checkpoint())
    fit.run()
    model.shift, model.scale = normalisation(reader, pairs)
    tested = reader.scores_of(test_pairs)
    result = report(test_pairs, tested, config.calibration_bins) | {
        "pairs": len(pairs),
        "dropped": {"train": dict(dropped), "test": dict(test_dropped)},
        "shortened": {"train": shortened, "test": test_shortened},
        "online_accuracy": fit.online_accuracy(),
        "shift": model.shift,
        "scale": model.scale,
        "learning_rate": fit.learning_rate,
        "updates": len(fit.batches),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "prompt_shared": reader.shared,
        "seconds": round(fit.seconds(), 2),
    }
    keys = ("accuracy", "accuracy_ci95", "log_loss", "calibration_error", "pairs", "test_pairs")
    provenance = {key: result[key] for key in keys} | {
        "seed": config.seed,
        "started_from": Path(config.model).name,
        "code_version": folder.settings()["code_version"],
    }
    folder.write_model(lambda part: model.save(part, tokenizer, **provenance))
    return result


def read_data(folder: RunFolder, config: PreferenceConfig) -> tuple[list[Comparison], list[Comparison]]:
    """Return (train, test) comparisons; without a test file a share of the conversations is held out."""
    found = {
        name: [file for file in (folder.data / f"{name}.jsonl", folder.data / f"{name}.jsonl.gz") if file.exists()]
        for name in ("train", "test")
    }
    if not found["train"]:
        raise JobFailed(f"{folder.data / 'train.jsonl'} is missing; write one comparison a line into it")
    for name, kept in found.items():
        if len(kept) > 1:
            raise JobFailed(f"both {name}.jsonl and {name}.jsonl.gz are in {folder.data}; remove one")
    everything = list(read_comparisons(found["train"][0]))
    if not everything:
        raise JobFailed(f"{found['train'][0]} holds no comparison")
    if found["test"]:
        return everything, list(read_comparisons(found["test"][0]))
    return split(everything, config.held_out)


def reasons(dropped: Counter[str]) -> str:
    """Say in words what was left out and why."""
    words = {
        "weakest": "of the weakest strength",
        "over_long": "longer than the model can read",
        "same_tokens": "with equal sides once tokenised",
    }
    return ", ".join(f"{count} {words[reason]}" for reason, count in dropped.items())


def chosen_learning_rate(config: PreferenceConfig, width: int) -> float:
    """Return the configured rate, or one from the width: 1e-3 at 128, falling with its square, never under 1e-5."""
    return config.learning_rate or min(1e-3, max(1e-5, 1e-3 * (128 / width) ** 2))


def rate_share(step: int, updates: int, config: PreferenceConfig) -> float:
    """Return the share of the learning rate at update `step` (from 1): linear warm-up, then down to `final_share`."""
    warm = max(1, round(config.warmup_share * updates))
    if step <= warm:
        return step / warm
    if config.schedule == "constant":
        return 1.0
    gone = (step - warm) / max(1, updates - warm)
    left = 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
    return config.final_share + (1 - config.final_share) * left


def normalisation(reader: Reader, pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return mean and standard deviation of the raw scores of replies from training, both sides of each pair.

    The pairs are taken at even distances: the first ones of a file may all be of one campaign or one round.
    """
    chosen, rejected = reader.scores_of(evenly(pairs, NORMALISING_PAIRS))
    scores = torch.tensor(chosen + rejected, dtype=torch.float64)
    spread = float(scores.std(correction=0))
    if not spread > 0:
        raise JobFailed("the preference model gives every reply the same score; train it on more or other comparisons")
    return float(scores.mean()), spread


@dataclasses.dataclass
class Fit:
    """The updates of one run; `step` counts those that are done."""

    folder: RunFolder
    config: PreferenceConfig
    model: PreferenceModel
    reader: Reader
    pairs: list[Pair]
    began: float  # time.monotonic() at the start of this process
    step: int = 0
    earlier_seconds: float = 0.0  # of processes before this one

    def __post_init__(self) -> None:
        config = self.config
        self.batches = [
            batch
            for epoch in range(config.epochs)
            for batch in order(len(self.pairs), config.batch_pairs, config.seed, epoch)
        ]
        self.learning_rate = chosen_learning_rate(config, self.model.width)
        matrices = [parameter for parameter in self.model.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in self.model.parameters() if parameter.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=self.learning_rate, betas=(0.9, config.adam_beta2), eps=config.adam_eps, fused=True
        )

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Go back to where the checkpoint was written; None is a fresh start."""
        if checkpoint is None:
            return
        restore_module(self.model, "model", checkpoint.tensors)
        restore_optimizer(self.optimizer, "adam", checkpoint.tensors)
        self.step = checkpoint.step
        self.earlier_seconds = checkpoint.state["seconds"]

    def seconds(self) -> float:
        """Return the seconds this run has taken, all its processes together."""
        return self.earlier_seconds + time.monotonic() - self.began

    def run(self) -> None:
        """Do the updates that are left, with a checkpoint now and then and one at the end."""
        saved_at, saved_step = time.monotonic(), self.step
        with Bar("preference model", len(self.batches)) as bar:
            while self.step < len(self.batches):
                numbers = self.update(self.batches[self.step])
                self.step += 1
                self.folder.log(step=self.step, of=len(self.batches), **numbers, seconds=round(self.seconds(), 3))
                bar.at(self.step, f"loss {numbers['loss']:.3f}")
                every = self.config.checkpoint_steps
                waited = time.monotonic() - saved_at > self.config.checkpoint_seconds
                if (self.step - saved_step >= every if every else waited) or self.step == len(self.batches):
                    self.save()
                    saved_at, saved_step = time.monotonic(), self.step

    def save(self) -> None:
        """Write the checkpoint of this step."""
        tensors = module_tensors(self.model, "model") | optimizer_tensors(self.optimizer, "adam")
        self.folder.save_checkpoint(self.step, tensors, {"seconds": self.seconds()})

    def update(self, batch: list[int]) -> dict[str, float]:
        """Do one update on the pairs of these numbers and return what is worth logging."""
        pairs = [self.pairs[number] for number in batch]
        rate = self.learning_rate * rate_share(self.step + 1, len(self.batches), self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        margins: list[Tensor] = []
        loss, words_loss = 0.0, 0.0
        words = sum(len(pair.chosen) for pair in pairs)
        for part in by_length(pairs, self.reader.budget):
            read = self.reader.read(part, words=self.config.lm_weight > 0)
            part_loss = preference_loss(read.chosen, read.rejected) * (len(part) / len(pairs))
            total = part_loss
            if read.words_loss is not None:
                total = total + self.config.lm_weight * read.words_loss / words
                words_loss += float(read.words_loss.detach()) / words
            total.backward()
            loss += float(part_loss.detach())
            margins.append((read.chosen - read.rejected).detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(words_loss) and math.isfinite(norm)):
            raise JobFailed(
                f"loss {loss}, gradient norm {norm} at step {self.step + 1} (pairs {', '.join(map(str, batch[:4]))}, …); "
                "the last checkpoint is kept; lower learning_rate and start a new folder",
            )
        self.optimizer.step()
        margin = torch.cat(margins)
        numbers = {
            "loss": loss,
            "accuracy": accuracy(margin.tolist()),
            "margin": float(margin.mean()),
            "learning_rate": rate,
            "grad_norm": norm,
        }
        return numbers | ({"words_loss": words_loss} if self.config.lm_weight else {})

    def online_accuracy(self) -> float:
        """Return the share of pairs in the last half of the first epoch that were told right before being learnt."""
        first_epoch = range(len(self.batches) // self.config.epochs)
        late = first_epoch[len(first_epoch) // 2 :]
        logged = self.folder.metrics()
        told = sum(logged[step]["accuracy"] * len(self.batches[step]) for step in late)
        return float(told / sum(len(self.batches[step]) for step in late))


if __name__ == "__main__":
    sys.exit(main())
