"""Two processes that take turns: the same piece of work by ours and by a peer, one at a time, in pairs, in one run.

A side is a process of its own, so that peak memory is its own and each has its own versions of libraries. It says a line of
JSON whenever it is ready for a turn (what the turn before took), waits for "go", works, and says so again.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers"
OURS_PYTHON = ROOT / ".venv" / "bin" / "python"
PEERS_PYTHON = PEERS / "bin" / "python"


class Turns:
    """The end of the line inside a side's process."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what libraries print must not fall into the line
        self._report: dict[str, Any] = {}
        self._began = self._worked = 0.0

    def begin(self) -> None:
        """Report the turn before and wait for the next; the process ends here when there is none."""
        self._out.write(json.dumps(self._report) + "\n")
        if sys.stdin.readline().strip() != "go":
            self._out.flush()
            os._exit(0)  # in the middle of someone's training loop, and nothing of it is wanted any more
        self._began, self._worked = time.perf_counter(), time.process_time()

    def end(self, **numbers: Any) -> None:
        """Stop the clock of this turn."""
        import torch

        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            memory = torch.cuda.max_memory_allocated() / 2**20
        took = {
            "seconds": time.perf_counter() - self._began,
            "cpu_seconds": time.process_time() - self._worked,  # of all threads; holds on a busy machine too
        }
        self._report = took | {"peak_mb": memory, **numbers}


class Side:
    """One side, seen from outside."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], *, peer: str = "", threads: int, device: str
    ) -> None:
        """`peer`: "" for ours, else the folder of libraries that goes first ("." for none)."""
        self.name = name
        environ = os.environ | {
            "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore",
            "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONPATH": str(PEERS / peer) if peer not in ("", ".") else "",
        }  # fmt: skip
        if device == "cpu":
            environ["CUDA_VISIBLE_DEVICES"] = ""
        python = PEERS_PYTHON if peer else OURS_PYTHON
        if not python.exists():
            sys.exit(f"{python} is missing: run `make peers` first")
        log = ROOT / ".bench" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        self._log = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments], cwd=ROOT, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _listen(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.flush()
            sys.exit(f"{self.name} ended:\n{Path(self._log.name).read_text()[-3000:]}")
        return dict(json.loads(line))

    def turn(self) -> dict[str, Any]:
        """Let it work once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._listen()

    def cpu_seconds(self) -> float:
        """Processor time of the process so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Processor seconds that the whole machine has spent, those taken by a hypervisor included."""
    with Path("/proc/stat").open() as file:
        fields = [int(part) for part in file.readline().split()[1:]]
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6] + fields[7]) / os.sysconf("SC_CLK_TCK")


def in_turns(sides: Sequence[Side], rounds: int, limit: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """All sides once a round, `rounds` times, every other round backwards; medians, and how busy others kept the machine.

    `limit` is asked in every round too, since what the machine can do drifts as much as what it does.
    """
    taken: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    limits: list[dict[str, float]] = []
    own_seconds = lambda: sum(side.cpu_seconds() for side in sides) + time.process_time()
    began, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    for number in range(rounds):
        limits.append(limit())
        for side in sides if number % 2 == 0 else reversed(sides):
            taken[side.name].append(side.turn())
    wall = time.perf_counter() - began
    others = busy_seconds() - busy - (own_seconds() - own)
    ours = [turn["seconds"] for turn in taken[sides[0].name]]
    found: dict[str, Any] = {
        "others_share": round(max(0.0, others) / (wall * (os.cpu_count() or 1)), 3),
        "rounds": rounds,
    }
    found["limits"] = {kind: statistics.median(one[kind] for one in limits) for kind in limits[0]}
    for side in sides:
        turns = taken[side.name]
        seconds = [turn["seconds"] for turn in turns]
        work = [statistics.median(turn["cpu_seconds"] for turn in taken[name]) for name in (side.name, sides[0].name)]
        ratios = sorted(theirs / mine for theirs, mine in zip(seconds, ours, strict=True))
        found[side.name] = turns[-1] | {
            "seconds": statistics.median(seconds), "all_seconds": [round(one, 4) for one in seconds],
            "ratio": statistics.median(ratios), "cpu_ratio": work[0] / work[1], "ratio_least": ratios[0], "ratio_most": ratios[-1],
        }  # fmt: skip
    return found
