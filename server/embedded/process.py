"""A server as a child process that does not outlive its owner."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from server.embedded.error import ServiceError
from server.embedded.places import Account

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOG_BYTES = 5_000_000  # a log larger than this is set aside at the next start, once


def start_server(
    command: Sequence[str], *, account: Account | None, log: Path, death_signal: int
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C in the terminal does not reach it before its clients are done.

    On Linux it receives `death_signal` when the thread that called this ends, however it ends; call from the main thread.
    """
    rotate(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 - calls nothing that could wait for a lock
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )


def die_with_parent(death_signal: int) -> Callable[[], None] | None:
    """What a child does between fork and exec; None where the system cannot (a leftover is then stopped at the next start)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: afterwards locks may be held
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # died in between
            os._exit(1)

    return ask


def rotate(log: Path) -> None:
    """Set a large log aside, replacing the one set aside before."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes], seconds: float) -> bool:
    """Poll until `ready`; false when the server ended first, ServiceError when time is up."""
    deadline = time.monotonic() + seconds
    while server.poll() is None:
        if ready():
            return True
        if time.monotonic() > deadline:
            raise ServiceError(f"{Path(str(server.args[0])).name} was not ready within {seconds:.0f} seconds")  # type: ignore[index]
        time.sleep(0.02)
    return False


def stop_server(server: subprocess.Popen[bytes], signals: Sequence[tuple[int, float]]) -> None:
    """Send each (signal, seconds to wait) in turn until the server has ended."""
    for number, seconds in signals:
        if server.poll() is not None:
            return
        server.send_signal(number)
        try:
            server.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def stop_leftover(pid: int, belongs: Callable[[psutil.Process], bool], signals: Sequence[tuple[int, float]]) -> bool:
    """Stop a server that an earlier owner left; true if there was one. Never touches a stranger that took its number."""
    try:
        found = psutil.Process(pid)
        if not belongs(found):
            return False
        for number, seconds in (*signals, (signal.SIGKILL, 5.0)):
            found.send_signal(number)
            try:
                found.wait(seconds)
            except psutil.TimeoutExpired:
                continue
            return True
    except psutil.NoSuchProcess:
        return False
    raise ServiceError(f"Process {pid}, left by an earlier start, does not end; end it with: kill -9 {pid}")
