"""One experiment over several seeds, as many at once as there are cores, with one progress bar for all that they do."""

import itertools
import multiprocessing
import signal
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TypeVar

import torch

from training.experiments.writing import Options
from training.runs.progress import Bar

Found = TypeVar("Found")
Tick = Callable[[str], None]  # called after each step of a seed, with a few words about it
OneSeed = Callable[[Path, int, bool, Tick], Found]  # scratch folder, seed, quick, tick
# New interpreters: a forked one would have torch's pools without the threads that work in them.
SPAWN = multiprocessing.get_context("spawn")


class SeedFailed(RuntimeError):
    """A seed's process did not end well; the message has its traceback."""


def each_seed(options: Options, title: str, steps: int, one_seed: OneSeed[Found]) -> list[Found]:
    """Return what `one_seed` finds for each seed, in order; each ticks `steps` times.

    A seed depends on its number alone, so the findings are the same whatever the number of processes. `one_seed` is a function of
    a module, since another process looks it up anew.
    """
    done = itertools.count(1)
    with Bar(title, options.seeds * steps) as bar, tempfile.TemporaryDirectory() as scratch:

        def tick(note: str) -> None:
            bar.at(next(done), note)

        if min(options.processes, options.seeds) == 1:
            return [one_seed(Path(scratch) / str(seed), seed, options.quick, tick) for seed in range(options.seeds)]
        return _at_once(options, Path(scratch), one_seed, tick)


def _at_once(options: Options, scratch: Path, one_seed: OneSeed[Found], tick: Tick) -> list[Found]:
    """Deal the seeds out to `options.processes` processes; whatever ends this ends them all."""
    found: dict[int, Found] = {}
    waiting = list(range(options.seeds))
    working: dict[Connection, SpawnProcess] = {}  # by our end of its pipe
    has: dict[Connection, int] = {}  # the seed that it has been given

    def give(ours: Connection) -> None:
        has[ours] = waiting.pop(0)
        try:
            ours.send(has[ours])
        except ConnectionError:
            raise died(ours) from None

    def died(ours: Connection) -> SeedFailed:
        working[ours].join()
        reason = f"its process ended before it was done, exit code {working[ours].exitcode}"
        return SeedFailed(f"seed {has[ours]}: {reason}")

    try:
        for _ in range(min(options.processes, options.seeds)):
            ours, theirs = SPAWN.Pipe()
            given = (theirs, one_seed, scratch, options.quick, options.threads)
            process = SPAWN.Process(target=_work, args=given, daemon=True)  # one that is not could outlive Ctrl-C here
            process.start()
            theirs.close()  # theirs alone now, so that we read its end when they end
            working[ours] = process
            give(ours)
        while len(found) < options.seeds:
            told = wait(list(working))
            for ours in [each for each in working if each in told]:
                try:
                    kind, said = ours.recv()
                except (EOFError, ConnectionError):  # the latter of one that died before it had read which seed is its
                    raise died(ours) from None
                if kind == "tick":
                    tick(said)
                elif kind == "failed":
                    raise SeedFailed(f"seed {has[ours]} failed:\n{said}")
                else:
                    found[has[ours]] = said
                    if waiting:
                        give(ours)
    finally:
        for process in working.values():
            process.kill()  # their folders go with ours, so there is nothing to leave in order
        for ours, process in working.items():
            process.join()
            ours.close()
    return [found[seed] for seed in range(options.seeds)]


def _work(theirs: Connection, one_seed: OneSeed[Found], scratch: Path, quick: bool, threads: int) -> None:
    """Do one seed after the other as they are given, and say so, until the other end is closed or ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the first process ends the others
    torch.set_num_threads(threads)
    while True:
        seed = theirs.recv()
        try:
            theirs.send(("found", one_seed(scratch / str(seed), seed, quick, lambda note: theirs.send(("tick", note)))))
        except Exception:  # recorded by the process that gave the seed, which raises it
            theirs.send(("failed", traceback.format_exc()))
