"""The web application: routers, error handlers, security headers, static files. Importing this does nothing."""

from __future__ import annotations

import logging
import os
from asyncio import Semaphore

import psycopg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import configure_mappers
from starlette.exceptions import HTTPException
from starlette.status import HTTP_401_UNAUTHORIZED

from server import errors
from server.edge import REQUESTS_AT_ONCE, Visitor, connections_on, transactions_on
from server.language import Interpreter, _
from server.pages import render
from server.routes import BUSIEST, ROUTERS
from server.routes.error import ErrorPage
from server.settings import Settings, load_settings
from server.shell import SECURITY_HEADERS, Shell
from server.static import Static

log = logging.getLogger("whetstone.web")

DISK_FULL = "53100"  # a SQLSTATE of PostgreSQL


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; with no settings given, from the environment."""
    app = FastAPI(title="Whetstone", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.settings = settings or load_settings(os.environ)
    configure_mappers()  # some tenths of a second that the first visitor would wait for
    app.mount("/static", Static(), name="static")  # before the routers: a page asks for a dozen of these
    app.state.transactions = transactions_on(app.state.settings)
    app.state.connections = connections_on(app.state.settings)
    app.state.admission = Semaphore(REQUESTS_AT_ONCE)
    # As the application's own: a router in between costs a twentieth of an answer.
    app.router.routes.extend(BUSIEST.routes)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Shell)
    app.add_middleware(Interpreter)
    app.add_exception_handler(errors.WhetstoneError, _named_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(InterfaceError, _database_away)
    app.add_exception_handler(PoolTimeout, _database_away)
    app.add_exception_handler(psycopg.OperationalError, _database_away)  # of what runs on the driver itself
    app.add_exception_handler(DataError, _unstorable)
    app.add_exception_handler(IntegrityError, _at_once)
    app.add_exception_handler(RedisError, _redis_away)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _answer(request: Request, error: errors.WhetstoneError) -> Response:
    """One shape for programs, one page for people."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    wants_html = "text/html" in request.headers.get("accept", "")
    if wants_html and not request.url.path.startswith("/api/"):
        title = _("Sign in") if error.status == HTTP_401_UNAUTHORIZED else _("Something went wrong")
        page = ErrorPage(title=title, status=error.status, message=error.message, code=error.code)
        response: Response = render(request, Visitor(None, None), page, status=error.status)
    else:
        body = {"error": {"code": error.code, "message": error.message, "field": error.field}}
        response = JSONResponse(body, status_code=error.status)
    response.headers.update(headers)
    return response


def _named_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.WhetstoneError)
    return _answer(request, error)


def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":  # its location is a byte, not a field
        sentence = _("What was sent is not JSON: {problem}.", problem=first["ctx"]["error"])
        return _answer(request, errors.BadInput(sentence, field="body"))
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return _answer(request, errors.BadInput(f"{field}: {first['msg']}.", field=field))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == errors.NotFound.status:
        return _answer(request, errors.NotFound(_("There is no such page.")))
    kinds = (errors.BadInput, errors.NotSignedIn, errors.NotAllowed, errors.TooLarge, errors.TooMany)
    kind = next((kind for kind in kinds if kind.status == error.status_code), errors.BadInput)
    response = _answer(request, kind(str(error.detail)))
    response.status_code = error.status_code
    return response


def _database_away(request: Request, error: Exception) -> Response:
    log.error("Postgres did not answer: %s", error)
    message = _("The database is away for a moment. What you typed is still on the page; try again in a few seconds.")
    if getattr(getattr(error, "orig", error), "sqlstate", None) == DISK_FULL:
        message = _(
            "The server's disk is full, so nothing can be stored now. What you typed is still on the page; whoever runs "
            "this site has to make room."
        )
    return _answer(request, errors.Unavailable(message, retry_after=3))


def _at_once(request: Request, error: Exception) -> Response:
    # Services look before they write; what slips past that look was written by somebody else in the same moment.
    log.warning("Postgres refused a row at %s: %s", request.url.path, error)
    return _answer(request, errors.Conflict(_("Somebody did the same thing at this moment. Reload the page and look.")))


def _redis_away(request: Request, error: Exception) -> Response:
    log.error("Redis did not answer: %s", error)
    message = _("The message service is away for a moment. Your work is stored; try again in a few seconds.")
    return _answer(request, errors.Unavailable(message, retry_after=3))


def _unstorable(request: Request, error: Exception) -> Response:
    log.warning("Postgres refused a value at %s: %s", request.url.path, error)
    return _answer(
        request, errors.BadInput(_("Something that was sent cannot be stored: a number too large, or U+0000."))
    )


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("Unexpected error at %s", request.url.path, exc_info=error)
    sentence = _("An unexpected error was logged. Your stored work is safe; try again.")
    response = _answer(request, errors.WhetstoneError(sentence))
    response.headers.update(SECURITY_HEADERS)  # this answer is made outside of the shell
    return response
