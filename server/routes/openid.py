"""Signing in at an OpenID Connect provider: going there, and coming back."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import SESSION_COOKIE, AnyVisitor, AppSettings, OpenTransaction, Visitor
from server.errors import NotAllowed, NotSignedIn, WhetstoneError
from server.language import _
from server.pages import render
from server.routes.session import own_path, set_session_cookie, sign_in_ways
from server.services.people import openid, openid_accounts, people

router = APIRouter(prefix="/sign-in/openid")

COOKIE = "whetstone_openid"
PATH = "/sign-in/openid"


@router.get("/{slug}")
def begin(
    request: Request,
    settings: AppSettings,
    who: AnyVisitor,
    slug: str,
    next: str = "/",  # noqa: A002 - the query's name
    invitation: str = "",
    link: str = "",
) -> Response:
    """Off to the provider. `link` joins it to the account that is signed in, so it must be that session's own token."""
    provider = openid.find(settings, slug)
    if link and (who.csrf_token is None or not people.same_token(link, who.csrf_token)):
        raise NotAllowed(_("This page is from an earlier session. Reload it and send again; what you typed is kept."))
    try:
        address, note = openid.begin(settings, provider, own_path(next), invitation, link=bool(link))
    except WhetstoneError as error:
        page = sign_in_ways(settings, own_path(next), error=error.message)
        return render(request, who, page, status=error.status)
    response = RedirectResponse(address, status_code=HTTP_303_SEE_OTHER)
    response.set_cookie(
        COOKIE,
        note,
        max_age=openid.NOTE_SECONDS,
        httponly=True,
        samesite="lax",  # the provider's way back is a link from another site
        secure=settings.cookie_secure,
        path=PATH,
    )
    return response


@router.get("/{slug}/callback")
def come_back(
    request: Request,
    settings: AppSettings,
    transactions: OpenTransaction,
    slug: str,
    state: str = "",
    code: str = "",
    error: str = "",
    iss: str | None = None,
) -> Response:
    """Back from the provider, with a code or with what went wrong. The database is asked only after the provider was."""
    provider = openid.find(settings, slug)
    try:
        note = openid.read_note(settings, provider, request.cookies.get(COOKIE), state)
        if error or not code:
            raise NotSignedIn(
                _("{name} did not sign you in. You can try again, or take another way.", name=provider.name)
            )
        claims = openid.finish(settings, provider, note, code, iss)
        with transactions() as db:
            found = people.find_session(db, request.cookies.get(SESSION_COOKIE, ""))
            response: Response = RedirectResponse(own_path(note.next_path), status_code=HTTP_303_SEE_OTHER)
            if note.link:
                if found is None:
                    raise NotSignedIn(_("Please sign in first."))
                openid_accounts.connect(db, found.person, claims)
            else:
                person = openid_accounts.sign_in(db, provider, claims, note.invitation)
                token, _csrf = people.start_session(db, person)
                set_session_cookie(response, settings, token)
    except WhetstoneError as wrong:
        page = sign_in_ways(settings, "/", error=wrong.message)
        response = render(request, Visitor(None, None), page, status=wrong.status)
    response.delete_cookie(COOKIE, path=PATH)
    return response
