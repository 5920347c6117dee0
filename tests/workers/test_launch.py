"""Following a job's metrics; what a job that fails says; a folder that is in use. Real processes, no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from training.runs.run_folder import RunFolder
from workers import launch
from workers.launch import CURVE_POINTS, JobFailed, JobStopped, Metrics


def line(step: int, **numbers: float) -> bytes:
    return json.dumps({"step": step, "of": 9, **numbers}).encode() + b"\n"


def test_metrics_are_followed_by_whole_lines(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    metrics = Metrics(file)
    assert not metrics.read()
    file.write_bytes(line(1, loss=0.7) + line(2, loss=0.6)[:-4])
    assert metrics.read()
    assert metrics.newest["step"] == 1
    file.write_bytes(line(1, loss=0.7) + line(2, loss=0.6))
    metrics.read()
    assert metrics.curves["loss"] == [[1, 0.7], [2, 0.6]]
    assert not metrics.read()


def test_a_resume_that_cuts_the_file_back_leaves_no_point_twice(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(line(1, loss=0.7) + line(2, loss=0.6) + line(3, loss=0.5))
    metrics = Metrics(file)
    metrics.read()
    (tmp_path / "new").write_bytes(line(1, loss=0.7) + line(2, loss=0.61))
    (tmp_path / "new").replace(file)
    metrics.read()
    assert metrics.curves["loss"] == [[1, 0.7], [2, 0.61]]
    assert metrics.newest["step"] == 2


def test_long_curves_are_thinned_and_keep_both_ends(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"".join(line(step, kl=step / 10) for step in range(1, 5001)))
    metrics = Metrics(file)
    metrics.read()
    curve = metrics.curves["kl"]
    assert len(curve) <= 2 * CURVE_POINTS
    assert curve[0][0] == 1
    assert curve[-1][0] == 5000
    assert [point[0] for point in curve] == sorted({point[0] for point in curve})


@pytest.mark.slow  # it imports torch
def test_a_job_s_own_reason_comes_back(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"colour": 1}')
    with pytest.raises(JobFailed, match="colour"):
        launch.launch(tmp_path, "preference", lambda _: True)


@pytest.mark.slow  # it imports torch, twice at once
def test_several_processes_do_one_job_and_the_reason_of_its_failure_comes_back(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"colour": 1}')
    assert launch.command(tmp_path, "preference", 1)[1:] == ["-m", "training.preference", str(tmp_path)]
    with pytest.raises(JobFailed, match="colour"):
        launch.launch(tmp_path, "preference", lambda _: True, 2)
    told = (tmp_path / "log.txt").read_text()
    assert "colour" in told.strip().splitlines()[-1] and "Traceback" not in told


def test_a_job_that_does_not_exist_shows_its_log(tmp_path: Path):
    with pytest.raises(JobFailed, match=r"exit code 1[\s\S]*No module named training\.juggling"):
        launch.launch(tmp_path, "juggling", lambda _: True)


def test_a_finished_folder_is_not_run_again(tmp_path: Path):
    RunFolder(tmp_path).write_result({"accuracy": 0.5})
    assert launch.launch(tmp_path, "juggling", lambda _: True) == {"accuracy": 0.5}


def test_a_folder_in_use_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "FOLDER_SECONDS", 0.3)
    code = f"from training.runs.run_folder import RunFolder\nimport time\nwith RunFolder({str(tmp_path)!r}).lock():\n print(1, flush=True)\n time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=launch.ROOT)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(JobFailed, match=f"in use by process {holder.pid}"):
            launch.launch(tmp_path, "preference", lambda _: True)
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture
def sleeping_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that says one number, starts a helper and sleeps; `training.sleeper` of a package of its own."""
    package = tmp_path / "root" / "training"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "sleeper.py").write_text(
        "import subprocess, sys, time, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        "(folder / 'pids').write_text(f'{__import__(\"os\").getpid()} {child.pid}')\n"
        "(folder / 'metrics.jsonl').write_text('{\"step\": 1, \"of\": 2}\\n')\n"
        "time.sleep(100)\n"
    )
    monkeypatch.setattr(launch, "ROOT", tmp_path / "root")
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.1)
    run = tmp_path / "run"
    run.mkdir()
    return run


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_whoever_follows_can_stop_the_job_and_its_helpers(sleeping_job: Path):
    with pytest.raises(JobStopped):
        launch.launch(sleeping_job, "sleeper", lambda metrics: not metrics.newest)
    job, helper = map(int, (sleeping_job / "pids").read_text().split())
    assert gone(job)
    assert gone(helper)


def test_a_job_dies_with_the_worker_that_started_it(sleeping_job: Path):
    code = (
        "from pathlib import Path\nfrom workers import launch\n"
        f"launch.ROOT = Path({str(launch.ROOT)!r})\n"
        f"launch.launch(Path({str(sleeping_job)!r}), 'sleeper', lambda _: True)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ)
    deadline = time.monotonic() + 20
    while not (sleeping_job / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job = int((sleeping_job / "pids").read_text().split()[0])
    assert psutil.pid_exists(job)
    worker.kill()
    worker.wait()
    assert gone(job)
    os.kill(int((sleeping_job / "pids").read_text().split()[1]), 9)  # a helper of a killed job is no child of ours
