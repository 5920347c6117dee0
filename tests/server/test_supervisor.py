"""Children that die come back; children of a supervisor that dies do not stay; nothing outlives an orderly stop."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from server import supervisor as supervisor_module
from server.cli.up import refuse_busy_port
from server.embedded.process import LOG_BYTES, rotate
from server.settings import OperatorError, load_settings
from server.supervisor import Child, Supervisor, children, end_leftovers, how_it_ended

ROOT = Path(__file__).parents[2]
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


def eventually(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def keep(tmp_path):
    """Makes supervisors that are stopped at the end."""
    made, said = [], []

    def make(*wanted: Child) -> tuple[Supervisor, list[str]]:
        made.append(Supervisor(wanted, tmp_path, said.append))
        made[-1].start()
        return made[-1], said

    yield make
    for one in made:
        one.stop()


def test_a_killed_child_is_started_again_at_once_and_said_in_one_line(keep):
    supervisor, said = keep(Child("web", SLEEP))
    first = supervisor.running()["web"]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: not alive(first))
    supervisor.watch()
    assert supervisor.running()["web"] != first
    assert said == ["web was ended by SIGKILL; starting it again"]


def test_a_child_that_keeps_dying_is_started_ever_later(keep, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(supervisor_module.time, "monotonic", lambda: now[0])
    supervisor, said = keep(Child("web", (sys.executable, "-c", "raise SystemExit(3)")))
    waited = []
    for _ in range(7):
        process = supervisor._kept[0].process
        process.wait(10)
        before = now[0]
        supervisor.watch()  # notices, and starts at once if no delay is due
        while supervisor._kept[0].process is None:
            now[0] += 0.5
            supervisor.watch()
        waited.append(now[0] - before)
    assert waited == [0, 1, 2, 4, 8, 16, 30]
    assert said[1] == "web ended with code 3; starting it again in 1 s"
    supervisor._kept[0].process.wait(10)
    now[0] += 61  # had it lived for a minute, its next start would be at once
    supervisor.watch()
    assert supervisor._kept[0].process is not None
    monkeypatch.undo()


def test_a_full_disk_does_not_end_the_supervisor(keep, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(supervisor_module.time, "monotonic", lambda: now[0])
    supervisor, said = keep(Child("web", SLEEP))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    supervisor._kept[0].process.kill()
    supervisor._kept[0].process.wait()
    supervisor.watch()  # runs again, although that could not be noted
    assert "web" in supervisor.running()
    assert said[-1].endswith("children.json cannot be written (No space left on device); free some space")
    assert list(tmp_path.glob("children.json?*")) == []

    log = tmp_path / "logs" / "web.log"
    log.unlink()
    log.mkdir()  # no log, no start
    supervisor._kept[0].process.kill()
    supervisor._kept[0].process.wait()
    now[0] += supervisor_module.STEADY_SECONDS + 1
    supervisor.watch()
    assert (supervisor.running(), said[-1]) == ({}, "web cannot start (Is a directory); trying again in 30 s")
    log.rmdir()
    supervisor.watch()
    assert supervisor.running() == {}
    now[0] += 30
    supervisor.watch()
    assert "web" in supervisor.running()
    monkeypatch.undo()


def test_all_end_in_order_and_what_they_started_ends_too(tmp_path):
    keeper = _start_keeper(tmp_path)
    everyone = psutil.Process(keeper.pid).children(recursive=True)
    keeper.terminate()
    assert keeper.wait(15) == 0
    assert (tmp_path / "polite.txt").read_text() == "ended in order"
    assert not [child for child in everyone if alive(child.pid)]
    assert not (tmp_path / "children.json").exists()


def test_what_a_killed_supervisor_leaves_is_ended_by_the_next(tmp_path):
    keeper = _start_keeper(tmp_path)
    everyone = psutil.Process(keeper.pid).children(recursive=True)
    keeper.kill()
    keeper.wait()
    end_leftovers(tmp_path / "children.json")
    assert eventually(lambda: not [child for child in everyone if alive(child.pid)], 5)


def _start_keeper(home: Path) -> subprocess.Popen:
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.server.keeper", str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with keeper.stdout as said:
        assert said.readline() == "started\n"
    polite = home / "polite.txt"
    assert eventually(lambda: polite.exists() and polite.read_text() == "ready")
    assert eventually(lambda: any("601" in child.cmdline() for child in psutil.Process(keeper.pid).children(True)))
    return keeper


def test_a_stranger_with_a_remembered_number_is_left_alone(tmp_path):
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    (tmp_path / "children.json").write_text(f'{{"groups": {{"{stranger.pid}": 1.0}}}}')
    try:
        assert end_leftovers(tmp_path / "children.json") == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_child_that_ignores_the_request_is_killed_in_time(keep, monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor_module, "WARM_SECONDS", 0.3)
    monkeypatch.setattr(supervisor_module, "COLD_SECONDS", 0.3)
    deaf = "import signal, time, pathlib, sys\nfor n in (15, 3): signal.signal(n, signal.SIG_IGN)\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(600)"
    supervisor, _ = keep(Child("deaf", (sys.executable, "-c", deaf, str(tmp_path / "ready"))))
    assert eventually((tmp_path / "ready").exists)
    pid = supervisor.running()["deaf"]
    began = time.monotonic()
    supervisor.stop()
    assert not alive(pid)
    assert time.monotonic() - began < 3


def test_a_childs_words_are_in_its_log_and_a_large_log_is_set_aside(keep, tmp_path):
    keep(Child("talker", (sys.executable, "-c", "import os; print('said', os.environ['WORD'])"), {"WORD": "hello"}))
    assert eventually(lambda: "said hello" in (tmp_path / "logs" / "talker.log").read_text())
    log = tmp_path / "big.log"
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "big.old.log").stat().st_size == LOG_BYTES + 1


def test_every_child_gets_the_services_and_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    settings = load_settings({"WHETSTONE_HOME": str(tmp_path)})
    connected = settings.connected("postgresql+psycopg://db/w", "redis://r")
    table = {child.name: child for child in children(connected, cores=4)}
    assert list(table) == ["web", "reply", "train", "beat"]
    for child in table.values():
        assert load_settings(child.environment) == connected
    assert [child.environment["OMP_NUM_THREADS"] for child in table.values()] == ["1", "2", "4", "1"]


def test_a_busy_port_is_refused_with_what_to_do():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(OperatorError, match=rf"address already in use.*PORT={port + 1}"):
            refuse_busy_port("127.0.0.1", port)
    refuse_busy_port("127.0.0.1", port)


def test_up_on_a_busy_port_exits_with_3_and_starts_nothing(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        environment = {"PATH": os.environ["PATH"], "WHETSTONE_HOME": str(tmp_path / "home"), "PORT": str(port)}
        command = [sys.executable, "-m", "server.cli", "up"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"Nothing can listen on 127.0.0.1:{port}" in done.stderr
    assert not (tmp_path / "home" / "postgres").exists()


def test_an_end_in_words():
    assert how_it_ended(3) == "ended with code 3"
    assert how_it_ended(-9) == "was ended by SIGKILL"
