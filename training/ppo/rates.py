"""The learning rate of PPO over the iterations of a run: a warm-up, then constant or falling; and runs too short for it."""

import math

from training.config import PolicyConfig

MOST_INITIAL = 0.5  # of an average of the weights that has hardly learnt


def warmup(config: PolicyConfig, turns: int) -> int:
    """Iterations of the warm-up in a run of `turns`."""
    return max(config.warmup_iterations, round(config.warmup_share * turns))


def too_short(config: PolicyConfig, turns: int) -> list[str]:
    """What of a run of `turns` iterations could hardly learn, and what to set; empty where there is nothing to say.

    Settings of a paper are of its own length: a preset alone says nothing about `episodes`.
    """
    found, replies = [], config.iteration_replies
    warm = warmup(config, turns)
    if turns <= warm:
        found.append(
            f"all {turns} iterations are of the warm-up of {warm}: set episodes to some times {warm * replies}, or "
            "warmup_iterations below"
        )
    an_iteration = config.inner_epochs * math.ceil(replies / config.minibatch_replies)
    left = config.weight_average ** (turns * an_iteration)
    if config.weight_average and left > MOST_INITIAL:
        wanted = math.ceil(math.log(MOST_INITIAL) / math.log(config.weight_average) / an_iteration) * replies
        decay = math.floor(1000 * MOST_INITIAL ** (1 / (turns * an_iteration))) / 1000
        found.append(
            f"the average of the weights, which is what is saved, will be {left:.0%} the initial policy after "
            f"{turns * an_iteration} updates: set episodes to at least {wanted}, or weight_average to at most "
            f"{decay:.3f}"
        )
    return found


def rate_share(config: PolicyConfig, turn: int, turns: int) -> float:
    """Share of the full learning rate in iteration `turn` (from 0) of the `turns` in which the policy learns.

    The warm-up begins at its floor; what a fall leads to would be the step after the last iteration, so that none is spent
    on a rate of 0.
    """
    warm = warmup(config, turns)
    gone, final = turn / max(turns, 1), config.final_share
    share = {
        "constant": 1.0,
        "linear": 1.0 - (1.0 - final) * gone,
        "cosine": final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * gone)),
        "inverse_sqrt": math.sqrt(max(warm, 1) / max(warm, turn + 1)),
        "halving": 0.5 ** (turn * config.iteration_replies // config.halving_episodes),
    }[config.schedule]
    if turn < warm:
        share *= config.warmup_floor + (1.0 - config.warmup_floor) * turn / warm
    return share
