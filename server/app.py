"""The web application: routers, error handlers, security headers, static files. Importing this does nothing."""

from __future__ import annotations

import logging
import os

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from redis.exceptions import RedisError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from server import errors
from server.edge import Visitor
from server.pages import WEB, render
from server.routes import ROUTERS
from server.routes.error import ErrorPage
from server.settings import Settings, load_settings

log = logging.getLogger("whetstone.web")

# No inline script or style, no third-party host: what a reply smuggles in cannot run or call home.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
# The largest body any route takes from a browser; imports are read from disk by a job, never through a request.
MAX_BODY_BYTES = 1_000_000


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; with no settings given, from the environment."""
    app = FastAPI(title="Whetstone", docs_url="/api/docs", redoc_url=None, openapi_url="/api/openapi.json")
    app.state.settings = settings or load_settings(os.environ)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=WEB / "static"), name="static")
    app.middleware("http")(_guard)
    app.add_exception_handler(errors.WhetstoneError, _named_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(RedisError, _redis_away)
    app.add_exception_handler(Exception, _unexpected)
    return app


async def _guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
        response = _answer(request, errors.TooLarge(f"At most {MAX_BODY_BYTES:,} bytes can be sent at once."))
    else:
        response = await call_next(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _answer(request: Request, error: errors.WhetstoneError) -> Response:
    """One shape for programs, one page for people."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    wants_html = "text/html" in request.headers.get("accept", "")
    if wants_html and not request.url.path.startswith("/api/"):
        page = ErrorPage(title="Something went wrong", status=error.status, message=error.message, code=error.code)
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
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return _answer(request, errors.BadInput(f"{field}: {first['msg']}.", field=field))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == errors.NotFound.status:
        return _answer(request, errors.NotFound("There is no such page."))
    named = errors.WhetstoneError(str(error.detail))
    response = _answer(request, named)
    response.status_code = error.status_code
    return response


def _database_away(request: Request, error: Exception) -> Response:
    log.error("Postgres did not answer: %s", error)
    message = "The database is away for a moment. What you typed is still on the page; try again in a few seconds."
    return _answer(request, errors.Unavailable(message, retry_after=3))


def _redis_away(request: Request, error: Exception) -> Response:
    log.error("Redis did not answer: %s", error)
    message = "The message service is away for a moment. Your work is stored; try again in a few seconds."
    return _answer(request, errors.Unavailable(message, retry_after=3))


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("Unexpected error at %s", request.url.path, exc_info=error)
    return _answer(
        request, errors.WhetstoneError("An unexpected error was logged. Your stored work is safe; try again.")
    )
