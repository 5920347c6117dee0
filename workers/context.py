"""What every worker process knows of its installation, and its name in claims."""

from __future__ import annotations

import os
import socket
from functools import lru_cache

import psutil

from server.settings import OperatorError, Settings, load_settings


@lru_cache(maxsize=1)
def connected_settings() -> Settings:
    """The settings of this process; a worker never starts services, it is told where they are."""
    settings = load_settings(os.environ)
    if settings.database_url is None or settings.redis_url is None:
        raise OperatorError("A worker needs DATABASE_URL and REDIS_URL; `whetstone up` starts workers with both.")
    return settings


def process_name() -> str:
    """`host/pid/start`: names this process and no later one that is given the same pid."""
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{int(process.create_time())}"


def is_dead(name: str) -> bool:
    """Whether a name that `process_name` made belongs to a process of this host that is gone; False for other hosts."""
    try:
        host, pid, start = name.split("/")[:3]
        if host != socket.gethostname():
            return False
        return int(psutil.Process(int(pid)).create_time()) != int(start)
    except psutil.NoSuchProcess:
        return True
    except ValueError:
        return False
