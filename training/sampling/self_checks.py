"""What must hold before the first update; each has ruined somebody's run without a word."""

from typing import Any

import torch
from torch import Tensor

from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.sampling.rollouts import Rollout, policy_logp, preference_scores

# Nats a token, points of score. fp32 passes of different shape agree to about 1e-5; a real mistake shows as 0.1 and more.
LOGP_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-3
# The mean over tokens of the sampler's gap where products are bfloat16: 8 bits put logits of 16 to 32 an eighth apart, so
# that one unlikely token may be off by tenths while the mean stays near a hundredth; other weights move the mean by tenths.
HALF_TOLERANCE = 0.1


def check_tokenizers(policy: Any, other: Any, name: str = "preference model") -> None:
    """Both models must read the same tokens, since replies are read as they were sampled, never re-tokenised."""
    if policy.pad_token_id == policy.eos_token_id:
        raise JobFailed("the policy's pad token is its end token; give its tokenizer a pad token of its own")
    if policy.get_vocab() != other.get_vocab() or policy.eos_token_id != other.eos_token_id:
        raise JobFailed(f"the {name} reads other tokens than the policy writes; give one that shares its tokenizer")


def check_start(
    policy: Any, reference: Any, pm: PreferenceModel, rollout: Rollout, temperature: float, *, half: bool = False
) -> dict[str, float]:
    """Compare sampler, training forward, reference and batches of other shapes on a first rollout; the gaps found.

    Ratio 1: the sampler's log-probabilities are those of the training forward. KL 0: the reference is the policy.
    Packed equals plain: sorted parts give what single rows give, for policy and preference model. JobFailed otherwise.
    `half`: the run multiplies in bfloat16. Sampler and reference are compared as they run, the sampler by its mean gap, since
    two kernels round apart; one kernel gives policy and reference the same bits. What depends on padding is looked for in
    float32, where a mistake cannot hide in rounding.
    """
    mask = rollout.mask
    logp = policy_logp(policy, rollout, temperature, half=half)
    _require_numbers(logp[mask], "policy", "model")
    ref_logp = policy_logp(reference, rollout, temperature, half=half)
    rows = [rollout.rows(torch.tensor([row], device=mask.device)) for row in range(min(8, len(mask)))]
    exact = policy_logp(policy, rollout, temperature) if half else logp
    single = [policy_logp(policy, row, temperature)[row.mask] for row in rows]
    together = [exact[index][mask[index]] for index in range(len(rows))]
    end_id = int(rollout.tokens.max())  # any token does: this compares shapes, not scores
    scores = preference_scores(pm, rollout, end_id)[: len(rows)]
    _require_numbers(scores, "preference model", "preference_model")
    alone = torch.cat([preference_scores(pm, row, end_id) for row in rows])
    sampler = (logp - rollout.old_logp)[mask].abs()
    found = {
        "sampler_gap": float(sampler.max()),
        "sampler_gap_mean": float(sampler.mean()),
        "reference_gap": float((logp - ref_logp)[mask].abs().max()),
        "padding_gap": max(float((a - b).abs().max()) for a, b in zip(single, together, strict=True)),
        "score_gap": float((scores - alone).abs().max()),
    }
    for name, bound, meaning in (
        (
            "sampler_gap_mean" if half else "sampler_gap",
            HALF_TOLERANCE if half else LOGP_TOLERANCE,
            "the sampler's log-probabilities are not those of the training forward (ratio 1)",
        ),
        ("reference_gap", LOGP_TOLERANCE, "the reference is not the initial policy (KL 0)"),
        ("padding_gap", LOGP_TOLERANCE, "log-probabilities depend on padding or on the company in a batch"),
        ("score_gap", SCORE_TOLERANCE, "scores depend on padding or on the company in a batch"),
    ):
        if not found[name] <= bound:
            raise JobFailed(f"self-check at the start: {meaning}; {name} is {found[name]:.2g}, bound {bound:g}")
    return found


def _require_numbers(found: Tensor, whose: str, setting: str) -> None:
    if not bool(found.isfinite().all()):
        raise JobFailed(
            f"self-check at the start: the {whose} gives no numbers: its weights are damaged, or what it computes overflows; "
            f"restore `{setting}` from a copy or name another one"
        )
