"""Starting a training job on its run folder and following it: `python -m training.<job> FOLDER` in a process of its own.

Where several devices are configured torch's launcher starts as many processes, which do the job together. The job dies with the worker that started it; whoever takes the step up again starts it on the same folder, where it goes on
from its checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.embedded.process import die_with_parent
from training.runs.run_folder import RunFolder, RunFolderError

ROOT = Path(__file__).resolve().parent.parent  # so that `-m training.…` is found from wherever the worker was started
POLL_SECONDS = 1.0
STOP_SECONDS = 10.0  # between asking a job to end and ending it
FOLDER_SECONDS = 30.0  # for the job of a killed worker to let go of the folder; the kernel needs far less
TAIL_BYTES = 4_000
CURVE_POINTS = 200  # of each curve kept for the page; every second one is dropped when there are twice as many
CURVES = ("loss", "accuracy", "margin", "score_mean", "reward_mean", "kl", "length_mean", "entropy", "clip_fraction")


class JobFailed(Exception):
    """The job ended without a result; the message is for the person who decides about a retry."""


class JobStopped(Exception):
    """Whoever follows the job asked for its end: the round was cancelled or the step belongs to another worker."""


class Curve:
    """Points of one number, evenly thinned to CURVE_POINTS .. 2 x CURVE_POINTS; the newest is always the last."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self._stride, self._seen, self._last_is_extra = 1, 0, False

    def add(self, step: float, value: float) -> None:
        """Take in the next point."""
        if self._last_is_extra:
            self.points.pop()
        self.points.append([step, round(value, 5)])
        self._last_is_extra = self._seen % self._stride != 0
        self._seen += 1
        if len(self.points) >= 2 * CURVE_POINTS:
            newest = self.points[-1]
            del self.points[1::2]
            self._stride *= 2
            self._last_is_extra = self.points[-1] is not newest
            if self._last_is_extra:
                self.points.append(newest)


class Metrics:
    """What metrics.jsonl has said so far: the newest line, and thinned curves of a few numbers."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.newest: dict[str, Any] = {}
        self._curves: dict[str, Curve] = {}
        self._place = (0, 0)  # inode and byte read up to

    def read(self) -> bool:
        """Take in the whole lines that are new; a file that was cut back by a resume is read again from its start."""
        if not self.file.exists():
            return False
        state = self.file.stat()
        if self._place[0] != state.st_ino or self._place[1] > state.st_size:
            self._place, self._curves = (state.st_ino, 0), {}
        with self.file.open("rb") as file:
            file.seek(self._place[1])
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._place = (self._place[0], self._place[1] + len(whole))
        for line in whole.splitlines():
            self._take(json.loads(line))
        return bool(whole)

    def _take(self, line: dict[str, Any]) -> None:
        self.newest = line
        for name in CURVES:
            if isinstance(line.get(name), int | float):
                self._curves.setdefault(name, Curve()).add(line["step"], line[name])

    @property
    def curves(self) -> dict[str, list[list[float]]]:
        """[[step, value], …] by name."""
        return {name: curve.points for name, curve in self._curves.items()}

    def progress(self) -> dict[str, Any]:
        """The newest line with the curves beside it."""
        return {**self.newest, "curves": self.curves}


def launch(folder: Path, job: str, follow: Callable[[Metrics], bool], processes: int = 1) -> dict[str, Any]:
    """Run the job to its end and return result.json; `follow` is called each second and answers whether to go on.

    Raises JobFailed with the job's own reason, or JobStopped when `follow` said no.
    """
    run = RunFolder(folder)
    if run.finished:
        return run.result()
    _wait_until_free(run)
    metrics = Metrics(run.metrics_file)
    with (folder / "log.txt").open("ab") as log:
        log_begins = log.tell()
        process = subprocess.Popen(
            command(folder, job, processes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,  # one group, so that helpers of the job end with it
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - calls nothing that could wait for a lock
        )
        try:
            while True:
                try:
                    process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    metrics.read()
                    if not follow(metrics):
                        raise JobStopped(job) from None
                else:
                    break
        finally:
            _end(process)
    metrics.read()
    follow(metrics)
    if not run.finished:
        raise JobFailed(_reason(run, process.returncode, log_begins))
    return run.result()


def command(folder: Path, job: str, processes: int) -> list[str]:
    """The command line of a job of so many processes on this host."""
    together = ["-m", "training.processes.together", str(processes)]
    return [sys.executable, *(together if processes > 1 else []), "-m", f"training.{job}", str(folder)]


def _wait_until_free(run: RunFolder) -> None:
    deadline = time.monotonic() + FOLDER_SECONDS
    while True:
        try:
            with run.lock():
                return
        except RunFolderError as busy:
            if time.monotonic() > deadline:
                raise JobFailed(f"{busy}. Another process still works on this run; end it and try again.") from busy
            time.sleep(POLL_SECONDS / 4)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the job's whole group, politely first."""
    for message, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, message)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def _reason(run: RunFolder, code: int, log_begins: int) -> str:
    """failure.json if the job could still write it, else how it ended and the end of what it said."""
    if run.failure_file.exists():
        return str(json.loads(run.failure_file.read_text("utf-8"))["reason"])
    how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        how += " (the system does that when memory runs out)"
    with (run.path / "log.txt").open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(log_begins, log.tell() - TAIL_BYTES))
        tail = log.read().decode("utf-8", "replace").strip()
    return f"The job {how}. The end of its log:\n{tail or '(empty)'}"
