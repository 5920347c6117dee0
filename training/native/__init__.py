"""Kernels in C for what torch does slowly on a CPU. Everything here has a twin in torch, which runs where this cannot.

    kernels = native.library()
    if kernels is None:  # native.why_not() says why
        ...

The library is compiled on first use (building.py) and called through ctypes, which lets go of Python's lock meanwhile.
Its threads are torch's (team.h); callers hand it `threads()`. Pointers are `tensor.data_ptr()` of contiguous tensors
that the caller keeps alive.
"""

import ctypes
import math
import os
from ctypes import CDLL, c_float, c_int, c_long, c_void_p
from functools import cache
from pathlib import Path
from typing import NamedTuple

from training.native.building import CannotBuild, find


class Loaded(NamedTuple):
    """The library, or why there is none."""

    library: CDLL | None
    path: Path | None
    why_not: str | None
    threads: bool  # whether torch's threads were found


def library() -> CDLL | None:
    """The compiled kernels, None where they cannot be had: then torch does the work."""
    return loaded().library


def why_not() -> str | None:
    """One sentence: why the kernels are not used; None if they are."""
    return loaded().why_not


def threads() -> int:
    """How many threads a kernel may use: torch's setting."""
    import torch

    return torch.get_num_threads() if loaded().threads else 1


@cache
def loaded() -> Loaded:
    """Find or compile, load, give it torch's threads, and try it once."""
    if os.environ.get("WHETSTONE_NATIVE") == "0":
        return Loaded(None, None, "WHETSTONE_NATIVE=0 turns it off", threads=False)
    try:
        path = find(os.environ)
        kernels = ctypes.CDLL(str(path))
        with_threads = _lend_threads(kernels)
        _try(kernels)
    except CannotBuild as error:
        return Loaded(None, None, str(error), threads=False)
    except (OSError, AttributeError) as error:
        return Loaded(None, None, f"the compiled library does not load: {error}", threads=False)
    return Loaded(kernels, path, None, with_threads)


def _lend_threads(kernels: CDLL) -> bool:
    """Hand over the entry points of the OpenMP library that torch has loaded."""
    import torch  # loads it

    beside = sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*"))
    mapped: list[Path] = []
    if Path("/proc/self/maps").exists():
        places = {line.split()[-1] for line in Path("/proc/self/maps").read_text("utf-8").splitlines() if "/" in line}
        mapped = sorted(Path(place) for place in places if "omp" in Path(place).name)
    candidates = [path for path in beside if path in mapped] + mapped + (beside if not mapped else [])
    for path in candidates:
        try:
            pool = ctypes.CDLL(str(path))
            points = (pool.GOMP_parallel, pool.omp_get_thread_num, pool.omp_get_num_threads)
        except (OSError, AttributeError):  # another library with "omp" in its name
            continue
        kernels.team_use.restype = None
        kernels.team_use(*(ctypes.cast(point, c_void_p) for point in points))
        return True
    return False


def _try(kernels: CDLL) -> None:
    """Sum a thousand numbers in two threads, then with a NaN among them."""
    add = kernels.native_sum
    add.restype, add.argtypes = c_float, [c_void_p, c_long, c_int]
    numbers = (c_float * 1000)(*range(1000))
    right = add(numbers, 1000, 2) == 499500
    numbers[77] = float("nan")
    wrong = add(numbers, 1000, 2)
    if not right or not math.isnan(wrong):
        raise CannotBuild("the compiled library fails its self-test")
