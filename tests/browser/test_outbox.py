"""What is sent while the connection is away: kept in order and in sight, through reloads and closed tabs, and stored once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import update

from server.models import Campaign, Comparison, Conversation, Lease, Report, Turn
from server.services.working.instructions import new_instructions
from server.transaction import transaction
from tests.browser.conftest import Live
from tests.browser.test_verdicts import ask, change, rows

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
API = "**/api/**"
expect.set_options(timeout=20_000)


def cut(page: Page) -> None:
    """Pages load, but nothing can be sent: what a browser with a broken connection shows after a reload from its cache."""

    def drop(route: Route) -> None:
        if route.request.method in ("POST", "PUT"):
            route.abort("internetdisconnected")
        else:
            route.continue_()

    page.context.route(API, drop)


def mend(page: Page) -> None:
    page.context.unroute(API)
    page.evaluate("dispatchEvent(new Event('online'))")


def test_several_things_wait_in_order_and_survive_a_reload(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    cut(page)
    page.locator("summary", has_text="Report a problem").click()
    page.get_by_label("Anything to add?").fill("It names a person.")
    page.get_by_role("button", name="Send the report").click()
    waiting = page.locator("#outbox [role=status]")
    expect(waiting).to_contain_text("1 thing is waiting:")
    page.locator("h1").click()
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    expect(waiting).to_contain_text("2 things are waiting:")
    page.get_by_label("Your message").fill("And a duck's egg?")  # the conversation goes on
    page.keyboard.press("Enter")
    expect(waiting.locator("li")).to_have_text(
        [
            "Report: It names a person. Helpful assistant",
            "Choice: step 7 of the scale Helpful assistant",
            "Message: And a duck's egg? Helpful assistant",
        ]
    )
    page.reload()
    expect(waiting.locator("li")).to_have_count(3)
    assert (rows(live, Comparison), len(rows(live, Turn))) == ([], 1)
    mend(page)
    expect(page.locator(".said-by-you").last).to_contain_text("And a duck's egg?")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    expect(page.locator("#outbox li")).to_have_count(0)
    (report,), (comparison,), (first, second) = rows(live, Report), rows(live, Comparison), rows(live, Turn)
    assert (report.turn_id, comparison.turn_id, comparison.scale_position) == (first.id, first.id, 7)
    assert report.created_at < comparison.created_at < second.created_at
    assert second.conversation_id == first.conversation_id
    assert len(rows(live, Conversation)) == 1


def test_a_tab_that_was_closed_with_things_to_send_sends_them_from_the_next(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    page.goto(f"{live.url}/chat/helpful")
    cut(page)
    page.get_by_label("Your message").fill("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.locator("#outbox [role=status] li")).to_have_count(1)
    again = page.context.new_page()
    page.close()
    again.context.unroute(API)
    again.goto(f"{live.url}/chat/red-team")  # it need not even be the same campaign
    expect(again.locator("#outbox li")).to_have_count(0)
    again.goto(f"{live.url}/chat/helpful")
    expect(again.get_by_role("button", name="Send choice")).to_be_enabled()
    assert [turn.message for turn in rows(live, Turn)] == ["How do I boil an egg?"]


def test_two_tabs_have_one_list_and_each_goes_on_when_its_own_is_sent(live: Live, signed_in_page: Open) -> None:
    one = signed_in_page()
    one.goto(f"{live.url}/chat/helpful")
    other = one.context.new_page()
    other.goto(f"{live.url}/chat/red-team")
    cut(one)
    for page, text in ((one, "How do I boil an egg?"), (other, "Say something bad")):
        page.get_by_label("Your message").fill(text)
        page.keyboard.press("Enter")
    for page in (one, other):
        expect(page.locator("#outbox [role=status] li")).to_have_count(2)
    mend(one)
    for page in (one, other):
        expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    assert [turn.message for turn in rows(live, Turn)] == ["How do I boil an egg?", "Say something bad"]


def test_what_is_refused_stays_in_sight_until_it_is_put_away(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    expect(page.locator(".said-by-model")).to_have_count(1)
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        db.execute(update(Lease).values(expires_at=datetime.now(UTC) - timedelta(minutes=1)))
    page.get_by_label("Your message").fill("And a duck's egg?")
    page.keyboard.press("Enter")
    refused = page.locator("#outbox [role=alert]")
    expect(refused).to_contain_text("And a duck's egg?")
    expect(refused).to_contain_text("Your conversation expired")
    expect(page.get_by_label("Your message")).to_have_value("And a duck's egg?")
    page.reload()
    expect(refused).to_contain_text("And a duck's egg?")
    refused.get_by_role("button", name="Put away").click()
    expect(refused).to_have_count(0)
    page.reload()
    expect(refused).to_have_count(0)
    assert len(rows(live, Turn)) == 1


def test_a_choice_made_in_another_tab_before_is_not_offered_to_be_sent_again(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("button", name="Send choice")).to_be_enabled()
    for tab, key in ((page, "7"), (other, "2")):
        tab.keyboard.press(key)
        tab.keyboard.press("Enter")
        expect(tab.locator(".said-by-model")).to_have_count(1)
    refused = other.locator("#outbox [role=alert]")
    expect(refused).to_contain_text("You have already answered this")
    expect(refused.get_by_role("button")).to_have_text(["Put away"])
    (stored,) = rows(live, Comparison)
    assert stored.scale_position == 7


def test_the_reason_of_a_choice_that_is_refused_stays_in_sight(live: Live, signed_in_page: Open) -> None:
    change(live, justification="optional")
    page = signed_in_page()
    ask(page, live)
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        db.execute(update(Lease).values(expires_at=datetime.now(UTC) - timedelta(minutes=1)))
    page.get_by_text("Say why (optional)").click()
    page.get_by_label("Why", exact=True).fill("Reply A says how long.")
    page.get_by_role("radio", name="A is much better").check(force=True)
    page.get_by_role("button", name="Send choice").click()
    refused = page.locator("#outbox [role=alert]")
    expect(refused).to_contain_text("Your conversation expired")
    expect(refused.locator("blockquote")).to_have_text("Reply A says how long.")


def test_new_instructions_are_told_on_a_page_that_is_open(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    told = page.get_by_role("link", name="The instructions have changed")
    expect(told).to_be_hidden()
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        campaign = db.query(Campaign).filter_by(slug="helpful").one()
        new_instructions(db, campaign, "Prefer the *kinder* reply.", None)
    page.locator("h1").click()
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    expect(told).to_be_visible()
    told.click()
    expect(page.get_by_text("Prefer the kinder reply.")).to_be_visible()
    expect(told).to_be_hidden()


def test_what_was_mended_and_sent_is_no_longer_shown_as_refused(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    page.goto(f"{live.url}/chat/helpful")
    page.evaluate("document.querySelector('#message').removeAttribute('maxlength')")
    page.get_by_label("Your message").fill("x" * 20_000)
    with page.expect_response(lambda answer: "/api/drafts" in answer.url):  # it is kept for the box
        page.keyboard.press("Enter")
    expect(page.locator("#outbox [role=alert]")).to_have_count(1)
    page.get_by_label("Your message").fill("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    expect(page.locator("#outbox [role=alert]")).to_have_count(0)


def test_what_is_typed_without_connection_is_there_after_the_tab_was_closed(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    page.goto(f"{live.url}/chat/helpful")
    cut(page)
    page.get_by_label("Your message").press_sequentially("How do I bo")
    expect(page.get_by_text("Draft kept on this device: no connection.")).to_be_visible()
    page.get_by_label("Your message").press_sequentially("il")  # no pause after it
    again = page.context.new_page()
    page.close()
    again.goto(f"{live.url}/chat/helpful")
    expect(again.get_by_label("Your message")).to_have_value("How do I boil")
    mend(again)
    again.get_by_label("Your message").press_sequentially(" an egg?")
    expect(again.get_by_text("Draft kept.", exact=True)).to_be_visible()
    kept = "() => Object.keys(localStorage).filter((name) => name.startsWith('whetstone:draft'))"
    assert again.evaluate(kept) == []


def test_the_clock_goes_on_after_the_tab_was_closed(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    page.wait_for_timeout(2500)
    again = page.context.new_page()
    page.close()
    again.goto(f"{live.url}/chat/helpful")
    expect(again.get_by_role("button", name="Send choice")).to_be_enabled()
    again.keyboard.press("1")
    again.keyboard.press("Enter")
    expect(again.locator(".said-by-model")).to_have_count(1)
    (stored,) = rows(live, Comparison)
    assert stored.signals["visible_ms"] >= 2000


def test_focus_and_announcement_after_sending(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    expect(page.get_by_role("group", name="Text of reply A")).to_be_focused()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your message")).to_be_focused()
    expect(page.locator("#said")).to_have_text("Stored. Go on writing.")
