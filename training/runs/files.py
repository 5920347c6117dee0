"""Writing files and directories so that a kill at any moment leaves either the old or the new one, whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.processes import ranks


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` at once: written beside it, synced, renamed over it."""
    part = path.with_name(f".{path.name}.part{ranks.rank() or ''}")  # several processes may fail at once
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON; a number that JSON has no word for (NaN) is a ValueError."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def replace_directory(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a directory beside `path`, then put it in the place of `path`.

    A kill leaves `path` as it was, or for the instant between two renames only `.path.old`, which `recover_directory` puts back.
    """
    part, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    fill(part)
    for file in sorted(part.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    sync_directory(part)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    part.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_directory(path: Path) -> None:
    """Finish or undo what a kill inside `replace_directory` left behind."""
    part, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
