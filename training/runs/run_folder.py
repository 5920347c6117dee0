"""The run folder, the whole contract of training: config and data in; metrics, checkpoint, model and result out.

    config.json   data/   metrics.jsonl   events/   checkpoint/{state.json, tensors.safetensors}   model/
    result.json | failure.json

Everything is written atomically, so a process may be killed at any moment. Of several processes that do one run, the first
alone writes; what the others say here is not heard, so that no job need ask which one it is. This module imports no torch until a checkpoint
is written or read: whoever starts jobs reads and writes run folders without paying for it.
"""

import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from training.config import load_config
from training.processes import ranks
from training.runs import files
from training.runs.events import Events
from training.runs.named import hash_of, named_files, named_models

if TYPE_CHECKING:
    import torch

Config = TypeVar("Config")

# Written into config.json beside the settings; no job may have a setting of these names.
PROVENANCE = ("code_version", "job")
# Settings that no number of a run comes from: they may change between a kill and the next start.
FREE = ("threads", "checkpoint_seconds", "checkpoint_steps", "slots", "cache")

TRAINING = Path(__file__).parent.parent
SOURCES = (".py", ".c", ".h")  # what the code version is a hash of


class RunFolderError(RuntimeError):
    """A run folder that cannot be used; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a resume needs: `step` updates are done, `tensors` by name, `state` as it was given."""

    step: int
    tensors: "dict[str, torch.Tensor]"
    state: dict[str, Any]


class RunFolder:
    """One training job's folder; `path` must exist."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunFolderError(f"{self.path} is not a directory; make it and write config.json and data/ into it")
        self.config_file = self.path / "config.json"
        self.data = self.path / "data"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint"
        self.parts_file = self.path / "parts.jsonl"  # of a measuring job, see parts.py
        self.model = self.path / "model"
        self.result_file = self.path / "result.json"
        self.failure_file = self.path / "failure.json"
        self.events = Events(self.path / "events")

    # -- one process at a time ------------------------------------------------------------------------------------
    def _lock_file(self) -> TextIO:
        try:
            file = (self.path / ".lock").open("a+", encoding="utf-8")
            if not os.access(self.path, os.W_OK):  # the lock of an earlier run can be opened all the same
                file.close()
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return file
        except OSError as refused:
            why = f"{self.path} cannot be written to ({refused.strerror})"
            if self.finished:
                raise RunFolderError(f"{why}; it is finished, and its result.json stands") from refused
            raise RunFolderError(f"{why}, as a run must; mend that or give it another folder") from refused

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; another one that asks meanwhile gets a RunFolderError."""
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the process dies
            except OSError as held:
                file.seek(0)
                raise RunFolderError(
                    f"{self.path} is in use by process {file.read().strip() or 'unknown'}; wait for it or stop it",
                ) from held
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            files.recover_directory(self.checkpoint)
            files.recover_directory(self.model)
            yield

    # -- settings -------------------------------------------------------------------------------------------------
    def settings(self) -> dict[str, Any]:
        """Return config.json as it stands, {} when there is none."""
        if not self.config_file.exists():
            return {}
        try:
            settings = json.loads(self.config_file.read_text("utf-8-sig"))  # Windows editors begin files with a mark
        except ValueError as bad:
            raise RunFolderError(f"{self.config_file} is not JSON ({bad}); write it again") from bad
        if not isinstance(settings, dict):
            raise RunFolderError(f"{self.config_file} must hold one JSON object")
        return settings

    def configure(self, cls: type[Config], job: str, **overrides: Any) -> Config:
        """Read config.json as `cls`, overrides first, and write it back complete, with job and code version.

        A run that has a checkpoint, or parts that are measured, keeps the settings it was started with: an override that differs is refused.
        """
        settings = self.settings()
        started = {name: settings.pop(name) for name in PROVENANCE if name in settings}
        self._refuse_other_job(job, started)
        given = {name: _as_json(value) for name, value in overrides.items() if value is not None}
        for name, value in given.items():
            begun = self.checkpoint.exists() or self.parts_file.exists()
            if begun and settings.get(name, value) != value:
                raise RunFolderError(
                    f"{name} was {settings[name]!r} when this run began; start a new folder for {value!r}"
                )
        config = load_config(cls, settings | given)
        complete = dataclasses.asdict(config) | {  # type: ignore[call-overload]
            "job": job,
            "code_version": started.get("code_version") or code_version(),
        }
        if complete != settings | started and ranks.leads():
            files.write_json(self.config_file, complete)
        return config

    def _refuse_other_job(self, job: str, settings: Mapping[str, Any]) -> None:
        if settings.get("job", job) != job:
            raise RunFolderError(f"{self.path} belongs to the job {settings['job']!r}, not {job!r}; use another folder")

    def refuse_others(self, job: str, given: Mapping[str, Any]) -> None:
        """Raise RunFolderError where a finished run is of another job, or was made with other settings, data or files than now."""
        settings = self.settings()
        self._refuse_other_job(job, settings)
        for name, value in given.items():
            asked = _as_json(value)
            if value is not None and name in settings and settings[name] != asked:
                raise RunFolderError(
                    f"{self.path} is finished with {name} {settings[name]!r}; start a new folder for {asked!r}"
                )
        begun = self._begun_on_disk()
        self._refuse_settings(begun.get("settings", {}) if self.checkpoint.exists() else {})
        if "data" in begun:  # runs of earlier versions do not say
            self._refuse_data(begun["data"])
        self._refuse_files(begun)

    def _begun_on_disk(self) -> dict[str, Any]:
        """What a checkpoint, or the parts of a measuring job, say that this run began with; {} where neither is there."""
        state = self.checkpoint / "state.json"
        source = state if state.exists() else self.parts_file
        if not source.exists():
            return {}
        try:
            with source.open("rb") as file:
                said = json.loads(file.read() if source == state else file.readline())
        except ValueError as bad:
            raise RunFolderError(f"{source} is damaged ({bad}); delete it, or start a new folder") from bad
        return dict(said.get("begun", {}) if source == state else said)

    # -- metrics --------------------------------------------------------------------------------------------------
    def log(self, *, step: int, **numbers: Any) -> None:
        """Append one line to metrics.jsonl and its numbers to the event file; NaN, which is no JSON number, is a ValueError."""
        for name, value in numbers.items():
            if isinstance(value, float) and value - value != 0:  # NaN and the infinities alone fail this
                raise ValueError(f"{name} is {value} at step {step}")
        if not ranks.leads():
            return
        with self.metrics_file.open("ab") as file:
            file.write(json.dumps({"step": step, **numbers}, allow_nan=False).encode() + b"\n")
        self.events.write(step, numbers)

    def metrics(self) -> list[dict[str, Any]]:
        """Return every whole line of metrics.jsonl; a last line that a kill cut short is left out."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def cut_metrics(self, step: int) -> None:
        """Drop the lines after `step` and a half-written last one; readers of the event files are told to do so too."""
        if not ranks.leads():
            return
        kept = [line for line in self.metrics() if line["step"] <= step]
        files.write_bytes(self.metrics_file, b"".join(json.dumps(line).encode() + b"\n" for line in kept))
        self.events.resume(step)

    def data_hashes(self) -> dict[str, str]:
        """The files of data/ that a run reads, by their hash."""
        found = sorted(file for file in self.data.glob("*.jsonl*") if file.is_file())
        return {f"data/{path.name}": hash_of(path) for path in found}

    @functools.cached_property
    def _begun_with(self) -> dict[str, dict[str, Any]]:
        """What the numbers of this run come from: the settings, and the files of data/, the models and the files they name by their hashes."""
        settings = {name: value for name, value in self.settings().items() if name not in PROVENANCE + FREE}
        return {
            "settings": settings,
            "data": self.data_hashes(),
            "models": named_models(settings),
            "files": named_files(settings, self.data),
        }

    def _refuse_changes(self, begun: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise RunFolderError when config.json, data/, a file or a model are not those that the checkpoint came from."""
        self._refuse_settings(begun["settings"])
        self._refuse_data(begun["data"])
        self._refuse_files(begun)
        now = self._begun_with["models"]
        for name, was in begun.get("models", {}).items():  # checkpoints of earlier versions do not say
            if now.get(name) != was:
                raise RunFolderError(
                    f"the model {name} is not what it was when this run began; put it back, or start a new folder"
                )

    def _refuse_data(self, begun: Mapping[str, Any]) -> None:
        now = self._begun_with["data"]
        for name in sorted(begun.keys() | now.keys()):
            if begun.get(name) != now.get(name):
                raise RunFolderError(
                    f"{name} of {self.path} is not what it was when this run began; put it back, or start a new folder"
                )

    def _refuse_files(self, begun: Mapping[str, Mapping[str, Any]]) -> None:
        if "files" not in begun:  # runs of earlier versions do not say
            return
        before, now = begun["files"], self._begun_with["files"]
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise RunFolderError(
                    f"the file {name} is not what it was when this run began; put it back, or start a new folder"
                )

    def _refuse_settings(self, begun: Mapping[str, Any]) -> None:
        now = self.settings()
        for name, value in begun.items():
            if name in now and now[name] != value:
                raise RunFolderError(
                    f"{name} was {value!r} when this run began and config.json says {now[name]!r}; "
                    "put it back, or start a new folder"
                )

    # -- checkpoint -----------------------------------------------------------------------------------------------
    def save_checkpoint(self, step: int, tensors: "Mapping[str, torch.Tensor]", state: Mapping[str, Any]) -> None:
        """Replace the checkpoint: tensors as safetensors, `state` as JSON; metrics up to here are on disk first."""
        from training.runs.tensors import write_tensors  # here, so that launching a job imports no torch

        if not ranks.leads():
            return
        if self.metrics_file.exists():
            with self.metrics_file.open("rb") as file:
                os.fsync(file.fileno())

        def fill(part: Path) -> None:
            write_tensors(part / "tensors.safetensors", tensors)
            files.write_json(part / "state.json", {"step": step, "state": dict(state), "begun": self._begun_with})

        files.replace_directory(self.checkpoint, fill)

    def load_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, or None for a fresh start; metrics.jsonl is cut back to its step either way."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not self.checkpoint.exists():
            self.cut_metrics(-1)
            if ranks.leads():
                _ = self._begun_with  # as it is now: a model may be exchanged before the first checkpoint
            return None
        try:
            saved = json.loads((self.checkpoint / "state.json").read_text("utf-8"))
            tensors = load_file(self.checkpoint / "tensors.safetensors")
        except (OSError, ValueError, SafetensorError) as bad:
            raise RunFolderError(f"{self.checkpoint} is damaged ({bad}); delete it to start the run again") from bad
        if ranks.leads() and "begun" in saved:  # the others end with the first
            self._refuse_changes(saved["begun"])
        self.cut_metrics(saved["step"])
        return Checkpoint(saved["step"], tensors, saved["state"])

    # -- what came out --------------------------------------------------------------------------------------------
    def write_model(self, fill: Callable[[Path], object]) -> None:
        """Let `fill` write a directory that then becomes model/ at once."""
        if ranks.leads():
            files.replace_directory(self.model, fill)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, which finishes the run."""
        if not ranks.leads():
            return
        self.failure_file.unlink(missing_ok=True)
        files.write_json(self.result_file, dict(result))

    def write_failure(self, reason: str) -> bool:
        """Write failure.json with the reason; the next start removes it. Of several processes the first reason stands: whether it is this."""
        if ranks.size() > 1 and self.failure_file.exists():
            return False  # the others fail because one did
        files.write_json(self.failure_file, {"reason": reason})
        return True

    def clear_failure(self) -> None:
        """Forget an earlier failure: this start is another try."""
        self.failure_file.unlink(missing_ok=True)

    @property
    def finished(self) -> bool:
        """Whether result.json is there."""
        return self.result_file.exists()

    def result(self) -> dict[str, Any]:
        """Return result.json of a finished run."""
        read: dict[str, Any] = json.loads(self.result_file.read_text("utf-8"))
        return read


def _as_json(value: Any) -> Any:
    """A setting as config.json has it."""
    return list(value) if isinstance(value, tuple) else value


def code_version(root: Path = TRAINING) -> str:
    """Return a hash of every source file of `training`: the same code gives the same 12 digits, with git or without.

    The kernels are sources, too: their C adds in an order that every number of a run comes from.
    """
    digest = hashlib.sha256()
    for source in sorted(file for file in root.rglob("*") if file.suffix in SOURCES):
        digest.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:12]
