"""How many tokens one forward pass reads, and the check that what is read together is read as each alone."""

import torch
from torch import Tensor

from training.failure import JobFailed

CPU_TOKENS, GPU_TOKENS = 2048, 32768  # of one pass, padding included: what fits the caches / keeps a GPU busy
# Of a score or logit of order 1, in float32 whatever the run multiplies in: bfloat16 would hide mistakes below a hundredth
# in rounding, and a real one shows as 0.1 and more.
TOLERANCE = 1e-3


def budget(device: torch.device) -> int:
    """The tokens of one pass on this device."""
    return GPU_TOKENS if device.type == "cuda" else CPU_TOKENS


def check_alike(alone: Tensor, together: Tensor, what: str) -> None:
    """JobFailed where company, padding or layout changes what a model says; `what` does, in words."""
    if not bool(alone.isfinite().all()):
        raise JobFailed(
            "self-check failed: the model gives no numbers, so its weights are damaged; restore it from a copy"
        )
    gap = float((alone - together).abs().max())
    if not gap <= TOLERANCE * (1 + float(alone.abs().max())):  # `not <=` also catches NaN
        raise JobFailed(f"self-check failed: {what} (by {gap:.2g}); this model cannot be trained here as it is")
