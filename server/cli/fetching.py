"""Bringing a model's files to where they are served from, and checking them, each in a process of its own.

The server imports neither torch nor transformers: `python -m training.models.snapshots check` looks at the files,
`python -m workers.reply.endpoint` asks an endpoint.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from server.errors import BadInput, Conflict, WhetstoneError
from server.services.snapshots.registry import MANIFEST, folder_manifest

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
CHECK_SECONDS = 600  # a large model's files are hashed
PROBE_SECONDS = 180
# What a servable model needs, from the top of the repository only: no pickles, no code, no second copy in another form.
_DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(
    sys.argv[1], revision=sys.argv[2] or None, local_dir=sys.argv[3],
    allow_patterns=["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt"],
    ignore_patterns=["*/*", "consolidated*"],
)
"""


def place(source: str, target: Path, revision: str | None) -> dict[str, Any]:
    """Copy a directory, or download a hub id, to `target`, which appears whole or not at all; what `check` says about it."""
    if target.exists():
        raise Conflict(f"{target} is there already; choose another name, or remove that folder if nothing uses it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=target.parent) as made:
        part = Path(made) / "model"
        try:
            if Path(source).is_dir():
                shutil.copytree(source, part, ignore=shutil.ignore_patterns(".*", "*.bin", "*.pt", "*.pth", "*.py"))
            else:
                _download(source, part, revision)
        except OSError as error:
            raise WhetstoneError(f"The files could not be written to {target.parent} ({error.strerror}).") from error
        try:
            _sign(part)
            found = check(part)
        except BadInput as error:  # people know the source; the folder it was copied to is gone when they read this
            raise BadInput(error.message.replace(str(part), source.rstrip("/"))) from error
        part.rename(target)
    return found


def _sign(part: Path) -> None:
    """Hold the files against the manifest that came with them, and put one in its place that lists what was taken.

    Only a preference model keeps one, since nothing else tells what it is. BadInput names a file that is not the one listed.
    """
    try:
        came = json.loads((part / MANIFEST).read_text("utf-8"))
        listed, kind = came.get("files") or {}, came.get("kind")
    except (OSError, ValueError, AttributeError):  # none, or another program's: `check` says what is missing
        listed, kind = {}, None
    mine = folder_manifest(part, "pm")
    for name, file in mine["files"].items():
        if name in listed and listed[name].get("sha256") != file["sha256"]:
            raise BadInput(f"{part / name} is damaged: its SHA-256 is not the one in {MANIFEST}.")
    if kind == "pm":
        (part / MANIFEST).write_text(json.dumps(mine, indent=2), "utf-8")
    else:
        (part / MANIFEST).unlink(missing_ok=True)


def _download(source: str, target: Path, revision: str | None) -> None:
    if not HUB_ID.fullmatch(source):
        raise BadInput(f"{source} is neither a directory here nor a hub id such as Qwen/Qwen2.5-0.5B-Instruct.")
    with Console(stderr=True).status(f"Downloading {source} …"):
        done = subprocess.run(
            [sys.executable, "-c", _DOWNLOAD, source, revision or "", str(target)],
            env={**os.environ, "HF_HUB_ETAG_TIMEOUT": "10"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        reason = _last_line(done.stderr)
        raise WhetstoneError(
            f"{source} could not be downloaded ({reason}). If this machine has no way to the hub, download the files elsewhere "
            "and add their directory. For a model that asks for a login, set HF_TOKEN."
        )
    shutil.rmtree(target / ".cache", ignore_errors=True)


def check(folder: Path) -> dict[str, Any]:
    """What training says about a model directory; BadInput with its sentence when it cannot be served."""
    done = _run([sys.executable, "-m", "training.models.snapshots", "check", str(folder)], CHECK_SECONDS)
    if done.returncode != 0:
        raise BadInput(_last_line(done.stderr))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def probe(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint can (streaming, seeds, log-probabilities), found by asking it for a few words."""
    with Console(stderr=True).status(f"Asking {endpoint['base_url']} …"):
        done = _run([sys.executable, "-m", "workers.reply.endpoint", json.dumps(dict(endpoint))], PROBE_SECONDS)
    if done.returncode != 0:
        raise WhetstoneError(f"The endpoint did not answer: {_last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    clone = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(clone), os.environ.get("PYTHONPATH")]))}
    try:
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise WhetstoneError(f"{' '.join(command[1:4])} took longer than {seconds:.0f} s and was stopped.") from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
