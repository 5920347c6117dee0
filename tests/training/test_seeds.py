"""Seeds of an experiment in several processes: the same findings in their order, one bar, and nothing left when it ends early."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from tests.training.seed_works import PIDS, STEPS, broken, drawn, killed, options
from training.experiments import world
from training.experiments.seeds import SeedFailed, each_seed
from training.experiments.writing import Options, cores
from training.job import INTERRUPTED, run_job
from training.runs.progress import Bar, without_bars


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """Reading a command line sets those of this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_findings_are_the_same_whatever_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(Bar, "at", lambda _bar, step, _note: shown.append(step))
    alone = each_seed(options(1, 3), "alone", STEPS, drawn)
    assert {found["process"] for found in alone} == {os.getpid()}
    apart = each_seed(options(2, 3), "apart", STEPS, drawn)
    assert [found["numbers"] for found in apart] == [found["numbers"] for found in alone]
    assert len({found["process"] for found in apart} | {os.getpid()}) == 3, "two processes, neither of them this one"
    assert {found["threads"] for found in apart} == {1}
    assert shown == [*range(1, 3 * STEPS + 1)] * 2, "one bar, which every step of every seed moves"


@pytest.mark.slow
def test_an_error_of_one_seed_ends_the_run_with_its_traceback() -> None:
    with pytest.raises(SeedFailed, match=r"(?s)seed 1 failed.*in broken.*ValueError: no such word"):
        each_seed(options(2, 2), "broken", 1, broken)


@pytest.mark.slow
def test_a_process_that_is_killed_is_no_hang() -> None:
    with pytest.raises(SeedFailed, match="ended before it was done, exit code -9"):
        each_seed(options(2, 2), "killed", 1, killed)


@pytest.mark.slow
def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    """As a terminal sends it: to every process of the run."""
    run = subprocess.Popen(
        [sys.executable, "-c", "from tests.training.seed_works import *; each_seed(options(2, 3), 'patient', 1, patient)"],
        env=os.environ | {PIDS: str(tmp_path)}, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    ends = time.monotonic() + 240
    while len(list(tmp_path.iterdir())) < 2:
        assert run.poll() is None and time.monotonic() < ends
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    told = run.communicate(timeout=30)[1].decode()
    assert told.count("KeyboardInterrupt") == 1, told
    worked = [int(each.read_text()) for each in tmp_path.iterdir()]
    assert len(worked) == 2, "no third one began"
    for process in worked:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_ctrl_c_in_a_job_ends_its_experiment(tmp_path: Path) -> None:
    """The job itself would say how it goes on, and end with a code."""

    def interrupted(_folder: object) -> dict[str, object]:
        raise KeyboardInterrupt

    def main(arguments: Sequence[str]) -> int:
        code = run_job("mine", arguments[0], interrupted)
        assert code == INTERRUPTED
        return code

    with pytest.raises(KeyboardInterrupt):
        world.result_of(main, world.run_folder(tmp_path / "run", {}))


def test_steps_of_something_with_a_bar_draw_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def drawn_by_a_bar() -> str:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with Bar("a job", 2) as bar:
            bar.at(1)
        return terminal.getvalue()

    assert "a job" in drawn_by_a_bar()
    with without_bars():
        assert drawn_by_a_bar() == ""
    assert "a job" in drawn_by_a_bar()


def test_as_many_at_once_as_there_are_cores_and_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    read = Options.read("mine", "", seeds=1000, arguments=["--out", "somewhere"])
    assert read.processes == cores() >= 1 and read.threads == 1
    assert Options.read("mine", "", seeds=1000, arguments=["--threads", str(cores() + 1)]).processes == 1
    assert Options.read("mine", "", seeds=10, arguments=["--processes", "4"]).processes == 4
    assert Options.read("mine", "", seeds=10, arguments=["--processes", "4", "--quick"]).processes == 1, "one seed"
    assert Options.read("mine", "", seeds=10, arguments=[], at_once=False).processes == 1
    with pytest.raises(SystemExit):
        Options.read("mine", "", seeds=10, arguments=["--processes", "0"])
    assert "--processes must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        Options.read("mine", "", seeds=10, arguments=["--processes", "2"], at_once=False)
    assert "unrecognized arguments" in capsys.readouterr().err
