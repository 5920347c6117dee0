"""The models that a run's settings name, by a hash of their files: what a run goes on with must be what it began with."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def named_models(settings: Any) -> dict[str, str]:
    """Of every model directory that the settings name, wherever in them, the hash of its manifest, which has those of its files.

    Of a directory without a manifest it is that of the files themselves.
    """
    found = {}
    for text, root in _models(settings):
        manifest = root / "manifest.json"
        found[text] = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else _hash_of_files(root)
    return found


def model_directories(settings: Any) -> list[Path]:
    """The directories themselves, in the order of the settings."""
    return list(dict.fromkeys(root for _, root in _models(settings)))


def texts(settings: Any) -> Iterator[str]:
    """Every text in the settings that is not empty, in lists and tables too."""
    if isinstance(settings, dict | list | tuple):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from texts(value)
    elif isinstance(settings, str) and settings:
        yield settings


def path_of(text: str) -> Path:
    """What a setting names, written PATH or NAME=PATH."""
    path = Path(text)
    return path if path.exists() else Path(text.rpartition("=")[2] or text)


def _models(settings: Any) -> Iterator[tuple[str, Path]]:
    for text in texts(settings):
        root = path_of(text)
        if (root / "manifest.json").is_file() or (root.is_dir() and any(root.glob("*.safetensors"))):
            yield text, root


def _hash_of_files(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root)
        if not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                found.update(f"{name.as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()
