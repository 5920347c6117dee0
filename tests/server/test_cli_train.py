"""`whetstone train` hands a job to Python, or to torch's launcher when several processes are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from server.cli import whetstone


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that were started."""
    lines: list[list[str]] = []

    def run(line: list[str], **_: object) -> subprocess.CompletedProcess:
        lines.append(line)
        return subprocess.CompletedProcess(line, 7)

    monkeypatch.setattr(subprocess, "run", run)
    return lines


def test_one_process_is_plain_python(asked: list[list[str]]) -> None:
    found = CliRunner().invoke(whetstone, ["train", "preference", "folder", "--model", "m", "--processes", "1"])
    assert found.exit_code == 7
    assert asked == [[sys.executable, "-m", "training.preference", "folder", "--model", "m"]]


@pytest.mark.parametrize("words", [["--processes", "4"], ["--processes=4"]])
def test_several_are_started_together(words: list[str], asked: list[list[str]]) -> None:
    CliRunner().invoke(whetstone, ["train", "policy", *words, "folder"])
    assert asked[0][1:] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "training.policy", "folder",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--processes"], ["--processes", "two"], ["--processes=0"]])
def test_a_number_that_is_none_is_refused(words: list[str], asked: list[list[str]]) -> None:
    found = CliRunner().invoke(whetstone, ["train", "policy", "folder", *words])
    assert found.exit_code == 2
    assert "--processes needs a number" in found.output
    assert not asked
