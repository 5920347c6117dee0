"""`python -m training.evaluate FOLDER`: one policy against another under a preference model, on prompts of neither's training.

Reads data/prompts.jsonl; result.json holds the win rate, both mean scores, the KL to the opponent and what the replies are
like, each with its 95% interval where it is an estimate.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import EvaluateConfig
from training.data.prompts import evenly, line_of, read_prompts, rendered
from training.failure import JobFailed
from training.job import run_command, start
from training.measuring.contest import compared, measured, room_for_prompts
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy
from training.processes.device import device_of_choice, in_half
from training.runs.parts import Parts
from training.runs.plots import Series, plot
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.runs.telling import tell_unfit
from training.sampling.engine import Engine
from training.sampling.rollouts import Occasion, reply_seeds
from training.sampling.self_checks import check_tokenizers


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        epilog="Example: whetstone train evaluate my-check --model my-policy/model --opponent training/starter/model --preference-model my-pm/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/prompts.jsonl")
    parser.add_argument("--model", help="directory of the policy in question")
    parser.add_argument("--opponent", help="directory of the policy it is held against")
    parser.add_argument("--preference-model", help="directory of the preference model")
    return run_command("evaluate", parser, arguments, _evaluate)


def _evaluate(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config = start(folder, EvaluateConfig, "evaluate", given, "model", "opponent", "preference_model")
    device = device_of_choice()
    policy, tokenizer = load_policy(config.model)
    opponent, opponent_tokenizer = load_policy(config.opponent)
    pm, pm_tokenizer = PreferenceModel.load(config.preference_model)
    check_tokenizers(tokenizer, pm_tokenizer, "preference model")
    check_tokenizers(tokenizer, opponent_tokenizer, "opponent")
    for model in (policy, opponent, pm):
        model.to(device)
    room = room_for_prompts([policy.config, opponent.config, pm.backbone.config], config.max_new_tokens)
    file = folder.data / "prompts.jsonl"
    prompts, left_out = rendered(tokenizer, read_prompts(file), room)
    tell_unfit("prompts", left_out)
    prompts = evenly(prompts, config.evaluation_prompts or len(prompts))
    if not prompts:
        raise JobFailed(f"no prompt fits into the {room} tokens beside a reply; give shorter ones")
    half = in_half(config.precision, device, policy.config.hidden_size)
    length = max(map(len, prompts)) + config.max_new_tokens
    engines = [Engine(model, tokenizer, config.slots, length, half=half) for model in (policy, opponent)]
    seeds = reply_seeds(config.seed, Occasion.EVALUATION, 2 * len(prompts))
    names = {f"prompts {first}": first for first in range(0, len(prompts), config.part_prompts)}

    def whose(name: str, place: int) -> str:
        read = prompts[names[name] + place]
        return line_of(file, lambda prompt: rendered(tokenizer, [prompt], room)[0] == [read])

    with Bar("evaluation", 2 * len(prompts)) as bar:

        def part(name: str) -> dict[str, Any]:
            began, first = time.monotonic(), names[name]
            some = slice(first, first + config.part_prompts)
            own, rivals = seeds[: len(prompts)][some], seeds[len(prompts) :][some]
            numbers = measured(
                policy, engines[0], opponent, engines[1], pm, tokenizer.eos_token_id, prompts[some], [*own, *rivals],
                config.max_new_tokens, config.temperature, lambda count: bar.at(2 * first + count), half=half,
            )  # fmt: skip
            return numbers | {"seconds": time.monotonic() - began}

        found = Parts(folder, config).measure(list(names), part, whose=whose, told=_told)
    seconds = sum(each.pop("seconds") for each in found)
    numbers = {name: [number for each in found for number in each[name]] for name in found[0]}
    _paint(folder, numbers)
    return compared(numbers) | {"left_out": left_out, "seconds": seconds}


def _told(_name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.jsonl has of a part."""
    numbers = {name: found for name, found in part.items() if name != "seconds"}
    return compared(numbers) | {"seconds": part["seconds"]}


def _paint(folder: RunFolder, numbers: Mapping[str, Sequence[float]]) -> None:
    """Draw how the two scores of a prompt differ; left of 0 lie the prompts that are lost."""
    gained = sorted(own - rival for own, rival in zip(numbers["score"], numbers["score_before"], strict=True))
    share = [(place + 1) / len(gained) for place in range(len(gained))]
    series = [Series("prompts", gained, share, points=False)]
    plot(folder.path / "evaluate", "Score less the opponent's, on the same prompt", "score less the opponent's",
         "share of the prompts at or below", series)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
