"""`services(settings)`: the addresses of a database and a Redis that run as long as the block."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.embedded import postgres, valkey
from server.embedded.lock import Holder, Lock, write_note
from server.embedded.places import find_places
from server.embedded.error import ServiceError
from server.settings import Settings

ATTACH_SECONDS = 90.0  # how long another process may take to start the services that we mean to use
GUEST_SECONDS = 30.0  # how long the owner, when done, waits for commands that use its services


@dataclass(frozen=True)
class Urls:
    """Where the database and Redis are."""

    database_url: str
    redis_url: str


class HomeInUse(ServiceError):
    """Another process owns this home's services."""

    def __init__(self, home: Path, holder: Holder | None) -> None:
        who = f"process {holder.pid} ({holder.doing}) at {holder.address}" if holder else "another process"
        super().__init__(
            f"{home} is in use by {who}; stop that one first, or set WHETSTONE_HOME and PORT for a second."
        )
        self.holder = holder


@contextmanager
def services(settings: Settings, *, attach: bool = True, doing: str | None = None) -> Iterator[Urls]:
    """The configured services, or the private ones: started, or found running in another process's hands.

    What was started here is stopped at the end, once commands that attached are done (at most GUEST_SECONDS).
    With `attach` false somebody else's are refused with HomeInUse. Call from the main thread: the servers end with it.
    Raises ServiceError with what happened and what to do.
    """
    if settings.database_url is not None and settings.redis_url is not None:
        yield Urls(settings.database_url, settings.redis_url)
        return
    home = _usable(settings.home)
    owner, guests = Lock(home / "owner.lock"), Lock(home / "guests.lock")
    try:
        if not attach and not owner.take():
            raise HomeInUse(home, owner.holder())
        urls = _find(home, owner, guests)
        if urls is not None:
            yield urls
            return
        owner.sign(Holder(os.getpid(), doing or Path(sys.argv[0]).name, settings.public_url))
        with _running(home) as urls:
            yield urls
            _see_guests_off(guests)
    finally:
        guests.release()
        owner.release()


def _usable(home: Path) -> Path:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = home / f".writable-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise ServiceError(
            f"The home {home} cannot be written ({error.strerror}); free some space, mend its owner, or set WHETSTONE_HOME."
        ) from error
    return home.resolve()


def _find(home: Path, owner: Lock, guests: Lock) -> Urls | None:
    """The addresses of another owner's services, with our presence noted; None when we have become the owner."""
    deadline = time.monotonic() + ATTACH_SECONDS
    while not owner.take():
        urls = _read_note(home)
        if urls is not None and guests.take(shared=True):
            return urls
        if time.monotonic() > deadline:
            raise HomeInUse(home, owner.holder())
        time.sleep(0.1)
    return None


def _read_note(home: Path) -> Urls | None:
    """What the owner wrote; None when there is none, or when it is a dead owner's (the new one's services still start)."""
    try:
        note = json.loads((home / "services.json").read_text())
        holder = Lock(home / "owner.lock").holder()
        return Urls(note["database_url"], note["redis_url"]) if holder and holder.pid == note["pid"] else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


@contextmanager
def _running(home: Path) -> Iterator[Urls]:
    """Both servers, from start to stop."""
    note = home / "services.json"
    note.unlink(missing_ok=True)
    with ExitStack() as stops:
        try:
            urls = _start(home, stops)
            write_note(note, {"pid": os.getpid(), "database_url": urls.database_url, "redis_url": urls.redis_url})
        except OSError as error:
            raise ServiceError(f"The private services cannot run in {home}: {error}.") from error
        stops.callback(note.unlink, missing_ok=True)  # runs first: nobody attaches to what is about to stop
        yield urls


def _start(home: Path, stops: ExitStack) -> Urls:
    places = find_places(home)
    queue = valkey.start_valkey(places)
    stops.callback(valkey.stop_valkey, queue)
    database = postgres.start_postgres(places)
    stops.callback(postgres.stop_postgres, database)
    return Urls(postgres.database_url(places), valkey.redis_url(places))


def _see_guests_off(guests: Lock) -> None:
    deadline = time.monotonic() + GUEST_SECONDS
    while not guests.take() and time.monotonic() < deadline:
        time.sleep(0.05)
