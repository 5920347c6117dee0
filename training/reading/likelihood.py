"""How likely a policy finds replies that somebody else wrote, and how a preference model scores them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.models.models import PreferenceModel
from training.sampling.rollouts import Rollout, policy_logp, preference_scores
from training.sampling.sampling import reply_mask


def as_rollout(prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], device: torch.device) -> Rollout:
    """Lay given replies, each with its end token, behind their prompts."""
    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
    mask = reply_mask(torch.tensor([len(reply) for reply in replies]))
    starts = torch.tensor([len(prompt) for prompt in prompts])
    ended = torch.ones(len(rows), dtype=torch.bool)
    parts = (tokens, starts, mask, torch.zeros(mask.shape), ended)
    return Rollout(*(part.to(device) for part in parts))


def total_log_p(model: Any, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> Tensor:
    """Σ_t log π of each reply behind its prompt, the end token included, in nats.  -> [B]"""
    return policy_logp(model, as_rollout(prompts, replies, model.device), 1.0).sum(1)


def reply_scores(
    pm: PreferenceModel, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], end_id: int
) -> Tensor:
    """The preference model's score of each reply.  -> [B]"""
    return preference_scores(pm, as_rollout(prompts, replies, pm.head.weight.device), end_id)
