"""`services(settings)`: the addresses of a database and a Redis that run as long as the block."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.embedded import postgres, valkey
from server.embedded.error import ServiceError
from server.embedded.lock import Holder, Lock, write_note
from server.embedded.places import Places, find_places
from server.settings import Settings

ATTACH_SECONDS = 90.0  # how long another process may take to start the services that we mean to use
GUEST_SECONDS = 30.0  # how long the owner, when done, waits for commands that use its services


@dataclass(frozen=True)
class Urls:
    """Where the database and Redis are."""

    database_url: str
    redis_url: str


class HomeInUseError(ServiceError):
    """Another process owns this home's services."""

    def __init__(self, home: Path, holder: Holder | None) -> None:
        who = f"process {holder.pid} ({holder.doing}) at {holder.address}" if holder else "another process"
        super().__init__(
            f"{home} is in use by {who}; stop that one first, or set WHETSTONE_HOME and PORT for a second."
        )
        self.holder = holder


@contextmanager
def services(settings: Settings) -> Iterator[Urls]:
    """The configured services, or the private ones: started, or found running in another process's hands.

    What was started here is stopped at the end, once commands that attached are done (at most GUEST_SECONDS).
    Call from the main thread: the servers end with it. Raises ServiceError with what happened and what to do.
    """
    if settings.database_url is not None and settings.redis_url is not None:
        yield Urls(settings.database_url, settings.redis_url)
        return
    home = _usable(settings.home)
    owner, guests = Lock(home / "owner.lock"), Lock(home / "guests.lock")
    try:
        urls = _find(home, owner, guests)
        if urls is not None:
            yield urls
            return
        doing = " ".join(["whetstone", *sys.argv[1:2]])
        with _owned(home, owner, Holder(os.getpid(), doing, settings.public_url)) as (urls, _):
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
            raise HomeInUseError(home, owner.holder())
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


class OwnServices:
    """Both private servers of a home, in this process's hands from `start` to `stop`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._places: Places | None = None
        self._database: subprocess.Popen[bytes] | None = None
        self._queue: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> Path:
        """The folder that holds the data: the home, unless the servers' user cannot reach it."""
        return self._places.base if self._places else self.home

    @property
    def _note(self) -> Path:
        return self.home / "services.json"

    def start(self) -> Urls:
        """Start both and tell others where they are."""
        self._note.unlink(missing_ok=True)
        try:
            self._places = find_places(self.home)
            self._queue = valkey.start_valkey(self._places)
            self._database = postgres.start_postgres(self._places)
            urls = Urls(postgres.database_url(self._places), valkey.redis_url(self._places))
            write_note(self._note, {"pid": os.getpid(), "database_url": urls.database_url, "redis_url": urls.redis_url})
        except OSError as error:
            raise ServiceError(f"The private services cannot run in {self.home}: {error}.") from error
        return urls

    def revive(self) -> list[str]:
        """Start again, at the same address, what has ended by itself or was killed; returns what that was."""
        revived = []
        assert self._places is not None, "start comes first"
        try:
            if self._queue is not None and self._queue.poll() is not None:
                self._queue = valkey.start_valkey(self._places)
                revived.append("Valkey")
            if self._database is not None and self._database.poll() is not None:
                self._database = postgres.start_postgres(self._places)
                revived.append("PostgreSQL")
        except OSError as error:
            raise ServiceError(f"The private services cannot run in {self.home}: {error}.") from error
        return revived

    def stop(self) -> None:
        """Stop both; nobody attaches any more."""
        self._note.unlink(missing_ok=True)
        if self._database is not None:
            postgres.stop_postgres(self._database)
        if self._queue is not None:
            valkey.stop_valkey(self._queue)


@contextmanager
def own_services(settings: Settings, *, doing: str) -> Iterator[tuple[Urls, OwnServices | None]]:
    """The services with the means to revive them; None in place of those means when they are not the private ones.

    Raises HomeInUseError when another process has them.
    """
    if settings.database_url is not None and settings.redis_url is not None:
        yield Urls(settings.database_url, settings.redis_url), None
        return
    home = _usable(settings.home)
    owner = Lock(home / "owner.lock")
    if not owner.take():
        raise HomeInUseError(home, owner.holder())
    with _owned(home, owner, Holder(os.getpid(), doing, settings.public_url)) as (urls, own):
        yield urls, own


def holder_of(home: Path) -> Holder | None:
    """Who has this home's services now; None when nobody has."""
    lock = Lock(home / "owner.lock")
    if not lock.path.exists() or lock.take():
        lock.release()
        return None
    return lock.holder() or Holder(0, "starting", "an address not yet known")


@contextmanager
def _owned(home: Path, owner: Lock, holder: Holder) -> Iterator[tuple[Urls, OwnServices]]:
    """Both servers, from start to stop, under a lock that is held already."""
    own = OwnServices(home)
    try:
        owner.sign(holder)
        yield own.start(), own
    finally:
        own.stop()
        owner.release()


def _see_guests_off(guests: Lock) -> None:
    deadline = time.monotonic() + GUEST_SECONDS
    while not guests.take() and time.monotonic() < deadline:
        time.sleep(0.05)
