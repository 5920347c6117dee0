"""A person's settings: look, language and keys. The look can be chosen without an account too, by a cookie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server import language
from server.edge import AnyVisitor, AppSettings, Db, SignedIn, guard_csrf
from server.errors import BadInput, WhetstoneError
from server.language import LANGUAGES, _
from server.models import Person
from server.pages import Page, render
from server.routes.language import keep_language
from server.routes.session import own_path
from server.services.people import comfort, openid_accounts
from server.settings import Settings

router = APIRouter()

YEAR_SECONDS = 365 * 86400


@dataclass(frozen=True)
class SettingsPage(Page):
    """What a person can set for themselves; `keys` (action, what it does, key) only for those who compare."""

    template: ClassVar[str] = "comfort/settings.html"
    themes: list[tuple[str, str]]
    chosen_theme: str
    chosen_language: str
    languages: list[tuple[str, str]]
    keys: list[tuple[str, str, str]]
    keys_off: bool
    providers: list[tuple[str, str, bool]]  # slug, name, and whether this person can sign in with it
    saved: bool = False
    error: str = ""
    field: str = ""


def _page(
    db: Db, settings: Settings, person: Person, typed: dict[str, str] | None = None, *, saved: bool = False
) -> SettingsPage:
    """As it is stored, or as it was typed."""
    there = openid_accounts.connected(db, person) if settings.providers else set()
    shown = comfort.chosen_keys(person.keys) | (typed or {})
    return SettingsPage(
        title=_("Settings"),
        themes=[(theme, _(words)) for theme, words in comfort.THEMES.items()],
        chosen_theme=typed["theme"] if typed is not None else person.theme,
        chosen_language=typed["language"] if typed is not None else person.language or language.current(),
        languages=list(LANGUAGES.items()),
        keys=[(action, comfort.says(action), shown.get(action, "")) for action in comfort.DEFAULT_KEYS]
        if "crowdworker" in person.roles
        else [],
        keys_off="keys_off" in typed if typed is not None else bool(person.keys.get(comfort.OFF)),
        providers=[(each.slug, each.name, each.issuer in there) for each in settings.providers],
        saved=saved,
    )


@router.get("/settings")
def settings_page(
    request: Request, db: Db, settings: AppSettings, who: AnyVisitor, person: SignedIn, saved: int = 0
) -> Response:
    return render(request, who, _page(db, settings, person, saved=bool(saved)))


async def _typed(request: Request) -> dict[str, str]:
    """The form's fields that we know; others are not looked at."""
    allowed = {"theme", "language", "keys_off", "keys_back", *comfort.DEFAULT_KEYS}
    given = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    return {"theme": "", "language": ""} | {name: value[:40] for name, value in given.items() if name in allowed}


@router.post("/settings")
def store_settings(
    request: Request,
    db: Db,
    settings: AppSettings,
    who: AnyVisitor,
    person: SignedIn,
    typed: Annotated[dict[str, str], Depends(_typed)],
) -> Response:
    try:
        with db.begin_nested():
            _store(person, typed)
    except WhetstoneError as error:
        page = _page(db, settings, person, typed)
        wrong = SettingsPage(**(vars(page) | {"error": error.message, "field": error.field or ""}))
        return render(request, who, wrong, status=error.status)
    response = RedirectResponse("/settings?saved=1", status_code=HTTP_303_SEE_OTHER)
    # In the browser too, so that the page of the next sign-in looks and speaks like this one.
    _keep_theme(response, settings, person.theme)
    keep_language(response, settings, typed["language"])
    return response


def _store(person: Person, typed: dict[str, str]) -> None:
    comfort.set_theme(person, typed["theme"])
    if typed["language"] not in LANGUAGES:
        raise BadInput(_("The pages are not written in this language. Choose one from the list."), field="language")
    person.language = typed["language"]
    if "crowdworker" in person.roles:
        keys = {} if "keys_back" in typed else typed
        comfort.set_keys(person, keys, off="keys_off" in typed)


@router.post("/theme")
def choose_theme(
    settings: AppSettings,
    who: AnyVisitor,
    _csrf: Annotated[None, Depends(guard_csrf)],
    theme: Annotated[str, Form(max_length=20)],
    next_path: Annotated[str, Form(max_length=4000)] = "/",
) -> Response:
    if who.person is not None:
        comfort.set_theme(who.person, theme)
    response = RedirectResponse(own_path(next_path), status_code=HTTP_303_SEE_OTHER)
    _keep_theme(response, settings, comfort.known_theme(theme))
    return response


def _keep_theme(response: Response, settings: Settings, theme: str) -> None:
    response.set_cookie(
        comfort.THEME_COOKIE,
        theme,
        max_age=YEAR_SECONDS,
        httponly=True,
        samesite="lax",
        secure=settings.cookie_secure,
        path="/",
    )
