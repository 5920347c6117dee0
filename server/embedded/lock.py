"""One owner per home: a lock that the system itself releases when its owner dies, and a note of who that is."""

import errno
import fcntl
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.embedded.error import ServiceError


@dataclass(frozen=True)
class Holder:
    """Who holds a home; written into the lock file, so it may be read before or after its truth."""

    pid: int
    doing: str
    address: str


class Lock:
    """An exclusive or shared flock on one file; held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self, *, shared: bool = False) -> bool:
        """Try once; false when others hold it in a way that excludes this."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise ServiceError(
                f"{self.path} cannot be locked ({error.strerror}); set WHETSTONE_HOME to a folder on a local disk."
            ) from error
        return True

    def sign(self, holder: Holder) -> None:
        """Write who holds it."""
        if self._descriptor is None:
            raise RuntimeError("only a lock that is held can be signed")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)

    def holder(self) -> Holder | None:
        """Who signed it last; None when it has not been signed yet."""
        try:
            return Holder(**json.loads(self.path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def release(self) -> None:
        """Let others in; harmless when not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def write_note(path: Path, content: dict[str, Any]) -> None:
    """Write a private JSON file so that a reader sees all of it or none."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink()
        raise
