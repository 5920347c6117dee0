"""What a measuring job has found so far, a line a part: a run that is killed goes on with the next part.

`parts.jsonl` begins with the settings it was measured under, the hashes of data/ and those of the models and files that the settings
name, so that no part of another measurement is ever taken for one of this. A part with a number that is not finite is not kept:
the job ends there. `metrics.jsonl` and the event files have a line a part; they are written anew from the parts at each start, so that
none is there twice. Several processes of one run work on each part together: forward passes are shared among them (rollouts.py).
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.processes import distributed, ranks
from training.runs import files
from training.runs.finite import require_finite
from training.runs.named import named_files, named_models
from training.runs.run_folder import RunFolder, RunFolderError


class Parts:
    """The parts of one run; each is a JSON value, and comes back as JSON would give it whether or not the run was killed."""

    def __init__(self, folder: RunFolder, config: Any) -> None:
        """`config` is the run's frozen config: parts that were measured under another are refused."""
        self.folder, self.path = folder, folder.parts_file
        self._logged = 0
        # by how many threads is no part of what is measured
        settings = {name: value for name, value in dataclasses.asdict(config).items() if name != "threads"}
        self._kept: dict[str, Any] = {}
        self._settings = settings = json.loads(json.dumps(settings))
        begin = {
            "settings": settings,
            "data": folder.data_hashes(),
            "models": named_models(settings),
            "files": named_files(settings, folder.data),
        }
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []  # a kill may cut the last
        if not lines:
            if ranks.leads():
                files.write_bytes(self.path, json.dumps(begin).encode() + b"\n")
        elif (begun := {"files": begin["files"]} | json.loads(lines[0])) != begin:  # earlier versions name no files
            raise RunFolderError(
                f"{_difference(begun, begin, self.path)}; start a new folder, or delete parts.jsonl to measure again"
            )
        else:
            self._kept = {part["part"]: part["found"] for part in map(json.loads, lines[1:])}
            if ranks.leads():
                files.write_bytes(self.path, b"".join(line + b"\n" for line in lines))
        folder.cut_metrics(-1)

    def measure(
        self,
        names: Sequence[str],
        work: Callable[[str], Any],
        each: Callable[[int, Any], None] | None = None,
        *,
        whose: Callable[[str, int], str],
        told: Callable[[str, Any], Mapping[str, Any]],
        of: int = 0,
    ) -> list[Any]:
        """Return what `work` found for each name, measuring those that are missing; `each` hears of every part in order.

        `whose` says in words what a number of a part belongs to, from its place in the part's list. `told` gives what is logged of a
        part; `of` is how many parts the run has where more are measured after these.
        """
        of = of or self._logged + len(names)
        for step, name in enumerate(names, 1):
            if name not in self._kept:
                found = distributed.said_first(work(name))
                self.require_finite(found, partial(whose, name))
                self._keep(name, found)
            self._logged += 1
            self.folder.log(step=self._logged, of=of, **told(name, self._kept[name]))
            if each is not None:
                each(step, self._kept[name])
        return [self._kept[name] for name in names]

    def require_finite(self, found: Any, whose: Callable[[int], str]) -> None:
        """JobFailed where a number in `found` is not finite; the parts before it stay."""
        kept = f"{self.path.name} keeps what was measured before" if self._kept else ""
        require_finite(found, self._settings, whose, kept)

    def _keep(self, name: str, value: Any) -> None:
        line = json.dumps({"part": name, "found": value}, ensure_ascii=False, allow_nan=False)
        self._kept[name] = json.loads(line)["found"]
        if ranks.leads():
            with self.path.open("ab") as file:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())


def _difference(begun: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> str:
    """What is not as it was, in words."""
    for part in ("settings", "data", "models", "files"):
        before, after = begun.get(part, {}), now[part]
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                if part == "settings":
                    return f"{name} was {before.get(name)!r} when {path} was begun and is {after.get(name)!r} now"
                return f"{name} is not what it was when {path} was begun"
    return f"something was otherwise when {path} was begun"
