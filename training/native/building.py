"""Compile the C sources of this folder with the C compiler at hand, once per machine and version of the sources.

The library goes into a cache outside the repository under a name that holds everything it depends on; it is written
aside and moved into place, so processes that build at once do no harm. Where there is no compiler, libraries made
beforehand for a processor level serve (the image has them): `python -m training.native --portable FOLDER` makes them.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
# What -ffast-math does less what would lose a NaN or an infinity. And never at linking: there it would make the whole
# process round small numbers to zero.
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffp-contract=fast")
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-Wno-psabi", *ARITHMETIC)
COMPILERS = ("cc", "gcc", "clang")
# Processor levels of portable libraries, best first, and the flags of /proc/cpuinfo that tell each.
LEVELS: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {
        "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
        "x86-64-v3": frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    },
    "aarch64": {"armv8-a": frozenset({"fp", "asimd"})},
}


class CannotBuild(Exception):
    """Why there is no native library, in one sentence."""


def find(environ: Mapping[str, str]) -> Path:
    """The library for this machine: from the cache, compiled now, or made beforehand; CannotBuild says why not."""
    compiler = compiler_of(environ)
    if compiler is not None:
        return build(compiler, cache_of(environ))
    made = environ.get("WHETSTONE_NATIVE_LIBRARIES")
    if made is None:
        raise CannotBuild(f"no C compiler was found (looked for {', '.join(COMPILERS)} and $CC)")
    present = processor_flags()
    for level, needed in LEVELS.get(platform.machine(), {}).items():
        library = Path(made) / f"{level}-{digest([])}.so"
        if needed <= present and library.exists():
            return library
    raise CannotBuild(f"no C compiler was found, and {made} has no library of this version for this processor")


def compiler_of(environ: Mapping[str, str]) -> list[str] | None:
    """The command of the C compiler: $CC, or the first that is installed."""
    named = shlex.split(environ.get("CC", ""))
    if named and shutil.which(named[0]):
        return named
    return next(([name] for name in COMPILERS if shutil.which(name)), None)


def cache_of(environ: Mapping[str, str]) -> Path:
    """Where compiled libraries stay: $XDG_CACHE_HOME/whetstone/native, or under ~/.cache."""
    try:
        return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whetstone" / "native"
    except RuntimeError as error:
        raise CannotBuild(f"there is no folder for compiled libraries: {error}") from error


def build(compiler: list[str], cache: Path) -> Path:
    """Compile for this very processor, unless the cache has it."""
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise CannotBuild(f"{compiler[0]} cannot be run: {error.strerror}") from error
    library = cache / f"{digest([*compiler, version, *sorted(processor_flags()), platform.machine()])}.so"
    if library.exists():
        return library
    tune = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        compile_to(library, [*compiler, tune])
    except OSError as error:
        raise CannotBuild(f"{cache} cannot be written: {error.strerror}") from error
    return library


def build_portable(compiler: list[str], folder: Path) -> list[Path]:
    """Compile for every level of this kind of processor, for machines without a compiler."""
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    for level in LEVELS.get(platform.machine(), {}):
        library = folder / f"{level}-{digest([])}.so"
        compile_to(library, [*compiler, f"-march={level}"])
        made.append(library)
    return made


def compile_to(library: Path, command: list[str]) -> None:
    """Compile all sources into `library`, which appears whole or not at all."""
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    opened, aside = tempfile.mkstemp(dir=library.parent, suffix=".part")
    os.close(opened)
    try:
        done = subprocess.run(
            [*command, *FLAGS, "-shared", *sources, "-o", aside, "-lm"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
            raise CannotBuild(f"{command[0]} could not compile training/native: {said[0].strip()}")
        Path(aside).chmod(0o755)
        Path(aside).replace(library)
    finally:
        Path(aside).unlink(missing_ok=True)


def digest(also: list[str]) -> str:
    """A name for the sources, the flags and `also`."""
    parts = [path.read_text(encoding="utf-8") for path in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])]
    return hashlib.sha256("\0".join([*parts, *FLAGS, *also]).encode()).hexdigest()[:24]


def processor_flags() -> frozenset[str]:
    """What this processor can do, as Linux lists it; elsewhere its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset({platform.processor()})
    listed = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(listed.partition(":")[2].split())
