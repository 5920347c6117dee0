"""`whetstone up`: everything on this machine, until Ctrl-C."""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import psutil
from rich.console import Console
from rich.panel import Panel

from server import migrate
from server.db import engine_for, session_factory
from server.embedded import HomeInUseError, OwnServices, ServiceError, holder_of, own_services
from server.embedded.error import last_words
from server.services import seed
from server.settings import OperatorError, Settings, load_settings
from server.supervisor import Supervisor, children

READY_SECONDS = 90.0  # a first start compiles Python and reads weights from a cold disk
REPLY_WORKER_SECONDS = 20.0  # after the web answers; torch takes its time on a cold disk
LOOK_SECONDS = 0.2
RETRY_SECONDS = 10.0
HOPELESS_DEATHS = 3  # of the web server before it was ever ready


@click.command()
@click.option("--demo", is_flag=True, help="Seed two demo campaigns and print one-click sign-in links.")
@click.option("--port", type=click.IntRange(1, 65535), help="Where the web server listens (default: PORT, else 8000).")
def command(demo: bool, port: int | None) -> None:
    """Start the services, the web server, both workers and the schedule on this machine, and keep them alive.

    With DATABASE_URL and REDIS_URL set, those are used; otherwise a private PostgreSQL and Valkey in WHETSTONE_HOME.
    Ctrl-C stops everything and keeps all data.

    \b
    Example:
      whetstone up --demo
      PORT=8001 WHETSTONE_HOME=~/second whetstone up
    """
    environment = dict(os.environ)
    if port is not None:
        environment["PORT"] = str(port)
    if demo:
        environment["WHETSTONE_DEMO"] = "1"
    settings = load_settings(environment)
    console = Console(highlight=False)
    with _interruptible():
        try:
            _run(settings, console)
        except KeyboardInterrupt:
            console.print("Stopped. All data are kept.")


def _run(settings: Settings, console: Console) -> None:
    if settings.embedded and (holder := holder_of(settings.home)):
        raise HomeInUseError(settings.home, holder)
    refuse_busy_port(settings.host, settings.port)
    begun = time.monotonic()
    with _services(settings, console) as (connected, own):
        assert connected.database_url is not None, "services give addresses"
        with _step(console, "Bringing the database to this version"):
            migrate.upgrade(connected.database_url)
        links: Mapping[str, str] = {}
        if connected.demo:
            with _step(console, "Preparing the demo campaigns"):
                links = _seed(connected, connected.database_url)
        engine_for(connected.database_url).dispose()  # from here on only the children talk to the database
        supervisor = Supervisor(children(connected), connected.home, lambda line: console.print(f"  {line}"))
        keeper = _Keeper(supervisor, own, console)
        try:
            with _step(console, "Starting web, reply worker, training worker and schedule"):
                supervisor.start()
                missing = _wait_until_ready(connected, keeper)
            _welcome(console, connected, links, time.monotonic() - begun)
            if missing:
                console.print(f"  {missing}", style="yellow", soft_wrap=True)
            while True:
                keeper.look()
                time.sleep(LOOK_SECONDS)
        finally:
            _deaf()
            with _step(console, "Stopping"):
                supervisor.stop()


class _Keeper:
    """Looks after the children and the private services."""

    def __init__(self, supervisor: Supervisor, own: OwnServices | None, console: Console) -> None:
        self.supervisor = supervisor
        self._own = own
        self._console = console
        self._trouble = ""
        self._next_try = 0.0

    def look(self) -> None:
        """Look once. A service that cannot run now (a full disk) is tried again; its users say meanwhile what they miss."""
        self.supervisor.watch()
        if self._own is None or time.monotonic() < self._next_try:
            return
        try:
            for name in self._own.revive():
                self._console.print(f"  {name} had ended; it runs again")
                self._trouble = ""
        except ServiceError as error:
            if str(error) != self._trouble:
                self._console.print(f"  {error}", style="red", markup=False)
            self._trouble, self._next_try = str(error), time.monotonic() + RETRY_SECONDS


@contextmanager
def _services(settings: Settings, console: Console) -> Iterator[tuple[Settings, OwnServices | None]]:
    """The settings with addresses, said with progress; they stop last."""
    new = settings.embedded and not (settings.home / "postgres").exists()
    running = own_services(settings, doing="whetstone up")
    with _step(console, "Creating a private PostgreSQL and Valkey" if new else "Starting the services"):
        urls, own = running.__enter__()
    if own is not None and own.base != settings.home.resolve():
        console.print(f"  The database lies in {own.base}: its user `nobody` cannot reach {settings.home}.")
    try:
        yield settings.connected(urls.database_url, urls.redis_url), own
    finally:
        _deaf()
        running.__exit__(None, None, None)


def _seed(settings: Settings, database_url: str) -> dict[str, str]:
    """Make the demo campaigns if they are not there; a one-time sign-in link for each role."""
    with session_factory(database_url).begin() as db:
        tokens = seed.seed_demo(db, settings)
    return {f"Sign in as {role}": f"{settings.public_url}/sign-in/{token}" for role, _, token in tokens}


def refuse_busy_port(host: str, port: int) -> None:
    """Raise OperatorError when nothing can listen there, with who does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn: connections that linger are no matter
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OperatorError(
                f"Nothing can listen on {host}:{port}: {(error.strerror or 'refused').lower()}{_listener(port)}. "
                f"Stop what is there or choose another port: PORT={port + 1} whetstone up"
            ) from error


def _listener(port: int) -> str:
    """Which process has the port, as far as we may know."""
    try:
        found = [
            c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port and c.pid
        ]
        return f" by process {found[0]} ({psutil.Process(found[0]).name()})" if found else ""
    except psutil.Error:  # other people's processes are hidden from an ordinary user
        return ""


def _wait_until_ready(settings: Settings, keeper: _Keeper) -> str:
    """Wait until people can be served; a sentence about what is still missing, or nothing."""
    begun = time.monotonic()
    answered = None
    while (status := health_status(settings)) != "ok":
        keeper.look()
        now = time.monotonic()
        if status == "degraded":
            answered = answered or now
            if now - answered > REPLY_WORKER_SECONDS:
                return f"The reply worker is not ready yet; {settings.log_folder / 'reply.log'} says why."
        elif now - begun > READY_SECONDS or keeper.supervisor.deaths["web"] >= HOPELESS_DEATHS:
            log = settings.log_folder / "web.log"
            said = last_words(log.read_text(errors="replace"))
            raise OperatorError(f"The web server does not become ready. Its log {log} ends:\n{said}")
        time.sleep(LOOK_SECONDS)
    return ""


def health_status(settings: Settings) -> str:
    """The status that /health tells: ok, degraded or down; empty when nothing answers."""
    name = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared with, not bound to
    address = f"http://{f'[{name}]' if ':' in name else name}:{settings.port}/health"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(json.load(answer)["status"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return ""


def _welcome(console: Console, settings: Settings, links: Mapping[str, str], seconds: float) -> None:
    """Where everything is. Links stand outside of the frame, whole, however narrow the terminal: people click or copy them."""
    console.print(Panel(f"Whetstone is ready: [bold]{settings.public_url}[/]   ({seconds:.1f} s)", expand=False))
    lines = {**links, "Data and logs": str(settings.home), "Stop": "Ctrl-C (all data are kept)"}
    if not links:
        lines = {"First admin": "whetstone person --help", **lines}
    width = max(map(len, lines))
    for what, where in lines.items():
        console.print(f"  {what:<{width}}  {where}", soft_wrap=True, markup=False)


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """One line for one step: a spinner while it runs, then how long it took."""
    begun = time.monotonic()
    with console.status(f"{what} …") if console.is_terminal else _plainly(console, what):
        yield
    console.print(f"  {what}: {time.monotonic() - begun:.1f} s")


@contextmanager
def _plainly(console: Console, what: str) -> Iterator[None]:
    console.print(f"  {what} …")
    yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end us as Ctrl-C does, so that everything is stopped in order."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _deaf() -> None:
    """Ignore further signals: stopping takes ten seconds at most, and half a stop would leave processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
