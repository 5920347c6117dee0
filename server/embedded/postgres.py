"""The private PostgreSQL: create, start, stop."""

import getpass
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from server.embedded.error import ServiceError, explain, last_words
from server.embedded.places import Places
from server.embedded.process import start_server, stop_leftover, stop_server, wait_until

ROLE = DATABASE = "whetstone"
START_SECONDS = 60.0  # recovery after a crash reads at most max_wal_size again
# "Fast" ends sessions and writes all to disk; "immediate" leaves recovery to the next start (postgres docs, server-shutdown).
STOP_SIGNALS = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0))

# A laptop's database: small, and as durable as a server's. fsync, full_page_writes and synchronous_commit stay on.
TUNING = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # every process keeps a pool of up to 40
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",  # nobody replicates from it
    "max_wal_senders": "0",
    "io_method": "sync",  # three helper processes fewer
    "max_parallel_workers_per_gather": "0",  # two cores are already busy; also spares /dev/shm, which is small in containers
    "jit": "off",
    "dynamic_shared_memory_type": "mmap",
    # After a crash, one call for the whole disk instead of opening a thousand files; only Linux has it.
    "recovery_init_sync_method": "syncfs" if sys.platform.startswith("linux") else "fsync",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


def database_url(places: Places) -> str:
    """Where the database is reached, in SQLAlchemy's spelling."""
    return f"postgresql+psycopg://{ROLE}@/{DATABASE}?host={quote(str(places.sockets), safe='')}"


def start_postgres(places: Places) -> "subprocess.Popen[bytes]":
    """Start the server on the home's data, creating them at first; a leftover of an earlier owner is stopped before."""
    data = places.postgres_data
    _stop_leftover(data)
    if not (data / "PG_VERSION").is_file():
        _create(places)
    _own_all(places)
    _let_in_only_us(places)
    log = places.logs / "postgres.log"
    begin = log.stat().st_size if log.exists() else 0
    command = [str(places.postgres_programs / "postgres"), "-D", str(data), "-k", str(places.sockets)]
    for name, value in TUNING.items():
        command += ["-c", f"{name}={value}"]
    server = start_server(command, account=places.account, log=log, death_signal=signal.SIGINT)
    try:
        if not wait_until(lambda: _accepts(places, server.pid), server, START_SECONDS):
            said = log.read_bytes()[begin if log.stat().st_size > begin else 0 :].decode(errors="replace")
            raise ServiceError(
                f"The private PostgreSQL did not start. {explain(said)}\nIts log {log} ends:\n{last_words(said)}"
            )
        _create_database(places)
    except BaseException:
        stop_postgres(server)
        raise
    return server


def stop_postgres(server: "subprocess.Popen[bytes]") -> None:
    """Fast shutdown; harder when it does not end."""
    stop_server(server, STOP_SIGNALS)


def _create(places: Places) -> None:
    """Run initdb beside the final place and rename, so that a creation cut short is begun anew."""
    unfinished = places.postgres_data.with_name("postgres.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    places.own(unfinished)
    command = [
        *(str(places.postgres_programs / "initdb"), "--pgdata", str(unfinished), "--username", ROLE),
        *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"),  # one order on every system
        *("--auth", "peer", "--no-instructions"),
    ]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
        check=False,
        user=places.account.uid if places.account else None,
        group=places.account.gid if places.account else None,
        extra_groups=[] if places.account else None,
    )
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        said = done.stdout + done.stderr
        raise ServiceError(
            f"The private PostgreSQL could not be created in {places.base}. {explain(said)}\n"
            f"initdb said:\n{last_words(said)}"
        )
    unfinished.rename(places.postgres_data)


def _own_all(places: Places) -> None:
    """Give the data to who runs the server now; they belong to another when root took over a user's home, or copied it."""
    uid, gid = (places.account.uid, places.account.gid) if places.account else (os.geteuid(), os.getegid())
    data = places.postgres_data
    if data.stat().st_uid == uid:
        return
    if os.geteuid() != 0:
        raise ServiceError(
            f"{data} belongs to another user (number {data.stat().st_uid}); start as that user, or give it to yourself "
            f"with: sudo chown -R {getpass.getuser()} {data}"
        )
    for folder, _, files in os.walk(data):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118 - a tree of thousands
            os.chown(path, uid, gid, follow_symlinks=False)


def _let_in_only_us(places: Places) -> None:
    """Sessions are known by the system's user of the client: ourselves, not the `nobody` whom others may run as too."""
    user = getpass.getuser() if os.geteuid() != 0 else "root"
    for name, line in (("pg_hba.conf", "local all all peer map=owner"), ("pg_ident.conf", f'owner "{user}" {ROLE}')):
        path = places.postgres_data / name
        if not path.exists() or path.read_text() != line + "\n":
            path.write_text(line + "\n")  # in place: owner and mode stay


def _accepts(places: Places, pid: int) -> bool:
    """Whether sessions may begin; read from the pid file's eighth line (miscadmin.h), since asking fills the log with refusals."""
    try:
        lines = (places.postgres_data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    # A server that was killed has left its own file, which says "ready" for ever.
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _connect(places: Places) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(host=str(places.sockets), user=ROLE, dbname="postgres", autocommit=True, connect_timeout=5)


def _create_database(places: Places) -> None:
    with _connect(places) as connection, suppress(psycopg.errors.DuplicateDatabase):
        connection.execute(f"create database {DATABASE}")  # ours, a constant


def _stop_leftover(data: Path) -> None:
    """Stop the server of a home whose owner was killed; its pid file names it."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return

    def belongs(process: psutil.Process) -> bool:
        return process.pid != os.getpid() and str(data) in process.cmdline()

    stop_leftover(pid, belongs, STOP_SIGNALS)
