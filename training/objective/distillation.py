"""Context distillation on the teacher's likeliest words and one bin for the rest.  Shapes and sources: __init__.py.

M tokens, V words, k words with a bin of their own.
"""

import torch
from torch import Tensor


def likeliest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k likeliest words and log p in the k+1 bins   ([Bai] App. A.1, k = 50).  [M, V] -> [M, k], [M, k+1]"""
    words = logits.topk(k, dim=-1).indices
    return words, binned(logits, words)


def binned(logits: Tensor, words: Tensor) -> Tensor:
    """Log p of each of the `words`, and last of all others together.  [M, V], [M, k] -> [M, k+1]

    The mass of the rest is summed over the rest, never taken as 1 less the others, which loses all its digits when it is
    small. A word must be left over.
    """
    if words.shape[-1] >= logits.shape[-1]:
        raise ValueError(f"{words.shape[-1]} bins leave no word of {logits.shape[-1]} for the last one; take fewer")
    total = logits.logsumexp(-1, keepdim=True)
    rest = logits.scatter(-1, words, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, words), rest], dim=-1) - total


def distillation_loss(teacher_logp: Tensor, student_logp: Tensor, tokens: int | None = None) -> Tensor:
    """Mean over tokens of KL(p₀(·|C) ‖ p_θ) = Σ_bins p₀ (log p₀ - log p_θ)   ([Bai] App. A.1).  [M, k+1] twice -> []

    `tokens`: the token count of the whole batch when this is one of its parts; the parts then add up to its mean.
    """
    weight = teacher_logp.exp()
    # a bin that the teacher gives nothing adds nothing, even where its logarithm is no number
    gap = torch.where(weight > 0, weight * (teacher_logp - student_logp), 0.0)
    return gap.sum() / (tokens or len(teacher_logp))
