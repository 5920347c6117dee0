"""Where a job computes, and in which precision its matrix products run."""

from contextlib import AbstractContextManager
from functools import cache
from math import inf
from pathlib import Path
from typing import Literal

import torch

from training.processes import ranks

Precision = Literal["auto", "float32", "bfloat16"]
# The least width from which a CPU that multiplies bfloat16 (AVX512-BF16, with AMX or without) saves more than converting costs: measured.
LEAST_HALF_WIDTH = 128


def device_of_choice() -> torch.device:
    """The accelerator if there is one; of several, the one that is this process's own."""
    return torch.device("cuda", ranks.local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def in_half(precision: Precision, device: torch.device, width: int) -> bool:
    """Whether matrix products run in bfloat16; "auto": on a GPU, and on a CPU that has instructions for it if `width` pays."""
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" or width >= least_half_width()


@cache
def least_half_width() -> float:
    """The width from which bfloat16 products are the faster ones on this CPU; infinite without instructions for them."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return inf
    return LEAST_HALF_WIDTH if "avx512_bf16" in told.split() else inf


def products(half: bool, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in bfloat16 inside, if `half`; weights, norms and scores stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=half)
