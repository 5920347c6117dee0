"""Train a preference model: `python -m training.preference FOLDER [--model DIR] [--preset NAME]`.

One pass over comparisons, rankings or marked replies with the objective of the settings, by default
L = -log σ(r_chosen - r_rejected) (Bai et al. 2022 §2), then an honest look at held-out ones. Killed at any moment and
started again, it goes on from the last checkpoint to the same numbers.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.config import PreferenceConfig
from training.config.preference import PRESETS
from training.data.batches import LEFT_OUT, Ranked, Tokenised, learnt_of, order, tokenised, weighted
from training.data.feedback import Feedback, read_data, read_demonstrated, read_experts
from training.data.one_sided import refuse_one_sided
from training.data.prompts import evenly
from training.failure import JobFailed
from training.job import run_command, start
from training.measuring.report import binary_report, report
from training.models import lora
from training.models.models import PreferenceModel
from training.models.snapshots import check_snapshot, load_policy, save_policy
from training.processes import ranks
from training.reading.reading import Reader
from training.runs.run_folder import RunFolder
from training.runs.telling import lines_named, reasons, tell_left_out, tell_shared
from training.supervised.fitting import Fit, chosen_learning_rate
from training.supervised.lesson import Lesson
from training.trunk.recomputing import recompute

NORMALISING_PROMPTS = (
    256  # prompts whose replies give the scores their mean and spread: a standard error of 1/√512 < 5%
)
STAGE_SHARE = {"pmp": 0.1, "finetune": 0.01}  # of the pretraining rate (Bai et al. 2022, App. A.2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the job; the exit code is run_job's."""
    parser = argparse.ArgumentParser(
        prog="python -m training.preference",
        description="Train a preference model.",
        epilog="Example: whetstone train preference my-pm --model training/starter/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/train.jsonl")
    parser.add_argument("--model", help="policy or preference model to start from, in place of the one in config.json")
    parser.add_argument("--preset", choices=list(PRESETS), help="settings of a paper by name")
    parser.add_argument("--seed", type=int, help="in place of the one in config.json")
    return run_command("preference", parser, arguments, lambda folder, given: train(folder, settings_of(folder, given)))


def settings_of(folder: RunFolder, given: Mapping[str, Any]) -> PreferenceConfig:
    """config.json and the command line over the preset over the defaults; written back complete."""
    return start(folder, PreferenceConfig, "preference", given, "model", presets=PRESETS)


class Start(NamedTuple):
    """What a run begins with; `causal` is the policy that imitation trains and saves."""

    model: PreferenceModel
    tokenizer: PreTrainedTokenizerBase
    causal: PreTrainedModel | None


def started(config: PreferenceConfig) -> Start:
    """Load the policy or the preference model of an earlier stage that the run starts from."""
    words = config.lm_weight > 0
    kind = check_snapshot(config.model, verify=False).kind  # loading verifies
    if config.objective == "imitation":
        if kind != "policy":
            raise JobFailed(f"imitation trains a policy and {config.model} holds a {kind}; name a policy")
        causal, tokenizer = load_policy(config.model)
        model = PreferenceModel.on(causal, seed=config.seed, words=True)
        return Start(model, tokenizer, causal)
    if kind == "policy":
        return Start(*PreferenceModel.from_policy(config.model, seed=config.seed, words=words), causal=None)
    model, tokenizer = PreferenceModel.load(config.model, words=words)
    if config.start_head == "renew":
        model.renew_head(config.seed)
    return Start(model, tokenizer, None)


def train(folder: RunFolder, config: PreferenceConfig) -> dict[str, Any]:
    """Do the run and return its result; model/ is written before."""
    if config.epochs > 1:
        print(f"warning: {config.epochs} epochs; preference models learn pairs by heart after one", file=sys.stderr)
    began = time.monotonic()
    parts = read_data(folder, config)
    if config.shift_on == "demonstrations":
        read_demonstrated(folder)  # what is wrong with it is said now, not when the training is over
    start = started(config)
    if config.lora_rank:
        lora.adapt(start.model, start.causal or start.model.backbone, config, config.seed)
    if config.gradient_checkpointing:
        recompute(start.model.backbone)
    start.model.head.weight.requires_grad_(start.causal is None)
    # in a difference of scores the bias drops out; what is left of its gradient is rounding, which Adam makes steps of
    start.model.head.bias.requires_grad_(config.objective == "binary")
    reader = Reader(start.model, pad=int(start.tokenizer.pad_token_id), precision=config.precision)
    told = [in_tokens(part, start.tokenizer, reader, config) for part in (*parts, read_experts(folder, config))]
    trained, test, in_group, experts = told
    learnt = learnt_of(trained.ranked, config.objective, config.grouping)
    trained.dropped.update(learnt.dropped)
    elements = learnt.elements
    if not elements:
        why = reasons(trained.dropped, LEFT_OUT) or "the training part is empty"
        raise JobFailed(f"none of the {len(parts.train)} comparisons can be learnt from: {why}")
    tagged = config.stage == "pmp" and config.pmp_pairs == "binarised"
    refuse_one_sided(elements, config.objective, parts.train if tagged else ())
    if config.shift_on == "held_out" and not test.ranked:
        raise JobFailed("shift_on is 'held_out' and nothing was held out; add data/test.jsonl or raise held_out")
    used = {"train": trained, "test": test} | ({"experts": experts} if experts.ranked or experts.dropped else {})
    for name, part in used.items():
        tell_left_out(f"{name} data", part.dropped, part.shortened, LEFT_OUT)
    if not test.ranked and ranks.leads():
        print(
            "warning: no comparison is held out, so no accuracy is measured; give data/test.jsonl comparisons, or raise held_out",
            file=sys.stderr,
        )
    shared = tell_shared(parts.train, parts.test)
    unknown = sorted(set(config.mode_weights) - {str(element.mode) for element in elements})
    if unknown and ranks.leads():
        print(f"warning: mode_weights names {', '.join(unknown)}, a mode that nothing in the data has", file=sys.stderr)
    elements = weighted(elements, config.mode_weights)
    by_size = sorted(trained.ranked[:64], key=lambda ranked: ranked.tokens)
    reader.self_check(by_size[:2] + by_size[2:][-2:])  # of unlike lengths: equal ones need no padding
    size = max(1, round(config.batch_prompts * len(elements) / learnt.prompts))
    batches = [batch for epoch in range(config.epochs) for batch in order(len(elements), size, config.seed, epoch)]
    fit = Fit(
        folder, config, start.model, batches, Lesson(reader, elements, config),
        title="preference model", rate=learning_rate(config, start.model.width), began=began,
        named=lambda numbers: lines_named(elements[number].line for number in numbers),
    )  # fmt: skip
    fit.resume(folder.load_checkpoint())
    with fit.done():
        if config.objective != "imitation":
            normalise(folder, reader, config, start.tokenizer, told)
        result = measured(reader, config, test.ranked, {"in_group": in_group.ranked, "experts": experts.ranked}) | {
            "prompts": learnt.prompts,
            "pairs": sum(len(ranked.pairs) for ranked in trained.ranked),
            "shared_conversations": shared,
            "dropped": {name: dict(part.dropped) for name, part in used.items()},
            "shortened": {name: part.shortened for name, part in used.items()},
            "online_accuracy": online_accuracy(folder, batches, config.epochs),
            "learning_rate": fit.learning_rate,
            "updates": len(batches),
            **lora.sizes(start.model),
            "prompt_shared": reader.shared,
            "seconds": round(fit.seconds(), 2),
        }
        # matplotlib is loaded once there is something to draw
        from training.measuring.reliability import draw_reliability

        draw_reliability(folder.path / "calibration", result["calibration_bins"])
        save(folder, config, start, result)
    return result


def in_tokens(
    records: Sequence[Feedback], tokenizer: PreTrainedTokenizerBase, reader: Reader, config: PreferenceConfig
) -> Tokenised:
    """Return the records in tokens by the settings: how long, and what strength means."""
    as_margin = config.strength_as == "margin"
    return tokenised(
        records,
        tokenizer,
        max_tokens=min(config.max_tokens or reader.context, reader.context),
        weakest_strength=0 if as_margin else config.weakest_strength,
        strength_margins=config.strength_margins if as_margin else None,
    )


def learning_rate(config: PreferenceConfig, width: int) -> float:
    """Return the rate that is named, or the stage's share of the pretraining rate, or one from the width."""
    share, chosen = STAGE_SHARE[config.stage], chosen_learning_rate(config, width)
    if config.learning_rate:
        return chosen
    if config.lm_learning_rate:
        return share * config.lm_learning_rate
    if config.preset in {"hh_rlhf", "pmp"} and ranks.leads():
        print(
            f"the preset {config.preset} asks for {share:g} of the rate of pretraining, and lm_learning_rate does not name "
            f"it; the rate is {chosen:g}, by the model's width",
            file=sys.stderr,
        )
    return chosen


def normalise(
    folder: RunFolder,
    reader: Reader,
    config: PreferenceConfig,
    tokenizer: PreTrainedTokenizerBase,
    told: Sequence[Tokenised],
) -> None:
    """Give the model the shift and scale of its scores.

    The scale is 1 or, as `scale` says, the deviation over replies from training, all of each prompt; the mean is theirs or that of the replies
    that `shift_on` names. Prompts are taken at even distances: the first ones of a file may all be of one campaign.
    """
    scores = flat(reader, evenly(told[0].ranked, NORMALISING_PROMPTS))
    spread = float(scores.std(correction=0))
    if not spread > 0:
        raise JobFailed("the preference model gives every reply the same score; train it on more or other comparisons")
    if config.shift_on == "held_out":
        scores = flat(reader, told[1].ranked)
    elif config.shift_on == "demonstrations":
        shown = in_tokens(read_demonstrated(folder), tokenizer, reader, config)
        if not shown.ranked:
            why = reasons(shown.dropped, LEFT_OUT) or "the file is empty"
            raise JobFailed(f"no demonstration can be read: {why}")
        scores = flat(reader, shown.ranked)
    reader.model.shift, reader.model.scale = float(scores.mean()), spread if config.scale == "deviation" else 1.0


def flat(reader: Reader, ranked: Sequence[Ranked]) -> torch.Tensor:
    """Return the raw scores of all replies of all prompts.  -> [M]"""
    return torch.tensor([score for scores in reader.scores_of(ranked) for score in scores], dtype=torch.float64)


def measured(
    reader: Reader, config: PreferenceConfig, test: Sequence[Ranked], beside: Mapping[str, Sequence[Ranked]]
) -> dict[str, Any]:
    """Return what held-out replies say, and those `beside` by name: by scores, or for imitation by the mean log p of each reply."""
    imitation = config.objective == "imitation"
    model = reader.model
    found = reader.log_probs_of if imitation else reader.scores_of
    scores = found(test)
    how: dict[str, Any] = {"bands": config.margin_bands, "odds": not imitation}
    how |= {} if imitation else {"shift": model.shift, "scale": model.scale}
    result = report(test, scores, config.calibration_bins, **how)
    if not imitation:
        result |= {"shift": model.shift, "scale": model.scale}
    if config.objective == "binary":
        alone = learnt_of(test, "binary", "pooled").elements
        result |= binary_report(alone, [score for (score,) in reader.scores_of(alone)])
    for name, some in beside.items():
        if some:
            known = report(some, found(some), config.calibration_bins, **how)
            result[name] = {key: known[key] for key in ("test_pairs", "accuracy", "accuracy_ci95", "log_loss")}
    return result


def save(folder: RunFolder, config: PreferenceConfig, start: Start, result: Mapping[str, Any]) -> None:
    """Write model/: a preference model, or after imitation a policy."""
    keys = ("accuracy", "accuracy_ci95", "log_loss", "calibration_error", "pairs", "test_pairs")
    provenance = {key: result[key] for key in keys} | {
        "objective": config.objective,
        "seed": config.seed,
        "started_from": Path(config.model).name,
        "code_version": folder.settings()["code_version"],
    }
    causal = start.causal
    if causal is not None:
        folder.write_model(lambda part: save_policy(part, causal, start.tokenizer, **provenance))
    else:
        folder.write_model(lambda part: start.model.save(part, start.tokenizer, **provenance))


def online_accuracy(folder: RunFolder, batches: Sequence[list[int]], epochs: int) -> float | None:
    """Return the share told right, before being learnt, in the last half of the first epoch; None where none was told."""
    first_epoch = range(len(batches) // epochs)
    late = first_epoch[len(first_epoch) // 2 :]
    logged = folder.metrics()
    if "accuracy" not in logged[0]:
        return None
    told = sum(logged[step]["accuracy"] * len(batches[step]) for step in late)
    return float(told / sum(len(batches[step]) for step in late))


if __name__ == "__main__":
    sys.exit(main())
