"""Ties, "both are bad", skipping and taking back in a real browser, by keys; and the time that is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from server.models import Campaign, Comparison, Skip, Undone
from server.transaction import transaction
from tests import factories
from tests.browser.conftest import Live


def change(live: Live, **settings: Any) -> None:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        campaign = db.query(Campaign).filter_by(slug="helpful").one()
        for name, value in settings.items():
            setattr(campaign, name, value)


def rows(live: Live, table: type[Any]) -> list[Any]:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        return db.query(table).order_by(table.id).all()


def ask(page: Page, live: Live, text: str = "How do I boil an egg?") -> None:
    page.goto(f"{live.url}/chat/helpful")
    page.get_by_label("Your message").fill(text)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("group", name="Text of reply A")).not_to_be_empty()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()


def test_a_tie_by_keys_and_taken_back_by_a_key(live: Live, signed_in_page: Callable[..., Page]) -> None:
    change(live, ties=True)
    page = signed_in_page()
    ask(page, live)
    page.keyboard.press("0")
    expect(page.locator(".chosen")).to_have_text("Both are about equal.")
    page.wait_for_timeout(1200)
    page.keyboard.press("Enter")
    expect(page.locator(".said-by-model")).to_have_count(1)
    (stored,) = rows(live, Comparison)
    assert (stored.verdict, stored.picked_id) == ("tie", None)
    assert 1000 <= stored.milliseconds_to_decide <= 30_000
    assert stored.signals["visible_ms"] >= stored.signals["active_ms"] >= 1000
    page.locator("h1").click()  # out of the message box: there letters are typed
    page.keyboard.press("u")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    assert rows(live, Comparison) == []
    assert len(rows(live, Undone)) == 1


def test_both_bad_asks_for_the_reason_and_skip_asks_once(live: Live, signed_in_page: Callable[..., Page]) -> None:
    change(live, both_bad=True)
    page = signed_in_page()
    ask(page, live)
    page.keyboard.press("9")
    page.keyboard.press("Enter")
    expect(page.locator(".chosen")).to_have_text("Please say why, in a few words.")
    expect(page.get_by_label("Why", exact=True)).to_be_focused()
    page.keyboard.type("Both are made up.")
    page.get_by_role("button", name="Send choice").click()
    expect(page.locator(".said-by-model")).to_have_count(1)
    assert [(row.verdict, row.justification) for row in rows(live, Comparison)] == [("both_bad", "Both are made up.")]
    page.get_by_label("Your message").fill("And now?")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.locator("h1").click()
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What would you like to talk about?")).to_be_visible()
    assert len(rows(live, Skip)) == 1


def test_the_clock_of_an_answered_turn_stands_still(live: Live, signed_in_page: Callable[..., Page]) -> None:
    page = signed_in_page()
    ask(page, live)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator(".said-by-model")).to_have_count(1)
    kept = "() => JSON.stringify(Object.entries(localStorage).filter(([name]) => name.startsWith('whetstone:clock')))"
    before = page.evaluate(kept)
    assert "visible" in before
    page.wait_for_timeout(2500)
    assert page.evaluate(kept) == before


def test_the_sheet_of_keys(live: Live, signed_in_page: Callable[..., Page]) -> None:
    page = signed_in_page()
    page.goto(f"{live.url}/chat/helpful")
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


@pytest.mark.parametrize("script", [True, False])
def test_given_texts_one_after_the_other(live: Live, signed_in_page: Callable[..., Page], script: bool) -> None:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        campaign = factories.campaign(db, slug="pairs", name="Pairs", way="pairs")
        for number in (1, 2):
            factories.item(db, campaign, f"Question {number}?", [f"Left {number}.", f"Right {number}."])
    page = signed_in_page(java_script_enabled=script)
    page.goto(f"{live.url}/chat/pairs")
    for number in (1, 2):
        expect(page.get_by_text(f"Question {number}?")).to_be_visible()
        page.get_by_role("radio", name="A is much better").check(force=True)
        page.get_by_role("button", name="Send choice").click()
    expect(page.get_by_text("There is nothing to do now.")).to_be_visible()
    assert len(rows(live, Comparison)) == 2
