"""The frame of every training job: one folder, one run (of one process or several), a reason on disk when it fails.

Exit codes: 0 finished (or finished before), 2 the input or the settings cannot be used (failure.json says why),
1 a fault of the program (failure.json has it, the traceback follows), 130 interrupted from the keyboard.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from training.config import BadConfig, required
from training.config.loading import beneath
from training.failure import JobFailed
from training.lines.records import BadRecord
from training.models.snapshots import BadSnapshot
from training.processes import distributed, ranks
from training.runs.run_folder import RunFolder, RunFolderError

REFUSED = 2  # the exit code of what cannot be used
INTERRUPTED = 130  # as shells say it of Ctrl-C
REFUSALS = (BadConfig, BadRecord, BadSnapshot, JobFailed, RunFolderError)

Config = TypeVar("Config")
Presets = Mapping[str, Mapping[str, Any]]


def run_job(
    job: str, path: str, work: Callable[[RunFolder], Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> int:
    """Lock the folder, do `work` unless it is done already, write result.json or failure.json; return the exit code.

    `job` and `given`, the settings of the command line: what a finished run must have been made with.
    """
    try:
        folder = RunFolder(path)
        with distributed.joined(), _held(folder):
            if folder.finished:
                folder.refuse_others(job, given or {})
                if ranks.leads():
                    print(f"{folder.path} is finished; its result.json stands", file=sys.stderr)
                return 0
            return _recorded(folder, work)
    except RunFolderError as busy:
        # no folder, another process has it, or it is finished: nothing of ours to write there
        if ranks.leads():
            print(busy, file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        if ranks.leads():
            print(f"\ninterrupted; the same command goes on {_where_it_goes_on(Path(path))}", file=sys.stderr)
        return INTERRUPTED


def _where_it_goes_on(folder: Path) -> str:
    try:
        step = json.loads((folder / "checkpoint" / "state.json").read_text("utf-8"))["step"]
    except (OSError, ValueError, KeyError):  # none yet, or a damaged one, which the next start names
        return "with the parts that are not measured yet" if (folder / "parts.jsonl").exists() else "from the beginning"
    return f"from the checkpoint of step {step}"


def run_command(
    job: str,
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[RunFolder, Mapping[str, Any]], Mapping[str, Any]],
) -> int:
    """Parse the command line, do `work` in the folder that it names with the settings that it gives; the exit code is run_job's."""
    given = vars(parser.parse_args(arguments))
    return run_job(job, given.pop("folder"), lambda folder: work(folder, given), given)


def start(
    folder: RunFolder,
    cls: type[Config],
    job: str,
    given: Mapping[str, Any],
    *needed: str,
    presets: Presets | None = None,
) -> Config:
    """The settings of a run: config.json and the command line over the preset over the defaults; written back complete.

    BadConfig where one of `needed` is empty. From here on torch has the run's threads.
    """
    stated = {name: value for name, value in given.items() if value is not None}
    chosen = beneath(folder.settings(), given, presets) if presets else {}
    config = folder.configure(cls, job, **chosen, **stated)
    required(config, *needed)
    if threads := int(vars(config)["threads"]):
        torch.set_num_threads(threads)
    return config


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold the folder for all processes of this run: the first one locks it, the others hear whether it could."""
    if not ranks.leads():
        refused = distributed.said_first(None)
        if refused:
            raise RunFolderError(refused)
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(folder.lock())
        except RunFolderError as busy:
            distributed.said_first(str(busy))
            raise
        if not folder.finished:
            folder.clear_failure()  # this start is another try
        distributed.said_first(None)
        yield


def _recorded(folder: RunFolder, work: Callable[[RunFolder], Mapping[str, Any]]) -> int:
    try:
        folder.write_result(work(folder))
        distributed.barrier()  # nobody leaves, which would read as a failure, before all is written
    except REFUSALS as refusal:
        if folder.write_failure(str(refusal)):  # of several processes the first to fail speaks
            print(refusal, file=sys.stderr)
        return REFUSED
    except distributed.PeerLost as lost:
        folder.write_failure(str(lost))
        print(lost, file=sys.stderr)
        return 1
    except OSError as fault:
        _write_failure(folder, f"{_who()}the disk or a file failed: {fault}")
        raise
    except Exception as fault:
        folder.write_failure(f"{_who()}{type(fault).__name__}: {fault}")
        raise
    return 0


def _who() -> str:
    return f"process {ranks.rank()} of {ranks.size()}: " if ranks.size() > 1 else ""


def _write_failure(folder: RunFolder, reason: str) -> None:
    """Write failure.json, or only say the reason when the disk that failed is this one."""
    try:
        folder.write_failure(reason)
    except OSError:
        print(reason, file=sys.stderr)
