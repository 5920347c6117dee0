"""The frame of every training job: one folder, one process, a reason on disk when it fails.

Exit codes: 0 finished (or finished before), 2 the input or the settings cannot be used (failure.json says why),
1 a fault of the program (failure.json has it, the traceback follows).
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from training.config import BadConfig
from training.records import BadRecord
from training.run_folder import RunFolder, RunFolderError
from training.snapshots import BadSnapshot


class JobFailed(RuntimeError):
    """A run that cannot go on for a reason its owner can understand and act on."""


REFUSALS = (BadConfig, BadRecord, BadSnapshot, JobFailed, RunFolderError)


def run_job(path: str, work: Callable[[RunFolder], Mapping[str, Any]]) -> int:
    """Lock the folder, do `work` unless it is done already, write result.json or failure.json; return the exit code."""
    try:
        folder = RunFolder(path)
        with folder.lock():
            if folder.finished:
                print(f"{folder.path} is finished; its result.json stands", file=sys.stderr)
                return 0
            folder.clear_failure()
            return _recorded(folder, work)
    except RunFolderError as busy:  # no folder, or another process has it: nothing of ours to write there
        print(busy, file=sys.stderr)
        return 2


def _recorded(folder: RunFolder, work: Callable[[RunFolder], Mapping[str, Any]]) -> int:
    try:
        folder.write_result(work(folder))
    except REFUSALS as refusal:
        folder.write_failure(str(refusal))
        print(refusal, file=sys.stderr)
        return 2
    except OSError as fault:
        _write_failure(folder, f"the disk or a file failed: {fault}")
        raise
    except Exception as fault:
        folder.write_failure(f"{type(fault).__name__}: {fault}")
        raise
    return 0


def _write_failure(folder: RunFolder, reason: str) -> None:
    """Write failure.json, or only say the reason when the disk that failed is this one."""
    try:
        folder.write_failure(reason)
    except OSError:
        print(reason, file=sys.stderr)
