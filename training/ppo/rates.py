"""The learning rate of PPO over the iterations of a run: a warm-up, then constant or falling."""

import math

from training.config import PolicyConfig


def rate_share(config: PolicyConfig, turn: int, turns: int) -> float:
    """Share of the full learning rate in iteration `turn` (from 0) of the `turns` in which the policy learns.

    The floor that the warm-up starts from and the tenth that a fall leads to are steps before the first iteration and after
    the last: no iteration is spent on them.
    """
    warm = max(config.warmup_iterations, round(config.warmup_share * turns))
    gone = turn / max(turns, 1)
    share = {
        "constant": 1.0,
        "linear": 1.0 - 0.9 * gone,
        "cosine": 0.1 + 0.45 * (1.0 + math.cos(math.pi * gone)),
        "inverse_sqrt": math.sqrt(max(warm, 1) / max(warm, turn + 1)),
        "halving": 0.5 ** (turn * config.iteration_replies // config.halving_episodes),
    }[config.schedule]
    if turn < warm:
        share *= config.warmup_floor + (1.0 - config.warmup_floor) * (turn + 1) / (warm + 1)
    return share
