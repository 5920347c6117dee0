"""`python -m training.evaluate FOLDER`: one policy against another under a preference model, on prompts of neither's training.

Reads data/prompts.jsonl; result.json holds the win rate, both mean scores, the KL to the opponent and what the replies are
like, each with its 95% interval where it is an estimate.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training import objective
from training.calibration import wilson_interval
from training.config import EvaluateConfig
from training.device import device_of_choice, in_half
from training.engine import Engine
from training.job import JobFailed, run_job
from training.models import PreferenceModel
from training.progress import Bar
from training.prompts import evenly, read_prompts, rendered
from training.rollouts import Rollout, policy_logp, preference_scores, reply_seeds, sample
from training.run_folder import RunFolder
from training.self_checks import check_tokenizers
from training.snapshots import load_policy

# Seeds of evaluation replies are drawn far from those of any training iteration.
EVALUATION = 2**31


def mean_ci95(x: Tensor) -> tuple[float, list[float]]:
    """Mean of [N] and its 95% interval by the normal approximation; the interval of one number is that number."""
    mean = float(x.double().mean())
    reach = 1.96 * float(x.double().std()) / math.sqrt(x.numel()) if x.numel() > 1 else 0.0
    return mean, [mean - reach, mean + reach]


def win_rate(score: Tensor, rival: Tensor) -> tuple[float, list[float]]:
    """Share of prompts on which `score` is higher, ties half, with the 95% Wilson interval.  [N], [N]"""
    share = (float((score > rival).sum()) + 0.5 * float((score == rival).sum())) / score.numel()
    return share, list(wilson_interval(share, score.numel()))


def reply_numbers(rollout: Rollout) -> dict[str, float]:
    """What the replies of a rollout are like: length, perplexity under their own sampler, share that ended."""
    return {
        "length_mean": float(rollout.mask.sum(1).float().mean()),
        "perplexity": math.exp(-float(rollout.old_logp[rollout.mask].mean())),
        "eos_share": float(rollout.ended.float().mean()),
    }


def against(
    policy: Any, engine: Engine, opponent: Any, rival_engine: Engine, pm: PreferenceModel, end_id: int,
    prompts: Sequence[Sequence[int]], seed: int, max_new_tokens: int, temperature: float,
    each_step: Callable[[int], None] | None = None, *, half: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Sample both on the same prompts with seeds of their own and compare; `each_step` is told how many replies are done."""
    seeds = reply_seeds(seed, EVALUATION, 2 * len(prompts))
    done = len(prompts)
    rollout = sample(engine, prompts, seeds[:done], max_new_tokens, temperature, each_step)
    later = None if each_step is None else (lambda count: each_step(done + count))
    rival = sample(rival_engine, prompts, seeds[done:], max_new_tokens, temperature, later)
    score, rival_score = (preference_scores(pm, written, end_id, half=half) for written in (rollout, rival))
    own, others = (policy_logp(model, rollout, temperature, half=half) for model in (policy, opponent))
    k1, _, k3 = objective.kl_estimators(own, others, rollout.mask)
    found: dict[str, Any] = {"prompts": done}
    found["win_rate"], found["win_rate_ci95"] = win_rate(score, rival_score)
    found["score_after"], found["score_after_ci95"] = mean_ci95(score)
    found["score_before"], found["score_before_ci95"] = mean_ci95(rival_score)
    found["kl"], found["kl_ci95"] = mean_ci95(k1.sum(1))
    found["kl_k3"] = float(k3.sum(1).mean())
    before = {f"{name}_before": number for name, number in reply_numbers(rival).items()}
    return found | reply_numbers(rollout) | before


def room_for_prompts(configs: Sequence[Any], max_new_tokens: int) -> int:
    """Tokens a prompt may take beside a reply and the end token that a cut reply is given; JobFailed if none.

    The model of the shortest context among `configs` decides, since every one of them reads the whole.
    """
    context = min(int(getattr(config, "max_position_embeddings", None) or 2048) for config in configs)
    room = context - max_new_tokens - 1
    if room < 1:
        raise JobFailed(f"max_new_tokens {max_new_tokens} leaves no room for a prompt in a context of {context} tokens")
    return room


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
    given = vars(parser.parse_args(arguments))
    return run_job(given.pop("folder"), lambda folder: _evaluate(folder, given))


def _evaluate(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config = folder.configure(EvaluateConfig, "evaluate", **given)
    config.need("model", "opponent", "preference_model")
    if config.threads:
        torch.set_num_threads(config.threads)
    begin, device = time.monotonic(), device_of_choice()
    policy, tokenizer = load_policy(config.model)
    opponent, opponent_tokenizer = load_policy(config.opponent)
    pm, pm_tokenizer = PreferenceModel.load(config.preference_model)
    check_tokenizers(tokenizer, pm_tokenizer, "preference model")
    check_tokenizers(tokenizer, opponent_tokenizer, "opponent")
    for model in (policy, opponent, pm):
        model.to(device)
    room = room_for_prompts([policy.config, opponent.config, pm.backbone.config], config.max_new_tokens)
    prompts, left_out = rendered(tokenizer, read_prompts(folder.data / "prompts.jsonl"), room)
    prompts = evenly(prompts, config.evaluation_prompts or len(prompts))
    if not prompts:
        raise JobFailed(f"no prompt fits into the {room} tokens beside a reply; give shorter ones")
    half = in_half(config.precision, device, policy.config.hidden_size)
    length = room + config.max_new_tokens
    engines = [Engine(model, tokenizer, config.slots, length, half=half) for model in (policy, opponent)]
    with Bar("evaluation", 2 * len(prompts)) as bar:
        found = against(
            policy, engines[0], opponent, engines[1], pm, tokenizer.eos_token_id, prompts, config.seed,
            config.max_new_tokens, config.temperature, bar.at, half=half,
        )  # fmt: skip
    return found | {"left_out": left_out, "seconds": time.monotonic() - begin}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
