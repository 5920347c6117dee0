"""The language of the interface: who chooses it, what is said in it, and that its catalogs are whole."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from babel import Locale

from server import language
from server.language import LANGUAGES, RIGHT_TO_LEFT, catalog, negotiate, script_words
from server.pages import environment
from tests import factories

ROOT = Path(__file__).resolve().parents[2]
OTHERS = sorted(set(LANGUAGES) - {"en"})
PLACES = re.compile(r"\{\w*\}")
TAGS = re.compile(r"</?(\w+)>")


@pytest.fixture
def speak():
    """Say something in a language; English again afterwards."""
    token = language._spoken.set(None)
    yield language.speak
    language._spoken.reset(token)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-CH,de;q=0.9,en;q=0.8", "de"),
        ("pt-BR, en;q=0.5", "pt"),
        ("zh-CN", "zh-Hans"),
        ("sv, fr;q=0.3, tr;q=0.7", "tr"),
        ("fr;q=0, it;q=0.1", "it"),
        ("xx, *;q=0.5", "en"),
        ("de;q=much, nl;q=0.2", "nl"),
        (",;,;;=", "en"),
    ],
)
def test_the_browsers_wish(wanted: str, got: str) -> None:
    assert negotiate(wanted) == got


def said_in(code: str, sentence: str) -> str:
    return catalog(code).get(sentence).string or sentence


def frame_of(html: str) -> tuple[str, str]:
    found = re.search(r'<html lang="([^"]+)" dir="([^"]+)"', html)
    assert found
    return found.group(1), found.group(2)


def test_a_page_speaks_what_the_browser_asks_for(client) -> None:
    assert frame_of(client.get("/sign-in").text) == ("en", "ltr")
    assert frame_of(client.get("/sign-in", headers={"Accept-Language": "ar-EG"}).text) == ("ar", "rtl")
    html = client.get("/sign-in", headers={"Accept-Language": "de"}).text
    assert frame_of(html) == ("de", "ltr")
    assert f"<h1>{said_in('de', 'Sign in')}</h1>" in html


def test_the_chooser_is_kept_in_a_cookie_and_leads_back(client) -> None:
    told = client.post("/language", data={"language": "fr", "next_path": "/sign-in?next=/chat"}, follow_redirects=False)
    assert told.status_code == 303
    assert told.headers["location"] == "/sign-in?next=/chat"
    html = client.get("/sign-in", headers={"Accept-Language": "de"}).text
    assert frame_of(html)[0] == "fr"
    assert '<option value="fr" lang="fr" selected>' in html


def test_the_chooser_refuses_what_it_does_not_offer_and_leads_nowhere_else(client) -> None:
    assert client.post("/language", data={"language": "xx"}).status_code == 422
    told = client.post("/language", data={"language": "fr", "next_path": "//evil.example"}, follow_redirects=False)
    assert told.headers["location"] == "/"


def test_a_persons_choice_goes_before_the_browsers(client, cast, sign_in, db) -> None:
    sign_in(cast.alice)
    client.post("/language", data={"language": "nl"})
    client.cookies.delete(language.COOKIE)
    assert frame_of(client.get("/chat", headers={"Accept-Language": "de"}).text)[0] == "nl"
    db.refresh(cast.alice)
    assert cast.alice.language == "nl"


def test_errors_speak_it_too(client) -> None:
    headers = {"Accept-Language": "es", "Accept": "text/html"}
    html = client.get("/nowhere", headers=headers).text
    assert frame_of(html)[0] == "es"
    told = client.get("/api/campaigns", headers={"Accept-Language": "es"}).json()
    assert told["error"]["message"] == said_in("es", "Please sign in first.")


def test_what_is_filled_into_a_sentence_is_escaped(speak) -> None:
    said = environment().from_string('{{ _("Hello, {name}", name="<b>") }}').render()
    assert "&lt;b&gt;" in said


def test_numbers_and_dates_are_written_as_the_language_does(speak) -> None:
    assert language.number(12345.5) == "12,345.5"
    speak("de")
    assert language.number(12345.5) == "12.345,5"
    assert language._("{n} of {text}", n=12345, text="7") == "12.345 of 7"
    assert language.moment(datetime(2026, 3, 4, 15, 30, tzinfo=UTC)) == "04.03.2026, 15:30:00 UTC"
    speak("xx")
    assert language.current() == "de"


@pytest.mark.parametrize("code", OTHERS)
def test_scripts_get_every_sentence_they_say(code: str) -> None:
    said = set()
    for path in (ROOT / "web" / "static").glob("*.js"):
        said |= set(re.findall(r'\b(?:_|ngettext)\("((?:[^"\\]|\\.)+)"', path.read_text()))
    said -= {"Wait {n} s.", "{n} answer"}  # the examples in words.js
    assert len(said) > 5
    translated = {
        json.dumps(each.id[0] if isinstance(each.id, tuple) else each.id, ensure_ascii=False)[1:-1]
        for each in catalog(code)
        if any(place.endswith(".js") for place, _ in each.locations)
    }
    assert said <= translated
    assert set(script_words(code)) <= {unescape(each.replace('\\"', '"')) for each in translated}


def test_english_pages_carry_no_table_for_scripts(client) -> None:
    assert script_words("en") == {}
    assert 'id="words"' not in client.get("/sign-in").text


def test_catalogs_hold_the_sentences_of_the_sources() -> None:
    """Failing: run `python scripts/languages.py`, and translate what is new."""
    done = subprocess.run(
        [sys.executable, "scripts/languages.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_sentence_is_said_where_it_cannot_be_found() -> None:
    """What reads the sources for the catalogs does not look into f-strings: a `_()` in one is never translated."""
    known = {
        one for each in catalog("de") if each.id for one in (each.id if isinstance(each.id, tuple) else (each.id,))
    }
    said = {
        argument.value: f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in [*ROOT.glob("server/**/*.py"), *ROOT.glob("workers/**/*.py")]
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("_", "later", "ngettext")
        for argument in call.args[:2]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    assert len(said) > 100
    assert {sentence: place for sentence, place in said.items() if sentence not in known} == {}


def test_there_are_at_least_ten_languages_and_each_has_its_catalog() -> None:
    assert len(OTHERS) >= 10
    assert {path.stem for path in language.CATALOGS.glob("*.po")} == set(OTHERS)
    assert {code for code in LANGUAGES if Locale.parse(code, sep="-").text_direction == "rtl"} == RIGHT_TO_LEFT


@pytest.mark.parametrize("code", OTHERS)
def test_no_sentence_is_left_in_english(code: str) -> None:
    """Failing: a sentence is new or has changed; write its translation into the catalog."""
    found = catalog(code)
    missing = []
    for message in found:
        forms = message.string if isinstance(message.string, tuple) else (message.string,)
        wanted = found.num_plurals if isinstance(message.id, tuple) else 1
        if message.id and (len(forms) != wanted or not all(forms)):
            missing.append(message.id)
    assert not missing


@pytest.mark.parametrize("code", OTHERS)
def test_no_translation_loses_a_place_or_a_tag(code: str) -> None:
    """A place that is missing or misspelt would be an error, or a number never shown; a tag that is open, a broken page."""
    wrong = []
    for message in catalog(code):
        if not message.id:
            continue
        ids = message.id if isinstance(message.id, tuple) else (message.id,)
        strings = message.string if isinstance(message.string, tuple) else (message.string,)
        for said in filter(None, strings):
            # A form for one or two things may leave their number out, as English does with "a minute".
            places = set(PLACES.findall(said))
            allowed = [set(PLACES.findall(each)) for each in ids]
            fits = places in allowed or (len(ids) > 1 and places | {"{n}"} in allowed)
            if not fits or sorted(TAGS.findall(said)) != sorted(TAGS.findall(ids[-1])):
                wrong.append(said)
    assert not wrong


def test_what_people_and_models_write_keeps_its_own_direction(client, cast, sign_in, db) -> None:
    """An English reply on an Arabic page would otherwise end with its full stop at the wrong side."""
    campaign = factories.campaign(db, slug="both")
    factories.turn(db, factories.conversation(db, campaign, cast.alice))
    db.commit()
    sign_in(cast.alice)
    page = client.get("/chat/both", headers={"accept-language": "ar"}).text
    assert 'dir="rtl"' in page
    texts = re.findall(r'<div class="(?:said-by-you prose|reply prose)"([^>]*)>', page)
    assert len(texts) == 3
    assert all('dir="auto"' in attributes for attributes in texts)
