"""The processes of one machine: started, watched, started again when they die, stopped together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from server.embedded.lock import write_note
from server.embedded.process import die_with_parent, rotate
from server.settings import Settings

FIRST_DELAY, LAST_DELAY = (
    1.0,
    30.0,
)  # seconds between deaths and the next start, doubling; the first start again is at once
STEADY_SECONDS = 60.0  # a process that lived as long counts as healthy again
WARM_SECONDS, COLD_SECONDS = 7.0, 2.0  # to end what it is doing; to put it back into the queue


@dataclass(frozen=True)
class Child:
    """One process to keep alive."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own environment."""


def children(settings: Settings, cores: int | None = None) -> list[Child]:
    """The table of what runs on one machine; `settings` hold the addresses of running services."""
    cores = cores or os.cpu_count() or 1
    python = (sys.executable, "-m")
    celery = (*python, "celery", "-A", "workers.app")
    worker = (*celery, "worker", "--loglevel=INFO", "--without-gossip", "--without-mingle")
    given = settings.environment()
    # Writing replies shares the cores with the web and with training; what the operator has set stays.
    reply_threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // 2)))
    train_threads = os.environ.get("OMP_NUM_THREADS", str(cores))
    web = (
        *python,
        "uvicorn",
        "server.app:create_app",
        "--factory",
        "--host",
        settings.host,
        "--port",
        str(settings.port),
    )
    return [
        # Open event streams would keep a stopping web process for ever. Its forty threads would each get a heap of their own
        # from glibc, which never shrink; one thread runs Python at a time, so they need no more than two.
        Child(
            "web",
            (*web, "--no-access-log", "--timeout-graceful-shutdown", "3"),
            {**given, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        ),
        # The sweep and the schedule, which are short, ride with the replies: training may keep its worker for hours.
        Child(
            "reply",
            (*worker, "-Q", "reply,tick", "--pool=threads", "--concurrency=128", "-n", "reply@%h"),
            {**given, "OMP_NUM_THREADS": reply_threads},
        ),
        # Two at once, so that an export need not wait for a round. And politely: somebody who waits for a reply comes first.
        Child(
            "train",
            ("nice", "-n", "5", *worker, "-Q", "train", "--pool=prefork", "--concurrency=2", "-n", "train@%h"),
            {**given, "OMP_NUM_THREADS": train_threads},
        ),
        Child(
            "beat",
            (*celery, "beat", "--loglevel=INFO", "--schedule", str(settings.home / "beat"), "--pidfile="),
            {**given, "OMP_NUM_THREADS": "1"},
        ),
    ]


@dataclass
class _Kept:
    child: Child
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    start_at: float = 0.0
    delay: float = 0.0


class Supervisor:
    """Keeps children alive in process groups of their own, from `start` to `stop`.

    Call it from the main thread: on Linux the children are killed when the thread that started them ends.
    """

    def __init__(self, wanted: Sequence[Child], home: Path, say: Callable[[str], None]) -> None:
        self.home = home
        self._say = say
        self._kept = [_Kept(child) for child in wanted]
        self._note = home / "children.json"
        self.deaths: Counter[str] = Counter()

    def start(self) -> None:
        """Start all, after ending what a killed supervisor left."""
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        end_leftovers(self._note)
        for kept in self._kept:
            self._start(kept)

    def watch(self) -> None:
        """Look once: start again what has died and is due."""
        now = time.monotonic()
        for kept in self._kept:
            if kept.process is not None and kept.process.poll() is not None:
                self._end_group(kept.process.pid)  # what it left: its own children would work on unwatched
                if now - kept.started > STEADY_SECONDS:
                    kept.delay = 0.0
                self.deaths[kept.child.name] += 1
                self._say(f"{kept.child.name} {how_it_ended(kept.process.returncode)}; {_when(kept.delay)}")
                kept.start_at, kept.process = now + kept.delay, None
                kept.delay = min(max(FIRST_DELAY, kept.delay * 2), LAST_DELAY)
            if kept.process is None and now >= kept.start_at:
                try:
                    self._start(kept)
                except OSError as error:  # a full disk, no memory for another process: both pass
                    self._say(f"{kept.child.name} cannot start ({error.strerror}); trying again in {LAST_DELAY:.0f} s")
                    kept.start_at = now + LAST_DELAY

    def running(self) -> dict[str, int]:
        """The process id of each child that runs."""
        return {
            kept.child.name: kept.process.pid for kept in self._kept if kept.process and kept.process.poll() is None
        }

    def stop(self) -> None:
        """End all within WARM_SECONDS + COLD_SECONDS: ask, insist, kill."""
        for number, seconds in ((signal.SIGTERM, WARM_SECONDS), (signal.SIGQUIT, COLD_SECONDS)):
            alive = [kept.process for kept in self._kept if kept.process and kept.process.poll() is None]
            for process in alive:
                process.send_signal(number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and any(process.poll() is None for process in alive):
                time.sleep(0.05)
        for kept in self._kept:
            if kept.process is not None:
                self._end_group(kept.process.pid)
                kept.process.wait()
        self._note.unlink(missing_ok=True)

    def _start(self, kept: _Kept) -> None:
        log = self.home / "logs" / f"{kept.child.name}.log"
        rotate(log)
        with log.open("ab") as output:
            kept.process = subprocess.Popen(
                kept.child.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **kept.child.environment},
                cwd=Path(__file__).resolve().parent.parent,  # where the packages and migrations lie
                start_new_session=True,  # Ctrl-C reaches us alone; we then stop the children in order
                # Killed without warning, we leave no worker behind: losing what they do is what they are made for.
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - calls nothing that could wait for a lock
            )
        kept.started = time.monotonic()
        try:
            write_note(self._note, {"groups": {str(pid): _birth(pid) for pid in self.running().values()}})
        except OSError as error:  # only a killed supervisor's next start would need it
            self._say(f"{self._note} cannot be written ({error.strerror}); free some space")

    @staticmethod
    def _end_group(leader: int) -> None:
        try:
            os.killpg(leader, signal.SIGKILL)
        except ProcessLookupError:  # all have ended
            return


def end_leftovers(note: Path) -> list[int]:
    """Kill what a killed supervisor's children left running; the groups ended.

    A group's number cannot be given away while it has members, so members without their leader are ours; a leader born at
    another time than the note says is a stranger.
    """
    try:
        groups: dict[str, float | None] = json.loads(note.read_text())["groups"]
    except (FileNotFoundError, ValueError, KeyError):
        return []
    ended = []
    for name, birth in groups.items():
        leader = int(name)
        found = _birth(leader)
        if found is not None and found != birth:
            continue
        try:
            os.killpg(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        ended.append(leader)
    note.unlink(missing_ok=True)
    return ended


def how_it_ended(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _when(delay: float) -> str:
    return "starting it again" if not delay else f"starting it again in {delay:.0f} s"


def _birth(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
