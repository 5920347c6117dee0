"""What the files of an installation say about its health: packages as locked, weights as made."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "training" / "starter" / "model"


@dataclass(frozen=True)
class Check:
    """One line of `whetstone doctor`."""

    name: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def check_packages(lock: Path = ROOT / "requirements" / "run.txt") -> Check:
    """Whether every locked package is installed, in its locked version."""
    mend = "Run `make run` (or `python3 scripts/install.py`) again."
    if not lock.is_file():
        return Check("Packages", ok=False, detail=f"{lock} is not there", mend="Restore it from the repository.")
    wanted = dict(line.split("==") for line in lock.read_text().splitlines() if "==" in line)
    missing, other = [], []
    for name, exact in wanted.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if installed != exact:
            other.append(f"{name} {installed} instead of {exact}")
    if missing:
        return Check("Packages", ok=False, detail=f"not installed: {', '.join(missing)}", mend=mend)
    if other:
        return Check("Packages", ok=False, detail=f"not as tested: {', '.join(other)}", mend=mend, needed=False)
    return Check("Packages", ok=True, detail=f"{len(wanted)} as locked")


def check_starter(folder: Path = STARTER) -> Check:
    """Whether the starter model's files are those that its manifest names."""
    mend = f"Restore it from the repository: git checkout -- {folder}"
    try:
        manifest = json.loads((folder / "manifest.json").read_text())["files"]
        for name, told in manifest.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != told["sha256"]:
                return Check("Starter model", ok=False, detail=f"{name} is not what the manifest says", mend=mend)
    except FileNotFoundError as error:
        return Check("Starter model", ok=False, detail=f"{error.filename} is not there", mend=mend)
    except (ValueError, KeyError, TypeError) as error:
        return Check("Starter model", ok=False, detail=f"its manifest cannot be read ({error!r})", mend=mend)
    size = sum(told["bytes"] for told in manifest.values())
    return Check("Starter model", ok=True, detail=f"{len(manifest)} files, {size / 1e6:.1f} MB, hashes right")
