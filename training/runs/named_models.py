"""The models that a run's settings name, by a hash of their files: what a run goes on with must be what it began with."""

import hashlib
from pathlib import Path
from typing import Any


def named_models(settings: Any) -> dict[str, str]:
    """Of every model directory that the settings name, wherever in them, the hash of its manifest, which has those of its files.

    Of a directory without a manifest it is that of the files themselves.
    """
    if isinstance(settings, dict | list):
        values = settings.values() if isinstance(settings, dict) else settings
        return {name: found for value in values for name, found in named_models(value).items()}
    if not isinstance(settings, str) or not settings:
        return {}
    root = Path(settings)
    if not root.is_dir():  # snapshots are named NAME=DIR
        root = Path(settings.rpartition("=")[2] or settings)
    if (root / "manifest.json").is_file():
        return {settings: hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()}
    if root.is_dir() and any(root.glob("*.safetensors")):
        return {settings: _hash_of_files(root)}
    return {}


def _hash_of_files(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root)
        if not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                found.update(f"{name.as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()
