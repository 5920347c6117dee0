"""What a process and all that it started use: memory by the kernel's proportional count, processor time."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import psutil


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def proportional_mb(rollup: str) -> float:
    """The PSS of one /proc/PID/smaps_rollup: what the process holds alone, and its share of what it shares."""
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Their memory together, each shared page counted once over all that share it."""
    total = 0.0
    for process in processes:
        try:
            total += proportional_mb(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            continue
    return total


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Processor time of them so far, with that of children which have ended."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
