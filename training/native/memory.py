"""Memory that is not needed for a while, given back to the kernel without forgetting where it was."""

import ctypes
import functools
import mmap
from collections.abc import Callable

from torch import Tensor


@functools.cache
def _madvise() -> Callable[..., int] | None:
    """The system's call, None where there is none."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    found: Callable[..., int] = ctypes.CDLL(None).madvise
    return found


def give_back(table: Tensor) -> None:
    """Let the kernel take the pages of a table on the CPU whose numbers are to be written anew before they are read.

    An advice: where it is not taken, the memory stays in use. On Linux what is read before it is written is zero.
    """
    advise = _madvise()
    page, first, end = mmap.PAGESIZE, table.data_ptr(), table.data_ptr() + table.nbytes
    begin, whole = -(-first // page) * page, end // page * page  # other tables may share the pages at both ends
    if advise is not None and whole > begin:
        advise(ctypes.c_void_p(begin), ctypes.c_size_t(whole - begin), ctypes.c_int(mmap.MADV_DONTNEED))
