"""`whetstone train` hands a job to Python, or to torch's launcher when several processes are asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.cli import whetstone


class Ended:
    """A program that has ended with 7."""

    def wait(self, _seconds: float | None = None) -> int:
        return 7


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that were started."""
    lines: list[list[str]] = []

    def start(line: list[str], **_: object) -> Ended:
        lines.append(line)
        return Ended()

    monkeypatch.setattr(subprocess, "Popen", start)
    return lines


def test_one_process_is_plain_python(asked: list[list[str]]) -> None:
    found = CliRunner().invoke(whetstone, ["train", "preference", "folder", "--model", "m", "--processes", "1"])
    assert found.exit_code == 7
    assert asked == [[sys.executable, "-m", "training.preference", "folder", "--model", "m"]]


@pytest.mark.parametrize("words", [["--processes", "4"], ["--processes=4"]])
def test_several_are_started_together(words: list[str], asked: list[list[str]]) -> None:
    CliRunner().invoke(whetstone, ["train", "policy", *words, "folder"])
    assert asked[0][1:] == [
        "-m", "training.processes.together", "4", "-m", "training.policy", "folder",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--processes"], ["--processes", "two"], ["--processes=0"]])
def test_a_number_that_is_none_is_refused(words: list[str], asked: list[list[str]]) -> None:
    found = CliRunner().invoke(whetstone, ["train", "policy", "folder", *words])
    assert found.exit_code == 2
    assert "--processes needs a number" in found.output
    assert not asked


@pytest.mark.usefixtures("asked")
def test_whoever_waits_at_a_terminal_is_told_at_once() -> None:
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w") as terminal, contextlib.redirect_stderr(terminal):
        whetstone.main(["train", "policy", "folder"], standalone_mode=False)
        assert screen.read(100).decode() == "Starting policy …\r\n"
    assert CliRunner().invoke(whetstone, ["train", "policy", "folder"]).output == ""  # no line in a log


SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_stops_the_command_stops_the_job(number: int, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    line = f"from server.cli import train; train._run([{sys.executable!r}, '-c', {SLEEPER!r}, {str(told)!r}])"
    command = subprocess.Popen([sys.executable, "-c", line])
    deadline = time.monotonic() + 30
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    job = int(told.read_text())
    command.send_signal(number)
    command.wait(10)
    while time.monotonic() < deadline:
        try:
            os.kill(job, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{job}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the job goes on")


@pytest.mark.slow
def test_several_processes_end_as_the_job_did_with_its_reason_last(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "config.json").write_text('{"model": "none", "epochs": "x"}')
    words = [sys.executable, "-m", "server.cli", "train", "preference", str(tmp_path), "--processes", "2"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 2
    assert "epochs must be a whole number" in found.stderr.strip().splitlines()[-1]
    assert "Traceback" not in found.stderr
