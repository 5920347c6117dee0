"""Several gloo processes of one run on this machine, forked from the test so that none pays for the imports again."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch

from training.runs.run_folder import RunFolder

CONTEXT = multiprocessing.get_context("fork")


def started(count: int, work: Callable[[], int]) -> list[BaseProcess]:
    """Start `work` on `count` processes, told who they are as torchrun tells it; the exit code is what it returns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in told.items()}
        torch.set_num_threads(1)  # the threads of the forked pool did not come along
        raise SystemExit(work())

    processes = [CONTEXT.Process(target=one, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def together(count: int, work: Callable[[], int]) -> list[int | None]:
    """Run `work` on `count` processes to the end; their exit codes."""
    processes = started(count, work)
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "a process hangs"
    return [process.exitcode for process in processes]


def killed(folder: RunFolder, processes: list[BaseProcess], lines: int) -> None:
    """Kill them all once so many lines are logged; they were in mid-work."""
    while len(folder.metrics()) < lines and all(process.is_alive() for process in processes):
        time.sleep(0.002)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    assert not folder.finished
