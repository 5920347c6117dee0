"""`python -m training.best_of FOLDER`: sample k replies to each prompt and keep the one that a preference model scores highest.

Rejection sampling (Bai et al. 2022 §4.3, App. B.6). Each prompt is answered max(k) times, once; from these replies every
smaller k is estimated too, without bias (objective/order_statistics.py). Reads data/prompts.jsonl; writes replies.jsonl
(what was chosen, as demonstrations), best_of.png and .json, and result.json with scores, win rates and KL at each k.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training import objective
from training.config import BestOfConfig
from training.data.prompts import Prompt, line_of, read_prompts
from training.job import run_command, start
from training.measuring.calibration import wilson_interval
from training.measuring.contest import mean_ci95
from training.measuring.field import Judges, fitting
from training.models.models import PreferenceModel
from training.models.snapshots import stated_fingerprint
from training.processes import ranks
from training.runs import files
from training.runs.parts import Parts
from training.runs.plots import Series, plot
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.sampling.rollouts import sample_seeds
from training.sampling.self_checks import check_tokenizers
from training.sampling.variants import Answers, EachStep, Policy, Prefix, Replies, Sampling, scores


class BestOf:
    """Answers like `base`, with the one of `k` replies that `pm` scores highest: a policy as good as `pm` (`variants.Answers`)."""

    def __init__(self, base: Answers, pm: PreferenceModel, k: int) -> None:
        self.base, self.pm, self.k = base, pm, k
        self.tokenizer = base.tokenizer

    def reply(
        self, conversations: Sequence[Prompt], seeds: Sequence[int], sampling: Sampling, each_step: EachStep = None
    ) -> Replies:
        """Write k replies to each conversation and return the best; `each_step` is told how many of all are finished."""
        repeated = [talk for talk in conversations for _ in range(self.k)]
        drawn = [other for seed in seeds for other in sample_seeds(seed, 0, self.k)]
        replies = self.base.reply(repeated, drawn, sampling, each_step)
        found = scores(self.pm, self.tokenizer, repeated, replies).view(-1, self.k)
        return rows_of(replies, found.argmax(1) + torch.arange(len(found), device=found.device) * self.k)


def _told(_name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.jsonl has of the replies to one engine full of prompts."""
    every = torch.tensor([sample["score"] for sample in part["samples"]], dtype=torch.float64)
    best = float(every.max(1).values.mean())
    return {"score_mean": float(every.mean()), "score_best": best, "seconds": part["seconds"]}


def rows_of(replies: Replies, index: Tensor) -> Replies:
    """The replies `index`, columns cut to the longest of them.  [N]"""
    said = replies.generated
    longest = int(said.mask[index].sum(1).max())
    kept = type(said)(
        said.tokens[index, :longest], said.logp[index, :longest], said.mask[index, :longest], said.ended[index]
    )
    return Replies([replies.texts[place] for place in index.tolist()], kept, replies.room)


class BestOfRun:
    """One run: its models, the prompts that fit, and what has been sampled."""

    def __init__(self, folder: RunFolder, config: BestOfConfig) -> None:
        self.folder, self.config, self.began = folder, config, time.monotonic()
        self.prompts_file = folder.data / "prompts.jsonl"
        prefix = Prefix.read(config.prefix) if config.prefix else None
        how: dict[str, Any] = {"slots": config.slots, "precision": config.precision, "shared": True}
        self.policy = Policy.load(config.model, prefix, **how)
        self.rival = Policy.load(config.opponent, **how) if config.opponent else self.policy
        if config.opponent:
            check_tokenizers(self.policy.tokenizer, self.rival.tokenizer, "opponent")
        named = {"score": config.preference_model, "test_score": config.test_preference_model}
        self.judges = Judges(named, self.policy.tokenizer, precision=config.precision)
        # as of the files that were loaded: a folder may hold another model before this run ends
        self.fingerprints = {
            "model_fingerprint": stated_fingerprint(config.model),
            "preference_model_fingerprint": stated_fingerprint(config.preference_model),
        }
        self.sampling = Sampling(config.max_new_tokens, config.temperature)
        readers = self.judges.readers(config.max_new_tokens)
        for answering in (self.policy, self.rival):
            readers.append((answering.prefix, answering.context - config.max_new_tokens))
        self.prompts, self.left_out = fitting(
            self.policy.tokenizer, read_prompts(self.prompts_file), readers, config.evaluation_prompts
        )
        self.together = max(1, config.slots // config.samples)  # prompts that fill the engine

    def run(self) -> dict[str, Any]:
        """Sample what is missing, choose, and return result.json."""
        parts = Parts(self.folder, self.config)
        names = [f"prompts {begin}" for begin in range(0, len(self.prompts), self.together)]
        with Bar("best of k", len(names)) as bar:
            found = parts.measure(
                names,
                lambda name: self.answer(int(name.split()[1]), parts),
                lambda step, _: bar.at(step),
                whose=lambda name, place: self.whose(int(name.split()[1]) + place),
                told=_told,
            )
        samples = [sample for part in found for sample in part["samples"]]
        self.write_replies(samples)
        return self.result(samples) | {"seconds": sum(part["seconds"] for part in found)}

    def whose(self, number: int) -> str:
        """Name prompt `number`, from 0, by its line."""
        asked = self.prompts[number]
        return line_of(self.prompts_file, lambda prompt: prompt == asked)

    def answer(self, begin: int, parts: Parts) -> dict[str, Any]:
        """Sample all replies to the prompts from number `begin` on, and one of the opponent to each, and score them."""
        started, count = time.monotonic(), self.config.samples
        prompts = self.prompts[begin : begin + self.together]
        seeds = [sample_seeds(self.config.seed, begin + place, count + 1) for place in range(len(prompts))]
        repeated = [prompt for prompt in prompts for _ in range(count)]
        replies = self.policy.reply(repeated, [seed for some in seeds for seed in some[:count]], self.sampling)
        rival = self.rival.reply(prompts, [some[count] for some in seeds], self.sampling)
        # no part has them, and a preference model scores whatever a policy without numbers wrote
        drawn = {
            "the policy's log-probability": replies.generated.logp.sum(1).view(len(prompts), -1).sum(1).tolist(),
            "the opponent's log-probability": rival.generated.logp.sum(1).tolist(),
        }
        parts.require_finite(drawn, lambda place: self.whose(begin + place))
        scored = self.judges.scores(repeated, replies)
        rivals = self.judges.scores(prompts, rival)
        length = replies.generated.mask.sum(1).view(-1, count).tolist()
        ended = replies.generated.ended.view(-1, count).tolist()
        found = []
        for place in range(len(prompts)):
            own = {name: score.view(-1, count)[place].tolist() for name, score in scored.items()}
            other = {f"rival_{name}": float(score[place]) for name, score in rivals.items()}
            texts = replies.texts[place * count : (place + 1) * count]
            found.append({"replies": texts, "length": length[place], "ended": ended[place]} | own | other)
        return {"samples": found, "seconds": time.monotonic() - started}

    def write_replies(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Write replies.jsonl: each prompt with its chosen reply as `messages`, as the sft job reads demonstrations."""
        config = self.config
        lines = []
        for prompt, sample in zip(self.prompts, samples, strict=True):
            place = chosen(sample["score"], max(config.k), config.median_of)
            record: dict[str, Any] = {
                "messages": [*prompt, {"role": "assistant", "content": sample["replies"][place]}],
                "chosen_of": config.median_of or max(config.k),
                "chosen_as": "median" if config.median_of else "best",
                "ended": sample["ended"][place],
            }
            record |= {name: sample[name][place] for name in self.judges.models}
            lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        if ranks.leads():
            files.write_bytes(self.folder.path / "replies.jsonl", b"".join(lines))

    def result(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Estimate every k from the samples, and paint scores against KL."""
        config = self.config
        tables = {
            name: torch.tensor([sample[name] for sample in samples], dtype=torch.float64)
            for name in [*self.judges.models, "length"]
        }
        rivals = {
            name: torch.tensor([sample[f"rival_{name}"] for sample in samples], dtype=torch.float64)
            for name in self.judges.models
        }
        by_k = [{"k": k} | measured(tables, rivals, k, k) | kl_of(k) for k in config.k]
        found: dict[str, Any] = {"by_k": by_k}
        if config.median_of:
            middle = (config.median_of + 1) // 2
            found["median"] = {"k": config.median_of} | measured(tables, rivals, config.median_of, middle)
        self.paint(by_k)
        return found | {
            "prompts": len(samples),
            "samples": config.samples,
            "left_out": self.left_out,
            **self.fingerprints,
        }

    def paint(self, by_k: Sequence[Mapping[str, Any]]) -> None:
        """Draw scores against √KL, by the exact formula and by the paper's."""
        series = []
        for name in self.judges.models:
            who = "preference model that chooses" if name == "score" else "test preference model"
            for formula, words in (("kl", "log k − (k−1)/k"), ("kl_heuristic", "log k")):
                series.append(
                    Series(
                        f"{who}, KL = {words}",
                        [math.sqrt(row[formula]) for row in by_k],
                        [row[f"{name}_mean"] for row in by_k],
                        [row[f"{name}_mean_ci95"][0] for row in by_k],
                        [row[f"{name}_mean_ci95"][1] for row in by_k],
                    )
                )
        plot(self.folder.path / "best_of", "Best of k", "√KL from one sample (√nats)", "mean score", series)


def chosen(score: Sequence[float], best_of: int, median_of: int) -> int:
    """Which of a prompt's samples is kept: the median of the first `median_of`, or the best of the first `best_of`."""
    if not median_of:
        return max(range(best_of), key=lambda place: score[place])
    return sorted(range(median_of), key=lambda place: score[place])[median_of // 2]


def kl_of(k: int) -> dict[str, float]:
    """Both formulas of the KL from one sample, in nats."""
    return {"kl": objective.best_of_kl(k), "kl_heuristic": objective.best_of_kl_heuristic(k)}


def measured(tables: Mapping[str, Tensor], rivals: Mapping[str, Tensor], m: int, j: int) -> dict[str, Any]:
    """What the j-th smallest by score of m replies is like: scores, win rate against the opponent's one reply, length.

    Means over all ways to draw m of a prompt's samples, then over prompts, with 95% intervals over prompts.
    """
    share = objective.order_statistic_shares(tables["score"], m, j)
    found: dict[str, Any] = {}
    for name, table in tables.items():
        found[f"{name}_mean"], found[f"{name}_mean_ci95"] = mean_ci95((share * table).sum(1))
    for name, rival in rivals.items():
        beats = objective.wins(tables[name] - rival[:, None])
        rate = min(1.0, max(0.0, float((share * beats).sum(1).mean())))  # sums of shares may be 1 + 1e-16
        key = name.replace("score", "win_rate")
        found[key], found[f"{key}_ci95"] = rate, list(wilson_interval(rate, len(rival)))
    return found


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.best_of",
        description="Sample k replies to each prompt and keep the one that a preference model scores highest.",
        epilog="Example: whetstone train best_of my-samples --model my-policy/model --preference-model my-pm/model --k 1,4,16",
    )
    parser.add_argument("folder", help="run folder with config.json and data/prompts.jsonl")
    parser.add_argument("--model", help="directory of the policy to sample")
    parser.add_argument("--preference-model", help="directory of the preference model that chooses")
    parser.add_argument("--test-preference-model", help="directory of another that only judges what was chosen")
    parser.add_argument("--opponent", help="directory of the policy to beat (default: one reply of the same)")
    parser.add_argument("--k", type=numbers, help="numbers of replies, such as 1,4,16,64")
    parser.add_argument("--median-of", type=int, help="keep the median of so many (odd), not the best")
    return run_command("best_of", parser, arguments, _best_of)


def numbers(text: str) -> tuple[int, ...]:
    """Read "1,4,16" for argparse."""
    return tuple(int(number) for number in text.split(","))


def _best_of(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config = start(folder, BestOfConfig, "best_of", given, "model", "preference_model")
    return BestOfRun(folder, config).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
