"""Write requirements/*.txt from what is installed: the whole closure of pyproject.toml, exact, to be installed with --no-deps.

    .venv/bin/python scripts/lock.py            after changing or upgrading a package in .venv
    .venv/bin/python scripts/lock.py --check    exit with 1 if the files would change

Without --no-deps pip would follow torch's own wishes, and on Linux those are gigabytes of CUDA packages.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
PEERS = ROOT / ".venv-peers"  # made by scripts/install.py --peers
# Chosen by machine in scripts/install.py, which reads its version from torch.txt.
TORCH = "torch"
# Never wanted unless asked for.
LEFT_OUT = ("nvidia-", "cuda-", "triton")
# The lock serves all of these: a package that any of them needs is in it. 3.11.0 counts because redis needs more before 3.11.3.
ENVIRONMENTS = [
    {"python_version": full.rpartition(".")[0], "python_full_version": full, "sys_platform": system}
    | {"platform_system": name, "platform_machine": machine}
    for full in ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
    for system, name, machine in (
        ("linux", "Linux", "x86_64"),
        ("linux", "Linux", "aarch64"),
        ("darwin", "Darwin", "arm64"),
        ("darwin", "Darwin", "x86_64"),
    )
]
HEAD = "# Written by scripts/lock.py. Install with --no-deps: this is already everything.\n"


def closure(wanted: list[str], *folders: Path) -> dict[str, str]:
    """Name to version of every package that `wanted` need anywhere; exits when one is installed neither in `folders` nor here."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, because = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(LEFT_OUT):
            continue
        package = next(iter(distributions(name=name, path=[*map(str, folders), *sys.path])), None)
        if package is None:
            sys.exit(
                f"{name} (needed by {because or 'pyproject.toml'}) is not installed; install it and run this again."
            )
        if not requirement.specifier.contains(package.version, prereleases=True):
            sys.exit(f"{because or 'pyproject.toml'} needs {requirement}, but {package.version} is installed.")
        found[name] = package.version
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = [Requirement(text) for text in package.requires or []]
            waiting += [(need, name) for need in needs if applies(need, extra)]
    return found


def applies(need: Requirement, extra: str) -> bool:
    """Whether any of the environments we serve needs it."""
    marker = need.marker
    return marker is None or any(marker.evaluate(environment | {"extra": extra}) for environment in ENVIRONMENTS)


def render(packages: dict[str, str]) -> str:
    """One file's text."""
    return HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def main() -> None:
    """Write the files, or compare them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = closure(project["project"]["dependencies"])
    test = closure(project["dependency-groups"]["test"])
    peers_packages = next(PEERS.glob("lib/python3*/site-packages"), PEERS)
    peers = closure(project["dependency-groups"]["peers"], peers_packages)
    ppo = closure(project["dependency-groups"]["peers-ppo"], PEERS / "ppo", peers_packages)
    torch = run.pop(TORCH).partition("+")[0]
    texts = {
        "run.txt": render(run),
        "test.txt": render({name: version for name, version in test.items() if name not in run}),
        "peers.txt": render({name: version for name, version in peers.items() if name not in {*run, TORCH}}),
        "peers-ppo.txt": render({name: version for name, version in ppo.items() if peers.get(name) != version}),
        "torch.txt": f"# The build (CPU, CUDA, macOS) is chosen by scripts/install.py.\ntorch=={torch}\n",
    }
    changed = [
        name for name, text in texts.items() if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text
    ]
    if "--check" in sys.argv[1:]:
        sys.exit(f"requirements/ would change: {', '.join(changed)}; run scripts/lock.py" if changed else 0)
    FOLDER.mkdir(exist_ok=True)
    for name in changed:
        (FOLDER / name).write_text(texts[name])
    print(
        f"{len(run)} packages to run, {len(test)} to test, {len(peers)} for the peers; changed: {', '.join(changed) or 'nothing'}"
    )


if __name__ == "__main__":
    main()
