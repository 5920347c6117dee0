"""What every worker process knows of its installation, and its name in claims."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import lru_cache
from pathlib import Path

import psutil

from server.settings import OperatorError, Settings, load_settings

# A start is told from the wall clock, which may be set right meanwhile; no number is given to another process as soon.
CLOCK_SECONDS = 5.0


@lru_cache(maxsize=1)
def connected_settings() -> Settings:
    """The settings of this process; a worker never starts services, it is told where they are."""
    settings = load_settings(os.environ)
    if settings.database_url is None or settings.redis_url is None:
        raise OperatorError("A worker needs DATABASE_URL and REDIS_URL; `whetstone up` starts workers with both.")
    return settings


@lru_cache(maxsize=1)
def _place() -> str:
    """Where process numbers mean what they mean here: `host.hash` of this boot and, in a container, its own numbering.

    The host's name alone is not enough: containers on the host's network share it and cannot see each other's processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        numbering = Path("/proc/self/ns/pid").readlink()
    except OSError:  # not Linux: no containers that share a name
        return socket.gethostname()
    return f"{socket.gethostname()}.{hashlib.sha256(f'{boot} {numbering}'.encode()).hexdigest()[:8]}"


def process_name() -> str:
    """`place/pid/start`: names this process and no later one that is given the same pid."""
    process = psutil.Process()
    return f"{_place()}/{process.pid}/{int(process.create_time())}"


def is_dead(name: str) -> bool:
    """Whether a name that `process_name` made belongs to a process of this place that is gone; False for other places."""
    try:
        place, pid, start = name.split("/")[:3]
        if place != _place():
            return False
        started: float = psutil.Process(int(pid)).create_time()
        return abs(started - int(start)) > CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
    except ValueError:
        return False
