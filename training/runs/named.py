"""The models and the files beside data/*.jsonl that a run's settings name, by hashes: what a run goes on with must be what it began with."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TASKS = "*/task.json"  # of the hhh job: a folder a category


def named_models(settings: Any) -> dict[str, str]:
    """Of every model directory that the settings name, wherever in them, the hash of its manifest, which has those of its files.

    Of a directory without a manifest it is that of the files themselves.
    """
    found = {}
    for text, root in _models(settings):
        manifest = root / "manifest.json"
        found[text] = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else _hash_of_files(root)
    return found


def named_files(settings: Any, data: Path) -> dict[str, str]:
    """Every file that the settings name, wherever in them, and CATEGORY/task.json of `data` and of directories that they name."""
    found = {f"{data.name}/{task.relative_to(data)}": hash_of(task) for task in sorted(data.glob(TASKS))}
    for text in _texts(settings):
        path = _path_of(text)
        if path.is_file():
            found[text] = hash_of(path)
        elif path.is_dir():
            found |= {str(task): hash_of(task) for task in sorted(path.glob(TASKS))}
    return found


def model_directories(settings: Any) -> list[Path]:
    """The directories themselves, in the order of the settings."""
    return list(dict.fromkeys(root for _, root in _models(settings)))


def hash_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _texts(settings: Any) -> Iterator[str]:
    """Every text in the settings that is not empty, in lists and tables too."""
    if isinstance(settings, dict | list | tuple):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from _texts(value)
    elif isinstance(settings, str) and settings:
        yield settings


def _path_of(text: str) -> Path:
    """What a setting names, written PATH or NAME=PATH."""
    path = Path(text)
    return path if path.exists() else Path(text.rpartition("=")[2] or text)


def _models(settings: Any) -> Iterator[tuple[str, Path]]:
    for text in _texts(settings):
        root = _path_of(text)
        if (root / "manifest.json").is_file() or (root.is_dir() and any(root.glob("*.safetensors"))):
            yield text, root


def _hash_of_files(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root)
        if not any(part.startswith(".") for part in name.parts):
            found.update(f"{name.as_posix()} {hash_of(path)}\n".encode())
    return found.hexdigest()
