"""The native kernels' build: compiled once, side by side, and never a reason to fail."""

import ctypes
import json
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from training import native
from training.native import building
from training.native.building import CannotBuild, build, build_portable, compiler_of, find

COMPILER = compiler_of(os.environ)
compiled = pytest.mark.skipif(COMPILER is None, reason="no C compiler is installed (sh scripts/compiler.sh)")


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="a person's machine may lack a compiler")
def test_in_ci_there_is_a_compiler_and_the_kernels_are_tested() -> None:
    assert COMPILER is not None
    assert native.why_not() is None


def broken_compiler(folder: Path) -> Path:
    """A program that says its version and fails at everything else."""
    program = folder / "broken"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "x.c:1: error: no such luck" >&2\nexit 1\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    """The compiler without its optimiser, for tests that ask where a library comes from and not what it computes."""
    program = tmp_path / "quick"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMPILER or ["false"])} "$@" -O0\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return [str(program)]


def asked(**environ: str) -> dict:
    """What `python -m training.native` prints with these variables."""
    done = subprocess.run(
        [sys.executable, "-m", "training.native"],
        env={**os.environ, **environ}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@compiled
def test_it_is_compiled_once_and_found_again(quick, tmp_path):
    library = build(quick, tmp_path / "cache")
    before = library.stat().st_mtime_ns
    assert build(quick, tmp_path / "cache") == library
    assert library.stat().st_mtime_ns == before
    assert list((tmp_path / "cache").iterdir()) == [library]


@compiled
def test_changed_sources_have_another_name(quick, tmp_path, monkeypatch):
    library = build(quick, tmp_path / "cache")
    copies = tmp_path / "sources"
    shutil.copytree(building.SOURCES, copies)
    (copies / "team.h").write_text((copies / "team.h").read_text() + "\n/* changed */\n")
    monkeypatch.setattr(building, "SOURCES", copies)
    assert build(quick, tmp_path / "cache") != library


@compiled
def test_several_may_build_at_once(quick, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: build(quick, tmp_path / "cache"), range(4)))
    assert list((tmp_path / "cache").iterdir()) == list(found)
    ctypes.CDLL(str(found.pop()))


@compiled
def test_an_error_of_the_compiler_is_told(tmp_path):
    program = broken_compiler(tmp_path)
    with pytest.raises(CannotBuild, match=r"could not compile .*: x\.c:1: error: no such luck"):
        build([str(program)], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_compiler_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match=r"no C compiler was found \(looked for cc, gcc, clang"):
        find({"CC": "no-such-compiler"})


@compiled
def test_without_a_compiler_a_library_made_beforehand_serves(quick, tmp_path, monkeypatch):
    made = build_portable(quick, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    environ = {"WHETSTONE_NATIVE_LIBRARIES": str(tmp_path)}
    assert find(environ) == next(library for library, needed in zip(made, needs(), strict=True) if needed)
    monkeypatch.setattr(building, "processor_flags", frozenset)
    with pytest.raises(CannotBuild, match="no library of this version for this processor"):
        find(environ)


def needs() -> list[bool]:
    """Whether this processor can run each level."""
    present = building.processor_flags()
    return [needed <= present for needed in building.LEVELS[platform.machine()].values()]


# The kernels' own forms, since what torch computes in their place has no lanes; Qwen 2 and Mistral are Llamas to them.
CHOSEN = "(not torch or test_native_decoder) and not qwen2 and not mistral"


@pytest.mark.slow
@compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.parametrize(("lanes", "flag"), [(8, "-mno-avx512f"), (4, "-mno-avx")])
def test_with_narrower_vectors_the_kernels_still_equal_their_twins(lanes, flag):
    """Most processors have AVX2 and no AVX-512, ARM has neither: other widths of vectors, other blocks, other shuffles."""
    names = ["pointwise", "vocabulary", "native_decoder", "trunk"]
    tests = [f"tests/training/test_{name}.py" for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *tests],
        env={**os.environ, "CC": f"{shlex.join(COMPILER)} {flag}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"with {lanes} lanes: {done.stdout[-3000:]}"


@compiled
def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "whetstone").write_text("a file where the folder should be")
    with pytest.raises(CannotBuild, match="cannot be written"):
        find({**os.environ, "XDG_CACHE_HOME": str(tmp_path)})


def test_it_can_be_turned_off():
    assert asked(WHETSTONE_NATIVE="0") == {"native": False, "why_not": "WHETSTONE_NATIVE=0 turns it off"}


def test_a_broken_compiler_breaks_nothing(tmp_path):
    told = asked(CC=str(broken_compiler(tmp_path)), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert told["native"] is False
    assert "no such luck" in told["why_not"]


@compiled
def test_here_it_runs_with_torchs_threads():
    assert native.why_not() is None
    assert native.loaded().threads
    assert native.threads() == torch.get_num_threads()


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sums_are_right_in_any_number_of_threads(threads):
    add = native.library().native_sum
    numbers = torch.arange(1000.0)
    for n in (0, 1, 15, 16, 17, 1000):
        assert add(numbers.data_ptr(), n, threads) == n * (n - 1) / 2


@compiled
def test_calls_from_several_threads_do_not_disturb_each_other():
    add = native.library().native_sum
    numbers = torch.arange(1000.0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: add(numbers.data_ptr(), n, 2), range(200)))
    assert found == [n * (n - 1) / 2 for n in range(200)]
