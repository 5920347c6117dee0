"""One policy against another on the same prompts under a preference model: win rate, scores, KL, each with its 95% interval."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training import objective
from training.failure import JobFailed
from training.intervals import Z95
from training.measuring.calibration import wilson_interval
from training.models import lora
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.processes.sharding import whole
from training.sampling.engine import Engine
from training.sampling.rollouts import Occasion, Rollout, policy_logp, preference_scores, reply_seeds, sample


def mean_ci95(x: Tensor) -> tuple[float, list[float]]:
    """Mean of [N] and its 95% interval by the normal approximation; the interval of one number is that number."""
    mean = float(x.double().mean())
    reach = Z95 * float(x.double().std()) / math.sqrt(x.numel()) if x.numel() > 1 else 0.0
    return mean, [mean - reach, mean + reach]


def win_rate(score: Tensor, rival: Tensor) -> tuple[float, list[float]]:
    """Share of prompts on which `score` is higher, ties half, with the 95% Wilson interval.  [N], [N]"""
    share = float(objective.wins(score - rival).double().mean())
    return share, list(wilson_interval(share, score.numel()))


def reply_numbers(rollout: Rollout) -> dict[str, float]:
    """What the replies of a rollout are like: length, perplexity under their own sampler, share that ended."""
    return {
        "length_mean": float(rollout.mask.sum(1).float().mean()),
        "perplexity": math.exp(-float(rollout.old_logp[rollout.mask].mean())),
        "eos_share": float(rollout.ended.float().mean()),
    }


def measured(
    policy: Any, engine: Engine, opponent: Any, rival_engine: Engine, pm: PreferenceModel, end_id: int,
    prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_new_tokens: int, temperature: float,
    each_step: Callable[[int], None] | None = None, *, half: bool = False,
) -> dict[str, list[float]]:  # fmt: skip
    """Sample both on the same prompts and score them: numbers of each prompt's two replies, as JSON can say them.

    `seeds`: those of the policy's replies, then those of the opponent's. `each_step` is told how many replies are done. One
    engine at a time holds its weights.
    """
    done = len(prompts)
    with whole(policy):
        engine.refresh(policy)
        rollout = sample(engine, prompts, seeds[:done], max_new_tokens, temperature, each_step)
        engine.release()
    later = None if each_step is None else (lambda count: each_step(done + count))
    with whole(opponent), lora.seen(opponent):
        rival_engine.refresh(opponent)
        rival = sample(rival_engine, prompts, seeds[done:], max_new_tokens, temperature, later)
        rival_engine.release()
    score, rival_score = (preference_scores(pm, written, end_id, half=half) for written in (rollout, rival))
    own, others = (policy_logp(model, rollout, temperature, half=half) for model in (policy, opponent))
    k1, _, k3 = objective.kl_estimators(own, others, rollout.mask)
    found = {"score": score, "score_before": rival_score, "kl": k1.sum(1), "kl_k3": k3.sum(1)}
    for written, name in ((rollout, ""), (rival, "_before")):
        found |= {
            f"length{name}": written.mask.sum(1),
            f"logp{name}": (written.old_logp * written.mask).double().sum(1),
            f"eos{name}": written.ended.float(),
        }
    return {name: numbers.tolist() for name, numbers in found.items()}


def compared(numbers: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Win rate, scores, KL and what the replies are like, of what `measured` gives."""
    x = {name: torch.tensor(some, dtype=torch.float64) for name, some in numbers.items()}
    found: dict[str, Any] = {"prompts": len(x["score"])}
    found["win_rate"], found["win_rate_ci95"] = win_rate(x["score"], x["score_before"])
    found["score_after"], found["score_after_ci95"] = mean_ci95(x["score"])
    found["score_before"], found["score_before_ci95"] = mean_ci95(x["score_before"])
    found["kl"], found["kl_ci95"] = mean_ci95(x["kl"])
    found["kl_k3"] = float(x["kl_k3"].mean())
    for name in ("", "_before"):
        length = x[f"length{name}"]
        found[f"length_mean{name}"] = float(length.mean())
        found[f"perplexity{name}"] = math.exp(-float(x[f"logp{name}"].sum() / length.sum()))
        found[f"eos_share{name}"] = float(x[f"eos{name}"].mean())
    return found


def against(
    policy: Any, engine: Engine, opponent: Any, rival_engine: Engine, pm: PreferenceModel, end_id: int,
    prompts: Sequence[Sequence[int]], seed: int, max_new_tokens: int, temperature: float,
    each_step: Callable[[int], None] | None = None, *, half: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Both at once: one policy against another on these prompts."""
    seeds = reply_seeds(seed, Occasion.EVALUATION, 2 * len(prompts))
    return compared(
        measured(
            policy, engine, opponent, rival_engine, pm, end_id, prompts, seeds, max_new_tokens, temperature, each_step,
            half=half,
        )
    )  # fmt: skip


def room_for_prompts(configs: Sequence[Any], max_new_tokens: int) -> int:
    """Tokens a prompt may take beside a reply and the end token that a cut reply is given; JobFailed if none.

    The model of the shortest context among `configs` decides, since every one of them reads the whole.
    """
    context = context_of(*configs)
    room = context - max_new_tokens - 1
    if room < 1:
        raise JobFailed(
            f"max_new_tokens {max_new_tokens} leaves no room for a prompt in a context of {context} tokens; set it lower"
        )
    return room
