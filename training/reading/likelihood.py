"""How likely a policy finds replies that somebody else wrote, and how a preference model scores them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.data.padding import right_padded
from training.models.models import PreferenceModel
from training.sampling.rollouts import Rollout, policy_logp, preference_scores
from training.sampling.sampling import reply_mask


def as_rollout(prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], device: torch.device) -> Rollout:
    """Lay given replies, each with its end token, behind their prompts."""
    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    tokens, length = right_padded(rows, device)
    starts = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = reply_mask(length - starts)
    ended = torch.ones(len(rows), dtype=torch.bool, device=device)
    return Rollout(tokens, starts, mask, torch.zeros(mask.shape, device=device), ended)


def total_log_p(model: Any, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> Tensor:
    """Σ_t log π of each reply behind its prompt, the end token included, in nats.  -> [B]"""
    return policy_logp(model, as_rollout(prompts, replies, model.device), 1.0).sum(1)


def reply_scores(
    pm: PreferenceModel, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], end_id: int
) -> Tensor:
    """The preference model's score of each reply.  -> [B]"""
    return preference_scores(pm, as_rollout(prompts, replies, pm.head.weight.device), end_id)
