"""Turning a page's dataclass into HTML.

A page is a contract: a frozen dataclass beside its route whose fields are all that its template may read. Undefined names
raise, so a template cannot quietly show nothing. `_()` and `ngettext()` say a sentence in the language of the request.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from server import language, static
from server.edge import Known, Visitor
from server.markdown import to_html
from server.services.people import comfort
from server.static import WEB


@dataclass(frozen=True)
class Page:
    """The base of every page: its template (below web/templates) and its title."""

    template: ClassVar[str]
    title: str


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Autoescaping everywhere; `markdown` is the only way from text to HTML, and it is sanitised."""
    env = Environment(
        loader=FileSystemLoader(WEB / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["markdown"] = lambda text: Markup(to_html(text))  # noqa: S704 - sanitised in server.markdown
    env.globals["_"] = _say
    env.globals["ngettext"] = _say_plural
    env.globals["static"] = static.address
    env.filters["number"] = language.number
    env.filters["money"] = language.money
    env.filters["day"] = lambda at: "–" if at is None else language.day(at)
    env.filters["moment"] = lambda at: "–" if at is None else language.moment(at)
    env.filters["ago"] = ago
    env.filters["percent"] = lambda share, digits=0: "–" if share is None else f"{100 * share:.{digits}f}%"
    env.filters["when"] = lambda at: "–" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return env


def _say(sentence: str, /, **values: object) -> Markup:
    """`_()` of the templates. A sentence may hold our own marks of emphasis; what is filled in is escaped."""
    said = Markup(language.translated(sentence))  # noqa: S704 - a sentence of ours, or its translation
    return said.format(**language.fill(values)) if values else said


def _say_plural(one: str, many: str, n: int, /, **values: object) -> Markup:
    """`ngettext()` of the templates."""
    said = Markup(language.translated_plural(one, many, n))  # noqa: S704 - as above
    return said.format(**language.fill({"n": n, **values}))


@dataclass(frozen=True)
class Speech:
    """What the frame says of the page's language."""

    code: str
    direction: str
    choices: dict[str, str]
    words: dict[str, Any]  # the scripts' sentences


def _speech() -> Speech:
    code = language.current()
    return Speech(code, language.direction(), language.LANGUAGES, language.script_words(code))


def _here(request: Request) -> str:
    """Where to come back to: this page, or the page whose form was sent."""
    at = request.url
    if request.method != "GET":
        at_page = urlsplit(request.headers.get("referer", ""))
        if at_page.netloc != at.netloc:
            return "/"
        return at_page.path + (f"?{at_page.query}" if at_page.query else "")
    return at.path + (f"?{at.query}" if at.query else "")


def ago(at: datetime | None) -> str:
    """How long since `at`, in the largest fitting unit."""
    if at is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def render(request: Request, who: Visitor, page: Page, *, status: int = 200) -> HTMLResponse:
    """Render `page`; the frame also gets the visitor, their CSRF token and the path asked for."""
    values: dict[str, Any] = {field.name: getattr(page, field.name) for field in fields(page)}
    known: Known | None = getattr(request.state, "known", None)
    person = who.person or known
    frame = {
        "person": person,
        "csrf_token": who.csrf_token or (known.csrf_token if known else ""),
        "path": request.url.path,
        "here": _here(request),
        "speech": _speech(),
        "theme": comfort.theme_for(
            person.theme if person is not None else None, request.cookies.get(comfort.THEME_COOKIE)
        ),
        "shortcuts": comfort.keys_of(who.person.keys if who.person is not None else {}),
    }
    html = environment().get_template(page.template).render(**values, **frame)
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})
