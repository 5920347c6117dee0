"""Everything that can go wrong by name, and the one table from name to HTTP.

    WhetstoneError
    ├── BadInput            422  what was sent cannot be used; the message says which field and why
    ├── NotSignedIn         401  no session, or an expired one
    ├── NotAllowed          403  signed in, but not for this object or page
    ├── NotFound            404  no such object, or none this person may know of
    ├── Conflict            409  the object has moved on: a stale lease, a turn already compared, a round already active
    │   └── AlreadyDone     409  done before, by this person; sending it again does not help
    ├── TooLarge            413  more than the stated limit
    ├── TooMany             429  a rate limit; `retry_after` seconds
    └── Unavailable         503  a service we need (Postgres, Redis, a reply worker) is away; trying again is right

Services raise these; `server.app` turns them into one JSON shape or one page. `code` is unique and never reused.
"""

from __future__ import annotations

from typing import ClassVar


class WhetstoneError(Exception):
    """An error with a sentence for the person who meets it: what happened and what to do."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after


class BadInput(WhetstoneError):
    """What was sent cannot be used."""

    status, code = 422, "bad_input"


class NotSignedIn(WhetstoneError):
    """There is no valid session."""

    status, code = 401, "not_signed_in"


class NotAllowed(WhetstoneError):
    """This person may not do this to this object."""

    status, code = 403, "not_allowed"


class NotFound(WhetstoneError):
    """There is no such object for this person."""

    status, code = 404, "not_found"


class Conflict(WhetstoneError):
    """The object has moved on since the page was shown."""

    status, code = 409, "conflict"


class AlreadyDone(Conflict):
    """This person has done it before, from another page or by another request."""

    code = "already_done"


class TooLarge(WhetstoneError):
    """More was sent than the stated limit."""

    status, code = 413, "too_large"


class TooMany(WhetstoneError):
    """Too many requests in a short time."""

    status, code = 429, "too_many"


class Unavailable(WhetstoneError):
    """A service we depend on is away."""

    status, code = 503, "unavailable"
