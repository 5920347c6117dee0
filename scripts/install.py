"""Make .venv and install what is locked in requirements/; needs Python 3.11 or newer and pip, nothing else.

    python3 scripts/install.py            what `make run` needs
    python3 scripts/install.py --test     and what `make test` needs
    python3 scripts/install.py --peers    and TRL, which ours is compared with, in .venv-peers
    python3 scripts/install.py --potato   and Potato, which the platform is compared with, in .venv-potato
    CUDA=1 python3 scripts/install.py     torch with CUDA instead of the CPU build

Does nothing when it has been done for these same files.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# The peers' environment sees the packages of .venv and adds its own, so that .venv never holds any of them.
PEERS = ROOT / ".venv-peers"
PEERS_PYTHON = PEERS / "bin" / "python"
PEERS_PPO = PEERS / "ppo"  # the last TRL with PPO: its name is that of the current one, so a folder keeps them apart
# Potato gets an environment that shares nothing: its own releases of libraries, as pip gives them to its users.
POTATO = ROOT / ".venv-potato"
LOCKS = ROOT / "requirements"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 8  # a mirror that does not answer by then would keep pip for minutes
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def main() -> None:
    """Install, or exit with one sentence that says what is missing."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs on whatever Python was found
        fail(f"Python 3.11 or newer is needed; this is {platform.python_version()} ({sys.executable}).")
    cuda = os.environ.get("CUDA", "0") not in ("", "0")
    install("run", cuda, lambda: install_run(cuda))
    if "--test" in sys.argv[1:]:
        install("test", cuda, lambda: pip("the test tools", ["-r", str(LOCKS / "test.txt")], locked("test")))
    if "--peers" in sys.argv[1:]:
        install("peers", cuda, install_peers, home=PEERS)
    if "--potato" in sys.argv[1:]:
        install("potato", cuda, install_potato, home=POTATO)


def install(what: str, cuda: bool, work: Callable[[], object], home: Path = VENV) -> None:
    """Do `work` unless it was done in `home` for the same lock files, Python and kind of torch."""
    locks = sorted({LOCKS / "torch.txt", LOCKS / "run.txt", *LOCKS.glob(f"{what}*.txt")})
    files = b"".join(lock.read_bytes() for lock in locks)
    mark = hashlib.sha256(files + f"{cuda} {sys.version_info[:2]} {ROOT}".encode()).hexdigest()
    stamp = home / f"installed-{what}"
    if (home / "bin" / "python").exists() and stamp.is_file() and stamp.read_text() == mark:
        return
    work()
    stamp.write_text(mark)


def install_run(cuda: bool) -> None:
    """The environment, torch, everything else, and the command `whetstone`."""
    if not PYTHON.exists():
        with step("Making .venv"):
            make_environment()
    torch = locked("torch")[0]
    if cuda:
        pip(f"{torch} with CUDA", [torch], None, deps=True)
    else:
        install_cpu_torch(torch)
    pip("the packages", ["-r", str(LOCKS / "run.txt")], locked("run"))
    put_on_path()
    with step("Checking torch"):
        check(cuda)


def install_peers() -> None:
    """TRL in an environment that borrows everything else from .venv."""
    with step("Making .venv-peers"):
        venv.create(PEERS, symlinks=True, clear=True)
        packages = next(PEERS.glob("lib/python3*/site-packages"))
        borrowed = next(VENV.glob("lib/python3*/site-packages"))
        # addsitedir and not the bare path: the .pth files of .venv count too
        (packages / "whetstone-venv.pth").write_text(f"import site; site.addsitedir({str(borrowed)!r})\n")
    pip("TRL", ["-r", str(LOCKS / "peers.txt")], locked("peers"), into=PEERS_PYTHON)
    ppo = ["--target", str(PEERS_PPO), "-r", str(LOCKS / "peers-ppo.txt")]
    pip("the last TRL with PPO", ppo, locked("peers-ppo"))


def install_potato() -> None:
    """Potato as its users get it."""
    with step("Making .venv-potato"):
        venv.create(POTATO, symlinks=True, clear=True)
    pip("Potato", ["-r", str(LOCKS / "potato.txt")], None, into=POTATO / "bin" / "python", deps=True)


def make_environment() -> None:
    """A virtual environment with pip in it."""
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except (subprocess.CalledProcessError, OSError) as error:
        fail(
            f"The virtual environment could not be made ({error}). On Debian or Ubuntu install python3-venv "
            "(apt-get install python3-venv), remove .venv and run this again."
        )


def install_cpu_torch(torch: str) -> None:
    """The build without CUDA: PyPI's own on macOS; on Linux the one marked +cpu, from pip's index or PyTorch's."""
    if sys.platform == "darwin":
        pip(torch, [torch], None)
        return
    wanted = f"{torch}+cpu"
    if installed("torch") == wanted.partition("==")[2]:
        return
    # pip's own index first: a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS) may have it, PyPI says no at once.
    if pip(f"{wanted} from pip's index", [wanted], None, may_fail=True):
        return
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=PROBE_SECONDS):
            pass
    except (urllib.error.URLError, OSError) as error:
        fail(
            f"{wanted} is neither in pip's index nor to be had from {CPU_INDEX} ({error}). Let pip find it "
            "(PIP_FIND_LINKS=folder-of-wheels or PIP_EXTRA_INDEX_URL=mirror), or take the CUDA build with CUDA=1."
        )
    pip(f"{wanted} from download.pytorch.org", ["--index-url", CPU_INDEX, wanted], None)


def put_on_path() -> None:
    """Let the environment import the clone, and give it the command; needs no build tool and follows every edit."""
    packages = next(VENV.glob("lib/python3*/site-packages"))
    (packages / "whetstone.pth").write_text(f"{ROOT}\n")
    command = VENV / "bin" / "whetstone"
    command.write_text(f"#!{PYTHON}\nfrom server.cli import main\n\nmain()\n")
    command.chmod(0o755)


def check(cuda: bool) -> None:
    """Torch works, and brought nothing that was not asked for."""
    done = subprocess.run(
        [PYTHON, "-c", "import torch; torch.ones(2).sum()"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        fail(f"torch does not work here:\n{tail(done.stderr)}")
    unwanted = sorted(path.name for path in VENV.glob("lib/python3*/site-packages/nvidia_*.dist-info"))
    if unwanted and not cuda:
        fail(f"CUDA packages were installed ({unwanted[0]} …); remove .venv and run this again, or set CUDA=1.")


def pip(
    what: str,
    arguments: list[str],
    names: list[str] | None,
    *,
    into: Path = PYTHON,
    deps: bool = False,
    may_fail: bool = False,
) -> bool:
    """Run pip with a line of progress, for the environment of the interpreter `into`; false if it failed and may."""
    command = [*PIP, "--python", str(into), "install", *([] if deps else ["--no-deps"]), *arguments]
    if may_fail:
        command += ["--timeout", str(PROBE_SECONDS), "--retries", "1"]
    with step(f"Installing {what}") as progress:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            progress(counted(line, said, len(names) if names else None))
        failed = process.wait() != 0
    if failed and not may_fail:
        fail(f"pip could not install {what}:\n{tail(''.join(said))}")
    return not failed


def counted(line: str, said: Iterable[str], total: int | None) -> str:
    """What pip does now, in few words."""
    words = line.split()
    if line.startswith("Installing collected"):
        return "unpacking"
    if not line.startswith(("Collecting", "Requirement already", "  Downloading", "Processing")):
        return ""
    number = sum(1 for earlier in said if earlier.startswith(("Collecting", "Requirement already", "Processing")))
    about = words[1] if words[0] in ("Collecting", "Downloading", "Processing") else words[3]
    return f"{number}/{total} {about}" if total else about


def locked(name: str) -> list[str]:
    """The requirements of one lock file."""
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def installed(name: str) -> str | None:
    """The version of a package in the environment."""
    found = next(VENV.glob(f"lib/python3*/site-packages/{name}-*.dist-info"), None)
    return found.name.removeprefix(f"{name}-").removesuffix(".dist-info") if found else None


@contextmanager
def step(what: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is done, with its progress on a terminal, and then how long it took."""
    begun = time.monotonic()
    lively = sys.stdout.isatty()
    print(f"  {what} …", end="" if lively else "\n", flush=True)

    def progress(words: str) -> None:
        if lively and words:
            print(f"\r  {what} … {time.monotonic() - begun:4.0f} s  {words[:60]:<60}", end="", flush=True)

    yield progress
    print(
        f"\r\033[K  {what}: {time.monotonic() - begun:.1f} s"
        if lively
        else f"  {what}: {time.monotonic() - begun:.1f} s"
    )


def tail(text: str) -> str:
    """The end of an output."""
    return "\n".join(text.strip().splitlines()[-12:])


def fail(message: str) -> None:
    """Say it and stop."""
    sys.exit(f"\ninstall: {message}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninstall: interrupted; run it again to go on.")
