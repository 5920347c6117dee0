"""The language of the interface: which one a request is answered in, its sentences, and how it writes numbers and dates.

Every sentence is written in English where it is said, `_("At most {most} fit.", most=5)`, and looked up in
`web/languages/<code>.po`; the catalogs are compiled in memory at first use, so there is no build step. What is filled in
comes after the translation: an f-string inside `_()`, or a `_()` inside an f-string, could never be found. English itself has no catalog.

Who speaks: a signed-in person's own choice, else the cookie of the browser, else what the browser asks for, else English.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from gettext import GNUTranslations, NullTranslations
from http.cookies import CookieError, SimpleCookie
from io import BytesIO
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal
from starlette.types import ASGIApp, Receive, Scope, Send

CATALOGS = Path(__file__).resolve().parent.parent / "web" / "languages"
COOKIE = "whetstone_language"
ENGLISH = "en"
# By their own names, since who looks for a language need not read the present one.
LANGUAGES = {
    ENGLISH: "English",
    "ar": "العربية",
    "de": "Deutsch",
    "es": "Español",
    "fr": "Français",
    "hi": "हिन्दी",
    "it": "Italiano",
    "ja": "日本語",
    "nl": "Nederlands",
    "pl": "Polski",
    "pt": "Português",
    "tr": "Türkçe",
    "zh-Hans": "简体中文",
}
RIGHT_TO_LEFT = frozenset({"ar"})


@dataclass
class Spoken:
    """The language of one request; `code` is found when it is first needed, and a signed-in person's choice replaces it."""

    headers: list[tuple[bytes, bytes]]
    code: str | None = None

    def language(self) -> str:
        """The code, from the person, the cookie or the browser."""
        if self.code is None:
            self.code = _asked_for(self.headers)
        return self.code


# The object in it is shared by all threads of a request: what a thread of the pool sets in its copy of the context itself
# would be lost to the others.
_spoken: ContextVar[Spoken | None] = ContextVar("spoken", default=None)


class Interpreter:
    """ASGI middleware: each request has a language of its own. Never reset, so that the error page outside speaks it too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _spoken.set(Spoken(scope["headers"]))
        await self.app(scope, receive, send)


def speak(code: str | None) -> None:
    """Go on in this language; one we do not have, or none, changes nothing."""
    if code in LANGUAGES:
        spoken = _spoken.get()
        if spoken is None:
            _spoken.set(Spoken([], code))
        else:
            spoken.code = code


@contextmanager
def speaking(code: str | None) -> Iterator[None]:
    """What is said inside is said to somebody else: in their language, or in English where they have chosen none."""
    before = _spoken.set(Spoken([], code if code in LANGUAGES else ENGLISH))
    try:
        yield
    finally:
        _spoken.reset(before)


def current() -> str:
    """The code of the language in use: English outside of requests."""
    spoken = _spoken.get()
    return ENGLISH if spoken is None else spoken.language()


def direction() -> str:
    """For the attribute `dir`."""
    return "rtl" if current() in RIGHT_TO_LEFT else "ltr"


def _asked_for(headers: list[tuple[bytes, bytes]]) -> str:
    given = {name: value.decode("latin-1") for name, value in headers if name in (b"cookie", b"accept-language")}
    try:
        cookie = SimpleCookie(given.get(b"cookie", "")).get(COOKIE)
    except CookieError:  # somebody else's cookie on this host; the browser's wish is still there
        cookie = None
    if cookie is not None and cookie.value in LANGUAGES:
        return cookie.value
    return negotiate(given.get(b"accept-language", ""))


def negotiate(wanted: str) -> str:
    """The best of our languages for an Accept-Language header: its order of preference, regions aside."""
    ranked: list[tuple[float, str]] = []
    for part in wanted.split(",")[:50]:
        tag, _sep, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            quality = 0.0
        if quality > 0:
            ranked.append((-quality, tag.strip().lower()))
    by_base = {code.partition("-")[0]: code for code in LANGUAGES}
    for _quality, tag in sorted(ranked, key=lambda each: each[0]):
        base = tag.partition("-")[0]
        if base in by_base:
            return by_base[base]
    return ENGLISH


@lru_cache(maxsize=len(LANGUAGES))
def catalog(code: str) -> Catalog:
    """The catalog of a language as it stands in its file."""
    with (CATALOGS / f"{code}.po").open("rb") as file:
        return read_po(file, locale=_locale(code))


@lru_cache(maxsize=len(LANGUAGES))
def _translations(code: str) -> NullTranslations:
    if code == ENGLISH:
        return NullTranslations()
    compiled = BytesIO()
    write_mo(compiled, catalog(code))
    compiled.seek(0)
    return GNUTranslations(compiled)


@lru_cache(maxsize=len(LANGUAGES))
def _locale(code: str) -> Locale:
    return Locale.parse(code, sep="-")


def later(sentence: str) -> str:
    """Mark a sentence that stands in a table, to be said with `_()` when it is shown."""
    return sentence


def translated(sentence: str) -> str:
    """The sentence in the language in use, its places still open."""
    return _translations(current()).gettext(sentence)


def translated_plural(one: str, many: str, n: int) -> str:
    """The form of a sentence for `n` things, its places still open."""
    return _translations(current()).ngettext(one, many, n)


def fill(values: dict[str, Any]) -> dict[str, Any]:
    """What goes into the places of a sentence: numbers as the language writes them, all else as it is."""
    return {
        name: number(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in values.items()
    }


def _(sentence: str, /, **values: object) -> str:
    """Say a sentence in the language in use; `{name}` in it is filled in afterwards."""
    said = translated(sentence)
    return said.format(**fill(values)) if values else said


def ngettext(one: str, many: str, n: int, /, **values: object) -> str:
    """Say a sentence about `n` things; `{n}` is their number."""
    return translated_plural(one, many, n).format(**fill({"n": n, **values}))


def number(value: float) -> str:
    """A number as the language writes it."""
    return format_decimal(value, locale=_locale(current()))


def money(amount: Decimal | float, currency: str) -> str:
    """An amount of money; `currency` is its ISO 4217 code."""
    return format_currency(amount, currency, locale=_locale(current()))


def day(at: datetime) -> str:
    """A date, by UTC."""
    return format_date(at.astimezone(UTC), format="medium", locale=_locale(current()))


def moment(at: datetime) -> str:
    """A date and a time of day, by UTC and saying so."""
    return format_datetime(at.astimezone(UTC), format="medium", locale=_locale(current())) + " UTC"


@lru_cache(maxsize=len(LANGUAGES))
def script_words(code: str) -> dict[str, Any]:
    """The sentences that scripts say: English to this language; for plurals a form by CLDR category. Empty for English."""
    if code == ENGLISH:
        return {}
    plural = _translations(code)
    found: dict[str, Any] = {}
    for message in catalog(code):
        if not message.id or not any(place.endswith(".js") for place, _line in message.locations):
            continue
        if isinstance(message.id, tuple):
            one, many = message.id
            # A number of each category that whole numbers can have; "other" is what a browser falls back to.
            samples = {_locale(code).plural_form(n): n for n in range(1000, -1, -1)}
            samples.setdefault("other", 1000)
            found[one] = {category: plural.ngettext(one, many, n) for category, n in samples.items()}
        elif message.string:
            found[str(message.id)] = message.string
    return found
