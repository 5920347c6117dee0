"""The files beside data/*.jsonl that a run's numbers come from, by a hash of each: prompts that its settings name, and tasks."""

import hashlib
from pathlib import Path
from typing import Any

from training.runs.named_models import path_of, texts

TASKS = "*/task.json"  # of the hhh job: a folder a category


def named_files(settings: Any, data: Path) -> dict[str, str]:
    """Every file that the settings name, wherever in them, and CATEGORY/task.json of `data` and of directories that they name."""
    found = {f"{data.name}/{task.relative_to(data)}": hash_of(task) for task in sorted(data.glob(TASKS))}
    for text in texts(settings):
        path = path_of(text)
        if path.is_file():
            found[text] = hash_of(path)
        elif path.is_dir():
            found |= {str(task): hash_of(task) for task in sorted(path.glob(TASKS))}
    return found


def hash_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
