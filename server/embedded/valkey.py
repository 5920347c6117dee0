"""The private Valkey, which speaks Redis's protocol: start and stop."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import redis

from server.embedded.error import ServiceError, explain, last_words
from server.embedded.places import Places
from server.embedded.process import start_server, stop_leftover, stop_server, wait_until

START_SECONDS = 60.0  # an append-only file of a gigabyte loads in a few seconds
STOP_SIGNALS = ((signal.SIGTERM, 8.0), (signal.SIGKILL, 3.0))  # SIGTERM writes the append-only file to disk and ends

# Messages are nudges: the rows are the truth, and the sweep asks again for what is lost. So the second that `everysec` may lose
# in a power cut (nothing in a kill -9) is worth not waiting for the disk at every message.
TUNING = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",  # a queue must refuse, never forget
    "daemonize": "no",
    "logfile": "",  # standard output, which is the log
}


def redis_url(places: Places) -> str:
    """Where the server is reached, in redis-py's spelling."""
    return f"unix://{places.sockets / 'valkey.sock'}"


def start_valkey(places: Places) -> "subprocess.Popen[bytes]":
    """Start the server on the home's data; a leftover of an earlier owner is stopped before."""
    _stop_leftover(places)
    log = places.logs / "valkey.log"
    begin = log.stat().st_size if log.exists() else 0
    command = [str(places.valkey_program)]
    settings = TUNING | {
        "dir": str(places.valkey_data),
        "unixsocket": str(places.sockets / "valkey.sock"),
        "pidfile": str(places.valkey_data / "valkey.pid"),
    }
    for name, value in settings.items():
        command += [f"--{name}", value]
    server = start_server(command, account=places.account, log=log, death_signal=signal.SIGTERM)
    try:
        if not wait_until(lambda: _answers(places), server, START_SECONDS):
            said = log.read_bytes()[begin if log.stat().st_size > begin else 0 :].decode(errors="replace")
            raise ServiceError(
                f"The private Valkey did not start. {explain(said)}\nIts log {log} ends:\n{last_words(said)}"
            )
    except BaseException:
        stop_valkey(server)
        raise
    return server


def stop_valkey(server: "subprocess.Popen[bytes]") -> None:
    """Write everything to disk and end; harder when it does not end."""
    stop_server(server, STOP_SIGNALS)


def _answers(places: Places) -> bool:
    client = redis.Redis(unix_socket_path=str(places.sockets / "valkey.sock"), socket_timeout=5)
    try:
        client.ping()
    except redis.ConnectionError:  # not listening yet, or still loading (BusyLoadingError is one)
        return False
    else:
        return True
    finally:
        client.close()


def _stop_leftover(places: Places) -> None:
    """Stop the server of a home whose owner was killed; its pid file names it."""
    try:
        pid = int((places.valkey_data / "valkey.pid").read_text())
    except (FileNotFoundError, ValueError):
        return

    def belongs(process: psutil.Process) -> bool:
        is_valkey = process.pid != os.getpid() and process.name().startswith("valkey-server")
        return is_valkey and Path(process.cwd()) == places.valkey_data

    stop_leftover(pid, belongs, STOP_SIGNALS)
