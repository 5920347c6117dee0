"""One's own page with everything on it: reachable for all, in every width; objecting works without a script."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from server.db import session_factory
from server.language import COOKIE
from server.models import Appeal, Campaign, Person
from tests.browser import every_page
from tests.browser.conftest import Live
from tests.browser.test_accessibility import violations
from tests.browser.test_overflow import found_on

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Open = Callable[..., Page]


def fill(live: Live, name: str) -> None:
    with session_factory(str(live.settings.database_url)).begin() as db:
        person = db.scalars(select(Person).where(Person.name == name)).one()
        every_page.pay(db, person, db.scalars(select(Campaign).where(Campaign.slug == "helpful")).one())


@pytest.mark.parametrize("code", ["en", "de", "ar"])
def test_nothing_is_out_of_reach(live: Live, signed_in_page: Open, code: str) -> None:
    page = signed_in_page("Alice")
    fill(live, "Alice")
    page.context.add_cookies([{"name": COOKIE, "value": code, "url": live.url}])
    found = []
    for address in ("/me", "/me/leaderboard/helpful", "/chat/helpful"):
        assert page.goto(live.url + address).status == 200
        found += [f"{address} {each}" for each in found_on(page)]
        found += violations(page) if code == "en" else []
    assert not found, "\n".join(found)


def test_objecting_without_a_script(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page("Alice", java_script_enabled=False)
    fill(live, "Alice")
    page.goto(f"{live.url}/me")
    expect(page.get_by_role("link", name="unread notices")).to_be_visible()
    page.get_by_text("Object to this", exact=True).click()
    page.get_by_label("Why should it be paid?").fill("I was there.")
    page.get_by_role("button", name="Send the objection").click()
    expect(page.get_by_text("You objected: I was there.")).to_be_visible()
    with session_factory(str(live.settings.database_url))() as db:
        assert "I was there." in db.scalars(select(Appeal.text)).all()
    page.get_by_role("button", name="Mark all as read").click()
    expect(page.get_by_role("link", name="unread notices")).to_have_count(0)
