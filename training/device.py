"""Where a job computes, and in which precision its matrix products run."""

from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from training import ranks

Precision = Literal["auto", "float32", "bfloat16"]
LEAST_HALF_WIDTH = 320  # below it a CPU spends more on converting than bfloat16 products save (measured with AMX)


def device_of_choice() -> torch.device:
    """The accelerator if there is one; of several, the one that is this process's own."""
    return torch.device("cuda", ranks.local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def in_half(precision: Precision, device: torch.device, width: int) -> bool:
    """Whether matrix products run in bfloat16; "auto": on a GPU, and on a CPU with AMX from a width of 320."""
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" or (width >= LEAST_HALF_WIDTH and has_amx())


@cache
def has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware tiles; without them float32 is the faster one."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return False


def products(half: bool, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in bfloat16 inside, if `half`; weights, norms and scores stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=half)
