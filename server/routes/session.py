"""Signing in and out, invitations, one-click links; as pages and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import SESSION_COOKIE, AnyVisitor, AppSettings, CheckedOrigin, Db, SignedIn, Visitor
from server.errors import BadInput, WhetstoneError
from server.language import _
from server.models import Person
from server.pages import Page, render
from server.services.people import invitations, limits, people
from server.settings import Settings

router = APIRouter()


@dataclass(frozen=True)
class SignInPage(Page):
    """The way in for people with a password."""

    template: ClassVar[str] = "session/sign_in.html"
    next_path: str
    by_mail: bool
    providers: list[tuple[str, str]]  # address and name of each OpenID Connect provider
    email: str = ""
    error: str = ""


@dataclass(frozen=True)
class InvitationPage(Page):
    """The way in for people who were invited."""

    template: ClassVar[str] = "session/invitation.html"
    token: str
    roles: list[str]
    providers: list[tuple[str, str]]
    name: str = ""
    email: str = ""
    error: str = ""
    field: str = ""


@dataclass(frozen=True)
class LinkPage(Page):
    """One button that spends a one-click link; a GET alone must not, or a link preview would use it up."""

    template: ClassVar[str] = "session/link.html"
    token: str


def set_session_cookie(response: Response, settings: Settings, token: str) -> None:
    """Give the browser its session; no script can read it and no other site can send it along with a form."""
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=people.SESSION_DAYS * 86400,
        httponly=True,
        samesite="lax",
        secure=settings.cookie_secure,
        path="/",
    )


def _welcome(db: Db, settings: Settings, person: Person, where: str) -> Response:
    token, _ = people.start_session(db, person)
    response = RedirectResponse(where, status_code=HTTP_303_SEE_OTHER)
    set_session_cookie(response, settings, token)
    return response


def own_path(path: str) -> str:
    """`path` if it leads to a page of ours, else the start: a link must not send people elsewhere after signing in."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain else "/"


def network_address(request: Request) -> str:
    """Where a request comes from, for limits."""
    return request.client.host if request.client else "unknown"


def sign_in_ways(settings: Settings, next_path: str, **more: str) -> SignInPage:
    """The page with every way that this site offers."""
    return SignInPage(
        title=_("Sign in"),
        next_path=next_path,
        by_mail=settings.mail is not None,
        providers=openid_ways(settings, next=next_path),
        **more,
    )


def openid_ways(settings: Settings, **query: str) -> list[tuple[str, str]]:
    """Address and name of each OpenID Connect provider."""
    return [(f"/sign-in/openid/{each.slug}?{urlencode(query)}", each.name) for each in settings.providers]


@router.get("/sign-in")
def sign_in_page(
    request: Request,
    settings: AppSettings,
    who: AnyVisitor,
    next: str = "/",  # noqa: A002 - the query's name
) -> Response:
    if who.person is not None:
        return RedirectResponse(own_path(next), status_code=HTTP_303_SEE_OTHER)
    return render(request, who, sign_in_ways(settings, own_path(next)))


@router.post("/sign-in")
def sign_in(
    request: Request,
    db: Db,
    settings: AppSettings,
    _origin: CheckedOrigin,
    email: Annotated[str, Form(max_length=300)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    next_path: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    try:
        limits.limit_sign_in(settings, email, network_address(request))
        person = people.sign_in(db, email, password)
    except WhetstoneError as error:
        page = sign_in_ways(settings, own_path(next_path), email=email, error=error.message)
        return render(request, Visitor(None, None), page, status=error.status)
    return _welcome(db, settings, person, own_path(next_path))


@router.get("/sign-in/{token}")
def link_page(request: Request, who: AnyVisitor, token: str) -> Response:
    return render(request, who, LinkPage(title=_("Sign in"), token=token))


@router.post("/sign-in/{token}")
def use_link(db: Db, settings: AppSettings, _origin: CheckedOrigin, token: str) -> Response:
    return _welcome(db, settings, people.use_sign_in_link(db, settings, token), "/")


@router.get("/invitation/{token}")
def invitation_page(request: Request, db: Db, settings: AppSettings, who: AnyVisitor, token: str) -> Response:
    invitation = invitations.find_invitation(db, token)
    ways = openid_ways(settings, invitation=token)
    return render(request, who, InvitationPage(title=_("Welcome"), token=token, roles=invitation.roles, providers=ways))


@router.post("/invitation/{token}")
def accept_invitation(
    request: Request,
    db: Db,
    settings: AppSettings,
    _origin: CheckedOrigin,
    token: str,
    name: Annotated[str, Form(max_length=1000)] = "",
    email: Annotated[str, Form(max_length=1000)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    invitation = invitations.find_invitation(db, token)
    roles = list(invitation.roles)
    try:
        with db.begin_nested():
            person = invitations.accept_invitation(db, token, name, email, password)
    except WhetstoneError as error:
        page = InvitationPage(
            title=_("Welcome"),
            token=token,
            roles=roles,
            providers=openid_ways(settings, invitation=token),
            name=name,
            email=email,
            error=error.message,
            field=error.field or "",
        )
        return render(request, Visitor(None, None), page, status=error.status)
    return _welcome(db, settings, person, "/")


@router.post("/sign-out")
def sign_out(request: Request, db: Db, _person: SignedIn) -> Response:
    people.end_session(db, request.cookies[SESSION_COOKIE])
    response = RedirectResponse("/", status_code=HTTP_303_SEE_OTHER)
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response


class SignInBody(BaseModel):
    """Either `email` and `password`, or the token of a one-click link."""

    email: str | None = None
    password: str | None = None
    link: str | None = None


def describe_person(person: Person) -> dict[str, Any]:
    """A person as JSON."""
    return {"id": person.id, "name": person.name, "roles": list(person.roles)}


@router.post("/api/session")
def open_session(request: Request, db: Db, settings: AppSettings, _origin: CheckedOrigin, body: SignInBody) -> Response:
    if body.link is not None:
        person = people.use_sign_in_link(db, settings, body.link)
    elif body.email is not None and body.password is not None:
        limits.limit_sign_in(settings, body.email, network_address(request))
        person = people.sign_in(db, body.email, body.password)
    else:
        raise BadInput(_("Send email and password, or link."), field="email")
    token, csrf_token = people.start_session(db, person)
    response = JSONResponse({"csrf_token": csrf_token, "person": describe_person(person)})
    set_session_cookie(response, settings, token)
    return response


@router.delete("/api/session", status_code=204)
def close_session(request: Request, db: Db, _person: SignedIn) -> Response:
    people.end_session(db, request.cookies[SESSION_COOKIE])
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response
