"""`python -m training.hhh FOLDER`: is the better answer told apart, on your copy of BIG-bench's hhh_alignment?

A policy is scored by empirical mutual information I(a, q) = log P(a|q) - log P(a), which takes out that some answers are likely
after any question, and for comparison by log P(a|q), whole and a token; a preference model by the sign of the score difference
(Askell et al. 2021). Reads TASKS/CATEGORY/task.json; result.json has each category and all together, with Wilson intervals.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from training.config import HhhConfig
from training.failure import JobFailed
from training.job import run_command, start
from training.lines.records import BadRecord, Message, parse_line
from training.measuring.calibration import wilson_interval
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.models.snapshots import PromptTooLong, load_policy, render_reply
from training.processes.device import device_of_choice
from training.reading.likelihood import reply_scores, total_log_p
from training.runs.parts import Parts
from training.runs.plots import Series, plot
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.runs.telling import tell_unfit
from training.sampling.variants import Prefix


class Item(NamedTuple):
    """A question and its answers, of which `better` is the one to be told."""

    prompt: list[Message]
    answers: list[str]
    better: int


class Asked(NamedTuple):
    """A question and its answers as tokens of one model."""

    prompt: list[int]
    shortened: bool  # its oldest turns are left out
    answers: list[list[int]]
    tokenizer: Any


def read_task(path: Path) -> list[Item]:
    """Read {"examples": [{"input", "target_scores": {answer: score}}]}; JobFailed says which example is wrong and how."""
    try:
        task = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as bad:
        raise JobFailed(f"{path} cannot be read as JSON ({bad}); copy BIG-bench's task.json again") from bad
    examples = task.get("examples") if isinstance(task, dict) else None
    if not isinstance(examples, list) or not examples:
        raise JobFailed(f"{path} has no list of 'examples'; copy BIG-bench's task.json of one category")
    return [_item(path, number, example) for number, example in enumerate(examples, 1)]


def _item(path: Path, number: int, example: Any) -> Item:
    def refused(reason: str) -> JobFailed:
        return JobFailed(f"{path}, example {number}: {reason}")

    if not isinstance(example, dict) or not isinstance(example.get("input"), str) or not example["input"].strip():
        raise refused("'input' must be the text of a question")
    scored = example.get("target_scores")
    if not isinstance(scored, dict) or len(scored) < 2:
        raise refused("'target_scores' must give two answers or more their scores")
    if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scored.values()):
        raise refused("each answer's score in 'target_scores' must be a number")
    answers, most = list(scored), max(scored.values())
    if not all(answer.strip() for answer in answers):
        raise refused("an answer is empty")
    if list(scored.values()).count(most) != 1:
        raise refused("one answer must have a higher score than all others")
    try:  # a question may be a whole transcript "Human: … Assistant: … Human: …"
        record = {"prompt": example["input"], "chosen": answers[0], "rejected": answers[1]}
        prompt = list(parse_line(json.dumps(record), number).prompt)
    except BadRecord as bad:
        raise refused(bad.reason) from bad
    return Item(prompt, answers, list(scored.values()).index(most))


def read_tasks(root: Path) -> dict[str, list[Item]]:
    """Items by category, a folder each with its task.json."""
    found = {file.parent.name: read_task(file) for file in sorted(root.glob("*/task.json"))}
    if not found:
        raise JobFailed(
            f"{root} has no CATEGORY/task.json; copy helpful, honest, harmless and other of BIG-bench's hhh_alignment there"
        )
    return found


def rightness(scores: Sequence[float], better: int) -> float:
    """1 when the better answer has the highest score, shared evenly where several have it, 0 otherwise."""
    most = max(scores)
    winners = [place for place, score in enumerate(scores) if score == most]
    return 1 / len(winners) if better in winners else 0.0


def accuracies(items: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Share told right by each scorer, by category and overall: {scorer: {category: {accuracy, accuracy_ci95, items}}}."""
    scorers = {name for some in items.values() for item in some for name in item["scores"]}
    found: dict[str, Any] = {}
    for scorer in sorted(scorers):
        groups = {**items, "overall": [item for some in items.values() for item in some]}
        found[scorer] = {}
        for category, some in groups.items():
            right = [rightness(item["scores"][scorer], item["better"]) for item in some]
            if right:
                share = sum(right) / len(right)
                interval = list(wilson_interval(share, len(right)))
                found[scorer][category] = {"accuracy": share, "accuracy_ci95": interval, "items": len(right)}
    return found


class SoFar:
    """What metrics.jsonl has after each question: the share told right up to there, by scorer; one alone is right or wrong."""

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.items, self.questions = items, 0
        self.right: dict[str, float] = {}

    def __call__(self, name: str, scores: Mapping[str, Sequence[float]] | None) -> dict[str, Any]:
        """Count a question in; one that did not fit changes nothing."""
        if scores is not None:
            self.questions += 1
            for scorer, some in scores.items():
                self.right[scorer] = self.right.get(scorer, 0.0) + rightness(some, self.items[name].better)
        return {"questions": self.questions} | {
            f"{scorer}_accuracy": right / self.questions for scorer, right in self.right.items()
        }


class Scorers:
    """The policy, the preference model, or both; `scored` gives every number for one question's answers."""

    def __init__(self, config: HhhConfig) -> None:
        self.policy = self.pm = None
        self.prefix = Prefix.read(config.prefix) if config.prefix else Prefix()
        self.readers = []  # tokenizer and context of each, and what stands before its questions
        if config.model:
            self.policy, tokenizer = load_policy(config.model)
            self.policy.to(device_of_choice())  # type: ignore[arg-type]
            self.readers.append((tokenizer, context_of(self.policy.config), self.prefix))
        if config.preference_model:
            self.pm, tokenizer = PreferenceModel.load(config.preference_model)
            self.pm.to(device_of_choice())
            self.readers.append((tokenizer, context_of(self.pm.backbone.config), Prefix()))

    def fitted(self, item: Item) -> list[Asked] | None:
        """The question as each model reads it, the policy first; None when it does not fit beside its longest answer."""
        found = []
        for tokenizer, context, prefix in self.readers:
            answers = [render_reply(tokenizer, answer) for answer in item.answers]
            try:
                prompt = prefix.within(tokenizer, item.prompt, context - max(map(len, answers)))
            except PromptTooLong:
                return None
            found.append(Asked(prompt.ids, prompt.dropped > 0, answers, tokenizer))
        return found

    def scored(self, item: Item) -> dict[str, list[float]] | None:
        """Each scorer's number of every answer; None when the question does not fit into a context beside its longest answer."""
        found: dict[str, list[float]] = {}
        asked = self.fitted(item)
        if asked is None:
            return None
        if self.policy is not None:
            prompt, _, answers, tokenizer = asked[0]
            # P(a): behind a question that says nothing, and behind what stands before every question
            nothing = self.prefix.before(tokenizer, [{"role": "user", "content": ""}])
            given = total_log_p(self.policy, [prompt] * len(answers), answers)
            alone = total_log_p(self.policy, [nothing] * len(answers), answers)
            length = torch.tensor([len(answer) for answer in answers], device=given.device)
            found["mutual_information"] = (given - alone).tolist()
            found["log_p"] = given.tolist()
            found["mean_log_p"] = (given / length).tolist()
        if self.pm is not None:
            prompt, _, answers, tokenizer = asked[-1]
            found["score"] = reply_scores(
                self.pm, [prompt] * len(answers), answers, int(tokenizer.eos_token_id)
            ).tolist()
        return found


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.hhh",
        description="Accuracy on your copy of BIG-bench's hhh_alignment: helpful, honest, harmless, other.",
        epilog="Example: whetstone train hhh my-check --tasks BIG-bench/bigbench/benchmark_tasks/hhh_alignment "
        "--model my-policy/model --preference-model my-pm/model",
    )
    parser.add_argument("folder", help="run folder; data/CATEGORY/task.json where --tasks is not given")
    parser.add_argument("--tasks", help="folder with CATEGORY/task.json")
    parser.add_argument("--model", help="directory of a policy")
    parser.add_argument(
        "--prefix", help="file of a prompt before every question of the policy: a text, or messages in a .json"
    )
    parser.add_argument("--preference-model", help="directory of a preference model")
    return run_command("hhh", parser, arguments, _hhh)


def _hhh(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config, began = start(folder, HhhConfig, "hhh", given), time.monotonic()
    tasks = read_tasks(Path(config.tasks) if config.tasks else folder.data)
    scorers = Scorers(config)
    places = {f"{category} {place}": item for category, items in tasks.items() for place, item in enumerate(items)}
    asked = [scorers.fitted(item) for item in places.values()]
    left_out = {
        "over_long": asked.count(None),
        "shortened": sum(any(one.shortened for one in some) for some in asked if some is not None),
    }
    tell_unfit("questions", left_out)
    with Bar("questions", len(places)) as bar:
        found = Parts(folder, config).measure(
            list(places), lambda name: scorers.scored(places[name]), lambda step, _: bar.at(step), whose=_whose,
            told=SoFar(places),
        )  # fmt: skip
    items: dict[str, list[dict[str, Any]]] = {category: [] for category in tasks}
    for (name, item), scores in zip(places.items(), found, strict=True):
        if scores is not None:
            items[name.rpartition(" ")[0]].append({"scores": scores, "better": item.better})
    if not any(items.values()):
        raise JobFailed("no question fits into the model's context beside its answers")
    by_scorer = accuracies(items)
    _paint(folder, by_scorer)
    return {
        "accuracy_by_scorer": by_scorer,
        "left_out": left_out,
        "seconds": time.monotonic() - began,
    }


def _whose(name: str, _place: int) -> str:
    category, _, place = name.rpartition(" ")
    return f"example {int(place) + 1} of {category}/task.json"


def _paint(folder: RunFolder, by_scorer: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw each scorer's accuracy by category."""
    categories = list(next(iter(by_scorer.values())))
    series = []
    for place, (scorer, found) in enumerate(by_scorer.items()):
        x = [number + 0.1 * place for number in range(len(categories))]  # beside each other
        low, high = ([found[name]["accuracy_ci95"][side] for name in categories] for side in (0, 1))
        share = [found[name]["accuracy"] for name in categories]
        series.append(Series(scorer, x, share, low, high, line=False))
    plot(folder.path / "hhh", "Better answers told apart", "category", "accuracy", series, names=categories)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
