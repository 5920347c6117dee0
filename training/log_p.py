"""`python -m training.log_p FOLDER`: does a policy find the better replies likelier? (Bai et al. 2022 App. B.3)

Mean-log-p accuracy: the share of comparisons in which the mean log-probability of a token is higher on the chosen reply. It stays
below a preference model's accuracy, which is shown beside where one is given. Reads data/test.jsonl:
comparisons of any shape, and rankings, with all their pairs.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.config import LogPConfig
from training.data.batches import LEFT_OUT, learnt_of, tokenised
from training.data.feedback import feedback_of
from training.failure import JobFailed
from training.job import run_job
from training.lines.lines import data_file
from training.lines.pmp import Answers
from training.lines.records import read_records
from training.measuring.calibration import accuracy, effective_count, wilson_interval
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy
from training.processes.device import device_of_choice
from training.reading.likelihood import reply_scores, total_log_p
from training.runs.parts import Parts
from training.runs.plots import Series, plot
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.runs.telling import reasons, tell_left_out
from training.sampling.self_checks import check_tokenizers

SCORERS = {"mean_log_p": "mean_log_p_accuracy", "score": "preference_model_accuracy"}


def share_right(margins: Sequence[float], groups: Sequence[str | None]) -> dict[str, Any]:
    """Share of margins above 0, ties half, with its Wilson interval; pairs of one conversation count as what they tell together."""
    share, count = accuracy(margins), effective_count(margins, groups)
    return {"accuracy": share, "accuracy_ci95": list(wilson_interval(share, count)), "pairs": len(margins)}


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.log_p",
        description="Share of comparisons whose chosen reply a policy finds likelier, a token on average.",
        epilog="Example: whetstone train log_p my-check --model my-policy/model --preference-model my-pm/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/test.jsonl")
    parser.add_argument("--model", help="directory of the policy")
    parser.add_argument("--preference-model", help="directory of a preference model to hold it against")
    given = vars(parser.parse_args(arguments))
    return run_job("log_p", given.pop("folder"), lambda folder: _log_p(folder, given), given)


def _log_p(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config, began = folder.configure(LogPConfig, "log_p", **given), time.monotonic()
    file = data_file(folder.data, "test")
    if file is None:
        raise JobFailed(f"{folder.data / 'test.jsonl'} is missing; write comparisons into it, one a line")
    if config.threads:
        torch.set_num_threads(config.threads)
    policy, tokenizer = load_policy(config.model)
    policy.to(device_of_choice())  # type: ignore[arg-type]
    configs, pm = [policy.config], None
    if config.preference_model:
        pm, other = PreferenceModel.load(config.preference_model)
        check_tokenizers(tokenizer, other, "preference model")
        configs.append(pm.to(device_of_choice()).backbone.config)
    room = context_of(*configs)
    records = list(read_records(file, feedback_of))
    if any(isinstance(record, Answers) for record in records):
        raise JobFailed(f"there are lines with 'answers' in {file}; they are for preference-model pretraining")
    ranked, dropped, shortened = tokenised(
        records, tokenizer, max_tokens=room, weakest_strength=config.weakest_strength
    )
    learnt = learnt_of(ranked, "ranked", "pooled")  # each pair of a ranking for itself
    pairs, dropped = learnt.elements, dropped + learnt.dropped
    tell_left_out("comparisons", dropped, shortened, LEFT_OUT)
    if not pairs:
        raise JobFailed(
            f"{file} holds no comparison that can be measured on: {reasons(dropped, LEFT_OUT) or 'it is empty'}"
        )
    left_out = dict.fromkeys(("weakest", "same_tokens", "over_long"), 0) | dropped | {"shortened": shortened}

    def measured(name: str) -> dict[str, list[float]]:
        begin = int(name.split()[1])
        some = pairs[begin : begin + config.batch_comparisons]
        prompts = [pair.prompt for pair in some] * 2
        replies = [pair.replies[side] for side in (0, 1) for pair in some]
        length = torch.tensor([len(reply) for reply in replies], device=policy.device)
        good, bad = (total_log_p(policy, prompts, replies) / length).chunk(2)
        found = {"mean_log_p": (good - bad).tolist()}
        if pm is not None:
            good, bad = reply_scores(pm, prompts, replies, int(tokenizer.eos_token_id)).chunk(2)
            found["score"] = (good - bad).tolist()
        return found

    names = [f"comparisons {begin}" for begin in range(0, len(pairs), config.batch_comparisons)]
    with Bar("comparisons", len(names)) as bar:
        found = Parts(folder, config).measure(
            names,
            measured,
            lambda step, _: bar.at(step),
            whose=lambda name, place: (
                f"the comparison on line {pairs[int(name.split()[1]) + place].line} of {file.name}"
            ),
            told=lambda _, part: (
                {key: accuracy(part[scorer]) for scorer, key in SCORERS.items() if scorer in part}
                | {"pairs": len(part["mean_log_p"])}
            ),
        )
    result: dict[str, Any] = {}
    for scorer, key in SCORERS.items():
        margins = [margin for part in found for margin in part.get(scorer, [])]
        if margins:
            of_mode: dict[str, list[tuple[float, str | None]]] = {}
            for margin, pair in zip(margins, pairs, strict=True):
                of_mode.setdefault(pair.mode or "unknown", []).append((margin, pair.group))
            result[key] = share_right(margins, [pair.group for pair in pairs]) | {
                "by_mode": {mode: share_right(*zip(*of_mode[mode], strict=True)) for mode in sorted(of_mode)}
            }
    _paint(folder, result)
    return result | {"left_out": left_out, "seconds": time.monotonic() - began}


def _paint(folder: RunFolder, result: Mapping[str, Any]) -> None:
    """Draw the accuracy by mode, of the policy and of the preference model."""
    series, modes = [], ["all", *next(iter(result.values()))["by_mode"]]
    for place, (name, told) in enumerate(result.items()):
        rows = [told, *told["by_mode"].values()]
        x = [number + 0.1 * place for number in range(len(modes))]  # beside each other
        low, high = ([row["accuracy_ci95"][side] for row in rows] for side in (0, 1))
        series.append(
            Series(name.removesuffix("_accuracy"), x, [row["accuracy"] for row in rows], low, high, line=False)
        )
    plot(folder.path / "log_p", "Better replies found likelier", "mode", "accuracy", series, names=modes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
