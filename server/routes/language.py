"""The language chooser in the frame of every page: kept in a cookie, and with the account of who is signed in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, AppSettings, guard_csrf
from server.errors import BadInput
from server.language import COOKIE, LANGUAGES, _
from server.routes.session import own_path
from server.settings import Settings

router = APIRouter()

YEAR_SECONDS = 365 * 86400


@router.post("/language")
def choose_language(
    settings: AppSettings,
    who: AnyVisitor,
    _csrf: Annotated[None, Depends(guard_csrf)],
    language: Annotated[str, Form(max_length=20)],
    next_path: Annotated[str, Form(max_length=4000)] = "/",
) -> Response:
    if language not in LANGUAGES:
        raise BadInput(_("The pages are not written in this language. Choose one from the list."), field="language")
    if who.person is not None:
        who.person.language = language
    response = RedirectResponse(own_path(next_path), status_code=HTTP_303_SEE_OTHER)
    keep_language(response, settings, language)
    return response


def keep_language(response: Response, settings: Settings, language: str) -> None:
    """Keep it in the browser too, so that the page of the next sign-in speaks it."""
    response.set_cookie(
        COOKIE, language, max_age=YEAR_SECONDS, httponly=True, samesite="lax", secure=settings.cookie_secure, path="/"
    )
