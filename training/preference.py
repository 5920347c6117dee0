"""Train a preference model: `python -m training.preference FOLDER [--model DIR]`.

One pass over the comparisons with L = -log σ(r_chosen - r_rejected) (Bai et al. 2022 §2), then an honest look at held-out
ones. Killed at any moment and started again, it goes on from the last checkpoint to the same numbers.
"""

import argparse
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
from training.config import PreferenceConfig
from training.fitting import Fit, chosen_learning_rate
from training.job import JobFailed, run_job
from training.models import PreferenceModel
from training.objective import preference_loss
from training.prompts import evenly
from training.reading import Reader
from training.records import Comparison, read_comparisons, split
from training.report import report
from training.run_folder import RunFolder

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
    batches = [
        batch for epoch in range(config.epochs) for batch in order(len(pairs), config.batch_pairs, config.seed, epoch)
    ]
    fit = Fit(
        folder, config, model, batches, Lesson(reader, pairs, config.lm_weight),
        title="preference model", rate=chosen_learning_rate(config, model.width), began=began,
    )  # fmt: skip
    fit.resume(folder.load_checkpoint())
    fit.run()
    model.shift, model.scale = normalisation(reader, pairs)
    tested = reader.scores_of(test_pairs)
    result = report(test_pairs, tested, config.calibration_bins) | {
        "pairs": len(pairs),
        "dropped": {"train": dict(dropped), "test": dict(test_dropped)},
        "shortened": {"train": shortened, "test": test_shortened},
        "online_accuracy": online_accuracy(folder, batches, config.epochs),
        "shift": model.shift,
        "scale": model.scale,
        "learning_rate": fit.learning_rate,
        "updates": len(batches),
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


class Lesson:
    """What one update learns from its pairs; Fit's `learn`."""

    def __init__(self, reader: Reader, pairs: Sequence[Pair], lm_weight: float) -> None:
        self.reader, self.pairs, self.lm_weight = reader, pairs, lm_weight

    def __call__(self, batch: list[int], mine: list[int]) -> dict[str, float]:
        """Backward over the pairs `mine`, weighted as parts of `batch`."""
        count, words = len(batch), sum(len(self.pairs[number].chosen) for number in batch)
        margins: list[Tensor] = []
        loss = words_loss = 0.0
        for part in by_length([self.pairs[number] for number in mine], self.reader.budget):
            read = self.reader.read(part, words=self.lm_weight > 0)
            part_loss = preference_loss(read.chosen, read.rejected) * (len(part) / count)
            total = part_loss
            if read.words_loss is not None:
                total = total + self.lm_weight * read.words_loss / words
                words_loss += float(read.words_loss.detach()) / words
            total.backward()
            loss += float(part_loss.detach())
            margins.append((read.chosen - read.rejected).detach())
        margin = torch.cat(margins)
        share = len(margin) / count
        numbers = {"loss": loss, "accuracy": accuracy(margin.tolist()) * share, "margin": float(margin.mean()) * share}
        return numbers | ({"words_loss": words_loss} if self.lm_weight else {})


def online_accuracy(folder: RunFolder, batches: Sequence[list[int]], epochs: int) -> float:
    """Return the share of pairs in the last half of the first epoch that were told right before being learnt."""
    first_epoch = range(len(batches) // epochs)
    late = first_epoch[len(first_epoch) // 2 :]
    logged = folder.metrics()
    told = sum(logged[step]["accuracy"] * len(batches[step]) for step in late)
    return float(told / sum(len(batches[step]) for step in late))


if __name__ == "__main__":
    sys.exit(main())
