"""A person's settings: what is stored, what is refused and shown again, and that pages keep to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server import static
from server.errors import BadInput
from server.models import Person
from server.services.people import comfort
from tests import factories
from tests.conftest import Cast

SignIn = Callable[[Person | None], str]
HTML = {"Accept": "text/html"}
FORM = {"theme": "auto", "language": "en"}


def keys_on(page: str) -> dict[str, str]:
    """What a page tells its scripts."""
    (found,) = re.findall(r"data-shortcuts='([^']*)'", page)
    return json.loads(found)


def test_only_what_differs_is_stored_and_all_can_be_switched_off(db: Session, cast: Cast) -> None:
    comfort.set_keys(cast.alice, {"undo": " Z ", "skip": "", "step_1": "1"}, off=False)
    assert cast.alice.keys == {"undo": "z", "skip": ""}
    keys = comfort.keys_of(cast.alice.keys)
    assert (keys["undo"], keys["skip"], keys["step_8"]) == ("z", "", "8")
    comfort.set_keys(cast.alice, {"undo": "z"}, off=True)
    assert set(comfort.keys_of(cast.alice.keys).values()) == {""}
    assert comfort.chosen_keys(cast.alice.keys)["undo"] == "z"  # comes back with the switch


def test_default_keys_do_not_collide() -> None:
    used = [key for key in comfort.DEFAULT_KEYS.values() if key]
    assert len(used) == len(set(used))


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"undo": "s"}, "skip"),  # what stands later in the list says that its key is taken
        ({"tie": "5"}, "tie"),
        ({"undo": "ab"}, "undo"),
        ({"undo": "\u0007"}, "undo"),
    ],
)
def test_a_key_that_cannot_be_is_named(db: Session, cast: Cast, typed: dict[str, str], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        comfort.set_keys(cast.alice, typed, off=False)
    assert refused.value.field == field
    assert cast.alice.keys == {}


def test_two_keys_can_change_places(db: Session, cast: Cast) -> None:
    comfort.set_keys(cast.alice, {"undo": "s", "skip": "u"}, off=False)
    assert comfort.keys_of(cast.alice.keys)["skip"] == "u"


def test_settings_are_stored_and_every_page_keeps_to_them(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    factories.campaign(db, slug="chat", name="Chat")
    sign_in(cast.alice)
    assert 'data-theme="auto"' in client.get("/settings").text
    form = {"theme": "dark", "language": "de", "undo": "z", "step_1": "q"}
    sent = client.post("/settings", data=form)
    assert sent.headers["location"] == "/settings?saved=1"
    db.refresh(cast.alice)
    assert (cast.alice.theme, cast.alice.language) == ("dark", "de")
    assert cast.alice.keys == {"undo": "z", "step_1": "q"}
    page = client.get("/chat/chat").text
    assert 'data-theme="dark"' in page and '<html lang="de"' in page and f'href="{static.address("dark.css")}">' in page
    assert (keys_on(page)["undo"], keys_on(page)["step_1"], keys_on(page)["step_2"]) == ("z", "q", "2")
    assert "<dt><kbd>z</kbd></dt>" in page and "<dt><kbd>q</kbd></dt>" in page  # the sheet
    sign_in(None)
    client.cookies.set("whetstone_theme", "dark")  # what the answer above has set
    assert 'data-theme="dark"' in client.get("/sign-in").text
    assert "whetstone_theme=dark" in sent.headers["set-cookie"]


def test_a_refused_form_shows_what_was_typed_and_the_error_at_its_field(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    sign_in(cast.alice)
    refused = client.post("/settings", data=FORM | {"theme": "light", "undo": "s", "send": "g"}, headers=HTML)
    assert refused.status_code == 422
    assert re.search(r'name="skip" value="s"[^>]*aria-invalid="true"', refused.text)
    assert 'name="send" value="g"' in refused.text and 'value="light" checked' in refused.text
    assert "s already stands for: Take the last answer back." in refused.text
    db.refresh(cast.alice)
    assert (cast.alice.theme, cast.alice.keys) == ("auto", {})
    assert client.post("/settings", data=FORM | {"theme": "pink"}, headers=HTML).status_code == 422
    assert client.post("/settings", data=FORM | {"language": "xx"}, headers=HTML).status_code == 422
    assert client.post("/settings", data={}, headers=HTML).status_code == 422


def test_keys_are_switched_off_and_set_back(client: TestClient, sign_in: SignIn, cast: Cast, db: Session) -> None:
    campaign = factories.campaign(db, slug="chat", name="Chat", ties=True, both_bad=True)
    talk = factories.conversation(db, campaign, cast.alice)
    factories.turn(db, talk)
    db.commit()
    sign_in(cast.alice)
    assert "<kbd" in client.get("/chat/chat").text.partition('<dialog id="keys"')[0].partition('class="choice"')[2]
    client.post("/settings", data=FORM | {"undo": "z", "keys_off": "on"})
    page = client.get("/chat/chat").text
    assert set(keys_on(page).values()) == {""}
    before_the_sheet = page.partition('<dialog id="keys"')[0].partition('class="choice"')[2]
    assert "<kbd" not in before_the_sheet.partition('class="composer"')[0]
    assert 'name="undo" value="z"' in client.get("/settings").text
    client.post("/settings", data=FORM | {"undo": "z", "keys_off": "on", "keys_back": "1"})
    db.refresh(cast.alice)
    assert cast.alice.keys == {"off": True}


def test_who_does_not_compare_has_no_keys_to_set(client: TestClient, sign_in: SignIn, cast: Cast, db: Session) -> None:
    sign_in(cast.rosa)
    assert 'name="undo"' not in client.get("/settings").text
    assert client.post("/settings", data=FORM | {"theme": "dark", "undo": "z"}).status_code == 303
    db.refresh(cast.rosa)
    assert (cast.rosa.theme, cast.rosa.keys) == ("dark", {})


@pytest.mark.parametrize(
    ("account", "cookie", "shown"),
    [
        (None, None, "auto"), (None, "dark", "dark"), ("light", "dark", "light"), ("auto", "dark", "dark"),
        ("auto", "pink", "auto"), ("auto", "auto", "auto"),
    ],
)  # fmt: skip
def test_the_accounts_look_goes_before_the_browsers(account: str | None, cookie: str | None, shown: str) -> None:
    assert comfort.theme_for(account, cookie) == shown


def test_the_look_without_an_account_is_a_cookie(client: TestClient, sign_in: SignIn) -> None:
    sign_in(None)
    sent = client.post("/theme", data={"theme": "dark", "next_path": "/sign-in"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in")
    page = client.get("/sign-in").text
    assert 'data-theme="dark"' in page and '<meta name="color-scheme" content="dark">' in page
    assert client.post("/theme", data={"theme": "pink"}).status_code == 422
    assert client.post("/theme", data={"theme": "light", "next_path": "//evil.example"}).headers["location"] == "/"
    light = client.get("/sign-in").text
    assert "dark.css" not in light and 'data-theme="light"' in light


def test_an_error_page_keeps_the_look(client: TestClient, sign_in: SignIn, cast: Cast, db: Session) -> None:
    cast.alice.theme = "dark"
    db.commit()
    sign_in(cast.alice)
    missing: Any = client.get("/chat/none", headers=HTML)
    assert missing.status_code == 404 and 'data-theme="dark"' in missing.text
