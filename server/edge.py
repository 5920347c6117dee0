"""What a route may ask for: the database, the person who asks, and the gates in front of every page.

`Db` is one transaction a request. Its scope is the route function, so that a failed commit is an error and not a 200.
What waits for nothing is `async` though it awaits nothing: FastAPI gives every other function a thread of its own, and a
hop to a thread and back costs more than these do.
"""

from __future__ import annotations

from asyncio import Semaphore, get_running_loop, timeout
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

from anyio import CancelScope
from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from psycopg import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from server.errors import NotAllowed, NotSignedIn
from server.language import _, speak
from server.models import LoginSession, Person
from server.services.people import people
from server.settings import Settings
from server.transaction import driver_transaction, transaction

SESSION_COOKIE = "whetstone_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# A request keeps its connection from its first statement to its commit, and gives its thread back in between. Were there as many
# of them as connections, all threads could wait for a connection and no request could get a thread to end in. So only so many
# are admitted, in the order they came: with the answers' threads they are fewer than the pool's connections (server/db.py).
REQUESTS_AT_ONCE = 20
PATIENCE_SECONDS = 30.0
# Enough that one who waits for somebody else's row does not stop the others; the way into FastAPI's own threads costs twice as much.
ANSWERS_AT_ONCE = 12
_ANSWERING = ThreadPoolExecutor(ANSWERS_AT_ONCE, "answering")


def settings_of(request: Request) -> Settings:
    """The one Settings of this process."""
    settings: Settings = request.app.state.settings
    return settings


async def current_settings(request: Request) -> Settings:
    """The one Settings of this process, for a route."""
    return settings_of(request)


async def short_transactions(request: Request) -> Callable[[], AbstractContextManager[Session]]:
    """What opens a transaction when called, for answers that outlive their request's own one."""
    return _transactions(request)


def transactions_on(settings: Settings) -> Callable[[], AbstractContextManager[Session]]:
    """What opens a transaction on the services of these settings; `create_app` keeps it as `app.state.transactions`."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    return partial(transaction, settings.database_url, settings.redis_url)


def connections_on(settings: Settings) -> Callable[[], AbstractContextManager[Connection]]:
    """The same on the database's driver alone; `create_app` keeps it as `app.state.connections`."""
    assert settings.database_url is not None
    return partial(driver_transaction, settings.database_url)


def _transactions(request: Request) -> Callable[[], AbstractContextManager[Session]]:
    opener: Callable[[], AbstractContextManager[Session]] = request.app.state.transactions
    return opener


def own_transaction(request: Request) -> AbstractContextManager[Session]:
    """The transaction of a request whose route is one function in a thread: it begins, works and ends there."""
    return _transactions(request)()


def own_connection(request: Request) -> AbstractContextManager[Connection]:
    """The same on the database's driver alone."""
    opener: Callable[[], AbstractContextManager[Connection]] = request.app.state.connections
    return opener()


async def in_answering_thread(answer: Callable[..., Response], *given: Any) -> Response:
    """Run `answer` in one of a few threads that do nothing else, in the context of the request."""
    return await get_running_loop().run_in_executor(_ANSWERING, partial(copy_context().run, answer, *given))


@asynccontextmanager
async def _admitted(admission: Semaphore) -> AsyncIterator[None]:
    """One of those who may be at the database; as where no connection is left, an error once that took too long."""
    try:
        async with timeout(PATIENCE_SECONDS):
            await admission.acquire()
    except TimeoutError as error:
        raise PoolTimeout(f"not admitted to the database within {PATIENCE_SECONDS:.0f} s") from error
    try:
        yield
    finally:
        admission.release()


async def request_transaction(request: Request) -> AsyncIterator[Session]:
    """Commit when the route returns, then send its tasks; roll back when it raises.

    Opening waits for nothing but to be admitted: the connection is taken with the first statement. Ending waits for the database.
    """
    if request.method not in SAFE_METHODS:  # read first: who sends slowly must not keep others out
        await (request.form() if "form" in request.headers.get("content-type", "") else request.body())
    async with _admitted(request.app.state.admission):
        opened = _transactions(request)()
        db = opened.__enter__()
        try:
            yield db
        except BaseException as error:
            with CancelScope(shield=True):  # a request that is given up must not keep its connection
                await run_in_threadpool(opened.__exit__, type(error), error, error.__traceback__)
            raise
        await run_in_threadpool(opened.__exit__, None, None, None)


OpenTransaction = Annotated[Callable[[], AbstractContextManager[Session]], Depends(short_transactions)]
AppSettings = Annotated[Settings, Depends(current_settings)]
Db = Annotated[Session, Depends(request_transaction, scope="function")]


@dataclass(frozen=True)
class Known:
    """What the frame of a page shows of a signed-in person, free of any transaction."""

    name: str
    roles: tuple[str, ...]
    csrf_token: str
    theme: str
    unread_notices: int


@dataclass(frozen=True)
class Visitor:
    """Who asks: a signed-in person, or nobody."""

    person: Person | None
    csrf_token: str | None


def visitor(request: Request, db: Db) -> Visitor:
    """Find the session behind the cookie; an unknown or expired one is nobody."""
    token = request.cookies.get(SESSION_COOKIE)
    found: LoginSession | None = people.find_session(db, token) if token else None
    if found is None:
        return Visitor(None, None)
    speak(found.person.language)
    # For the page of an error: by then the transaction is gone and its rows cannot be read.
    person = found.person
    request.state.known = Known(person.name, tuple(person.roles), found.csrf_token, person.theme, person.unread_notices)
    return Visitor(found.person, found.csrf_token)


AnyVisitor = Annotated[Visitor, Depends(visitor)]


def check_origin(request: Request) -> None:
    """An unsafe request must come from a page of ours; enough where nobody is signed in yet."""
    origin = request.headers.get("origin")
    if request.method in SAFE_METHODS or origin is None:
        return
    # A proxy may ask for us under another name than people do; theirs is the public address.
    ours = (request.headers.get("host", ""), urlsplit(settings_of(request).public_url).netloc)
    if origin.split("://", 1)[-1] not in ours:
        raise NotAllowed(_("This request came from another site. Open the page here and try again."))


async def guard_origin(request: Request) -> None:
    """The same for a route."""
    check_origin(request)


CheckedOrigin = Annotated[None, Depends(guard_origin)]


async def guard_csrf(request: Request, who: AnyVisitor, _origin: CheckedOrigin) -> None:
    """An unsafe request must come from our own page: same origin, and the session's token where there is a session."""
    if request.method in SAFE_METHODS or who.csrf_token is None:
        return
    sent = request.headers.get("x-csrf-token")
    if sent is None and "form" in request.headers.get("content-type", ""):
        field = (await request.form()).get("csrf_token")
        sent = field if isinstance(field, str) else None
    _check_csrf(sent, who.csrf_token)


def _check_csrf(sent: str | None, token: str) -> None:
    if sent is None or not people.same_token(sent, token):
        raise NotAllowed(_("This page is from an earlier session. Reload it and send again; what you typed is kept."))


async def signed_in(who: AnyVisitor, _csrf: Annotated[None, Depends(guard_csrf)]) -> Person:
    """A person with a live session, whatever their roles."""
    return _somebody(who)


def _somebody(who: Visitor) -> Person:
    if who.person is None:
        raise NotSignedIn(_("Please sign in first."))
    return who.person


def _check_role(person: Person, *roles: str) -> Person:
    if not set(roles) & set(person.roles):
        raise NotAllowed(_("This page is for people with the role {roles}.", roles=" / ".join(roles)))
    return person


def _with_role(*roles: str) -> object:
    async def gate(person: Annotated[Person, Depends(signed_in)]) -> Person:
        return _check_role(person, *roles)

    return Depends(gate)


def crowdworker_of(request: Request, db: Session) -> Person:
    """What `Crowdworker` asks, in one call, for a route of JSON that looks at the database in its own way first."""
    check_origin(request)
    who = visitor(request, db)
    if who.csrf_token is not None:
        _check_csrf(request.headers.get("x-csrf-token"), who.csrf_token)
    return _check_role(_somebody(who), "crowdworker")


SignedIn = Annotated[Person, Depends(signed_in)]
Crowdworker = Annotated[Person, _with_role("crowdworker")]
Researcher = Annotated[Person, _with_role("researcher", "admin")]
Admin = Annotated[Person, _with_role("admin")]
