"""The chat in a real browser: by keyboard, through reloads and lost connections, on a phone, without any script."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from server.db import session_factory
from server.models import Campaign, Comparison, Lease, Turn
from tests.browser.conftest import Live

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Open = Callable[..., Page]
expect.set_options(timeout=20_000)  # generous: the machine may be busy with other things


def start_chat(page: Page, script: bool = True) -> None:
    page.get_by_role("link", name="Start").first.click()
    expect(page.get_by_role("heading", name="Helpful assistant")).to_be_visible()
    if script:
        page.locator("#chat[data-live]").wait_for()


def rows(live: Live, table: type) -> list:
    with session_factory(str(live.settings.database_url))() as db:
        return list(db.scalars(select(table).order_by(table.id)))


def test_a_chat_by_keyboard_alone(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    expect(page.locator(".reply strong")).to_have_text("Lower the eggs in gently")
    page.keyboard.press("7")
    expect(page.locator(".chosen")).to_have_text("B is clearly better.")
    page.keyboard.press("Enter")
    expect(page.locator(".chose")).to_have_text("You said: B is clearly better")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("And a duck's egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That conversation is complete.")).to_be_visible()
    first, second = rows(live, Comparison)
    assert (first.scale_position, first.strength, second.scale_position, second.strength) == (7, 3, 1, 4)
    assert 0 < first.milliseconds_to_decide < 60_000


def test_a_reload_loses_nothing(signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    page.locator("#message").fill("A slow question about eg")
    expect(page.get_by_text("Draft kept.")).to_be_visible()
    page.reload()
    expect(page.locator("#message")).to_have_value("A slow question about eg")
    page.locator("#message").fill("A slow question about eggs")
    page.keyboard.press("Enter")
    expect(page.locator(".reply").first).not_to_be_empty()
    page.reload()  # in the middle of the writing
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.get_by_text("Say why (optional)").click()
    with page.expect_response(lambda answer: "/api/drafts/justification" in answer.url):
        page.get_by_label("Why", exact=True).fill("The other one is rude.")
    page.reload()
    expect(page.get_by_label("Why", exact=True)).to_have_value("The other one is rude.")
    expect(page.locator(".said-by-you")).to_have_text("You said:A slow question about eggs")


def test_a_double_click_stores_once(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    page.get_by_role("button", name="What can I plant").click()
    expect(page.locator("#message")).to_have_value("What can I plant in a shady garden?")
    page.locator("form.composer button").dblclick()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.get_by_title("A is slightly better").click()
    page.get_by_role("button", name="Send choice").dblclick()
    expect(page.locator(".chose")).to_be_visible()
    assert len(rows(live, Turn)) == 1
    assert [each.strength for each in rows(live, Comparison)] == [1]


def test_a_message_sent_without_connection_arrives_later_once(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    page.locator("#message").fill("How do I boil an egg?")
    expect(page.get_by_text("Draft kept.")).to_be_visible()
    page.context.set_offline(True)
    page.keyboard.press("Enter")
    expect(page.get_by_text("The connection is lost.")).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    assert len(rows(live, Turn)) == 1


def test_an_answer_that_was_lost_on_the_way_does_not_store_twice(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    lost = []

    def lose_the_first(route) -> None:
        if not lost:
            lost.append(route.fetch())  # the server has stored it
            route.abort()
        else:
            route.continue_()

    page.route("**/api/campaigns/helpful/messages", lose_the_first)
    page.locator("#message").fill("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    assert len(lost) == 1
    assert len(rows(live, Turn)) == 1


def test_a_refused_message_is_kept_however_fast_it_was_typed(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    page.keyboard.type("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.keyboard.press("8")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    with session_factory(str(live.settings.database_url)).begin() as db:
        db.execute(update(Lease).values(expires_at=datetime.now(UTC) - timedelta(minutes=1)))
    page.locator("#message").fill("And a duck's egg?")
    page.keyboard.press("Enter")  # before the pause after which a draft is kept
    expect(page.get_by_text("Your conversation expired").first).to_be_visible()
    expect(page.locator("#message")).to_have_value("And a duck's egg?")


def test_a_campaign_that_closes_under_ones_hands_says_so(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    with session_factory(str(live.settings.database_url)).begin() as db:
        db.execute(update(Campaign).values(status="closed"))
    page.locator("#message").fill("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There is no such campaign, or it has been closed.")).to_be_visible()


def test_a_failed_turn_says_why_and_can_be_tried_again(signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    page.locator("#message").fill("Please fail")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The model's weight file is missing.")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()


def test_markup_in_messages_and_replies_is_text(signed_in_page: Open) -> None:
    page = signed_in_page()
    start_chat(page)
    page.locator("#message").fill(
        '<img src=x onerror="document.title=1"><b>bold?</b> <script>document.title=2</script>'
    )
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    expect(page.locator(".said-by-you")).to_contain_text("<b>bold?</b>")
    expect(page.locator(".pair")).to_contain_text("<script>document.title='broken'</script>")
    assert page.locator("#chat img, #chat script, #chat b").count() == 0
    expect(page).to_have_title("Helpful assistant · Whetstone")


def test_a_phone_shows_all_without_scrolling_sideways(signed_in_page: Open) -> None:
    page = signed_in_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    start_chat(page)
    page.locator("#message").fill("How do I boil an egg?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    tops = "[...document.querySelectorAll('.candidate')].map(each => each.getBoundingClientRect())"
    first, second = page.evaluate(f"{tops}.map(({{top, bottom}}) => ({{top, bottom}}))")
    assert second["top"] >= first["bottom"]
    narrowest = min(box["width"] for step in page.locator(".step").all() if (box := step.bounding_box()))
    assert narrowest >= 24  # the least target size of WCAG 2.2
    page.get_by_title("B is much better").tap()
    page.get_by_role("button", name="Send choice").tap()
    expect(page.locator(".chose")).to_have_text("You said: B is much better")


def test_the_chat_works_without_any_script(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(java_script_enabled=False)
    start_chat(page, script=False)
    page.locator("#message").fill("How do I boil an egg?")
    page.get_by_role("button", name="Send", exact=True).click()
    page.wait_for_timeout(800)
    page.reload()
    page.get_by_title("A is much better").click()
    page.get_by_role("button", name="Send choice").click()
    expect(page.locator(".chose")).to_have_text("You said: A is much better")
    assert [each.strength for each in rows(live, Comparison)] == [4]
