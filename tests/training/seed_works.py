"""What the processes of test_seeds do. Each looks it up anew, so this module asks for little."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import torch

from training.experiments.seeds import Tick, each_seed
from training.experiments.writing import Options

__all__ = ["PIDS", "STEPS", "broken", "drawn", "each_seed", "killed", "options", "patient"]

STEPS = 2
PIDS = "PIDS_OF_SEEDS"  # in the environment of the run below: where its seeds write who they are


def drawn(root: Path, seed: int, _quick: bool, tick: Tick) -> dict[str, object]:
    """A seed that tells where and how it ran."""
    root.mkdir()
    for step in range(STEPS):
        tick(f"step {step}")
    numbers = [random.Random(seed).random(), float(torch.randn(1, generator=torch.Generator().manual_seed(seed)))]
    return {"numbers": numbers, "process": os.getpid(), "threads": torch.get_num_threads()}


def broken(_root: Path, seed: int, _quick: bool, tick: Tick) -> int:
    """Fails for seed 1; seed 0 would go on for longer than a test may take."""
    tick("begun")
    if seed == 1:
        raise ValueError("no such word")
    time.sleep(1000)
    return seed


def killed(_root: Path, _seed: int, _quick: bool, _tick: Tick) -> int:
    """What the kernel does to a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def patient(_root: Path, seed: int, _quick: bool, _tick: Tick) -> int:
    """Says that it began, and works for minutes."""
    (Path(os.environ[PIDS]) / str(seed)).write_text(str(os.getpid()))
    time.sleep(1000)
    return seed


def options(processes: int, count: int) -> Options:
    return Options(quick=False, seeds=count, out=None, threads=1, processes=processes)
