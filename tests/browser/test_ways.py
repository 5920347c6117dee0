"""Ranking, writing and improving in a real browser: by keys alone, by drag, on a phone, and without any script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from server.models import Campaign, Demonstration, Draft, Edit, Person, Prompt, Ranking
from server.services.campaigns.campaign_settings import FLAGS
from server.transaction import transaction
from tests import factories
from tests.browser.conftest import Live

REPLIES = ("Nine minutes.", "Four minutes, then look.", "Never boil an egg.", "Ask a cook.")


def campaign(live: Live, *messages: str, replies: tuple[str, ...] = REPLIES, **settings: Any) -> None:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        made = factories.campaign(db, slug="work", name="Work", **settings)
        for message in messages:
            factories.item(db, made, message, replies=replies)


def rows(live: Live, table: type[Any]) -> list[Any]:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        found = db.query(table).order_by(table.id).all()
        for row in found:
            list(getattr(row, "places", []))
        return found


def test_rated_and_ranked_by_keys_alone(live: Live, signed_in_page: Callable[..., Page]) -> None:
    campaign(live, "Eggs?", "Tea?", way="ranking", rated=True, flags=FLAGS)
    page = signed_in_page()
    page.goto(f"{live.url}/chat/work")
    expect(page.locator(".chosen")).to_have_text("Reply 1 of 4")
    expect(page.locator(".candidate:visible")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(".chosen")).to_have_text("Rate this reply first: press 1 to 7.")
    for rating in "7531":
        page.keyboard.press(rating)
        page.keyboard.press("Enter")
    expect(page.locator(".candidate:visible")).to_have_count(4)
    for key in ("b", "1", "a", "2", "d", "2"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator(".chosen")).to_have_text("Give reply C a place first.")
    page.wait_for_timeout(700)
    page.reload()  # what was rated and placed is kept on the server
    for key in ("c", "4"):
        page.keyboard.press(key)
    expect(page.locator(".chosen")).to_have_text("B > A = D > C")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Tea?")).to_be_visible()
    (stored,) = rows(live, Ranking)
    assert [(each.place, each.rating) for each in sorted(stored.places, key=lambda each: each.shown)] == [
        (2, 7), (1, 5), (3, 3), (2, 1),
    ]  # fmt: skip
    assert stored.milliseconds_to_decide > 0
    page.keyboard.press("u")
    expect(page.get_by_text("Eggs?")).to_be_visible()
    assert rows(live, Ranking) == []


def test_what_never_reached_the_server_is_there_after_a_reload(live: Live, signed_in_page: Callable[..., Page]) -> None:
    campaign(live, "Eggs?", way="ranking", rated=True)
    page = signed_in_page()
    page.route("**/api/drafts/**", lambda route: route.abort())
    page.goto(f"{live.url}/chat/work")
    for rating in "7531":
        page.keyboard.press(rating)
        page.keyboard.press("Enter")
    for key in ("b", "1", "a", "2"):
        page.keyboard.press(key)
    page.reload()
    expect(page.locator(".board")).to_be_visible()
    for key in ("c", "3", "d", "3"):
        page.keyboard.press(key)
    expect(page.locator(".chosen")).to_have_text("B > A > C = D")
    page.unroute("**/api/drafts/**")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There is nothing to do now.")).to_be_visible()
    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text("Choice taken back")
    expect(page.locator(".chosen")).to_have_text("B > A > C = D")
    assert rows(live, Ranking) == []


def test_a_key_that_was_given_to_something_else_is_no_letter_of_a_reply(
    live: Live, signed_in_page: Callable[..., Page]
) -> None:
    campaign(live, "Eggs?", way="ranking")
    page = signed_in_page()
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        db.query(Person).filter_by(name="Alice").one().keys = {"skip": "d"}
    page.goto(f"{live.url}/chat/work")
    page.keyboard.press("c")
    expect(page.locator(".candidate").nth(2)).to_be_focused()
    page.keyboard.press("d")
    expect(page.locator("[data-action=skip]")).to_be_focused()


def test_ranked_by_drag_and_by_ratings_on_a_phone(live: Live, signed_in_page: Callable[..., Page]) -> None:
    campaign(live, "Eggs?", way="ranking")
    page = signed_in_page(viewport={"width": 360, "height": 740})
    page.goto(f"{live.url}/chat/work")
    page.locator(".board").scroll_into_view_if_needed()
    for letter, slot in (("A", 1), ("B", 2), ("C", 3), ("D", 2)):
        chip = page.locator(".chip-letter", has_text=letter).bounding_box()
        target = page.locator(f'.slot[data-place="{slot}"]').bounding_box()
        assert chip is not None
        assert target is not None
        page.mouse.move(chip["x"] + 10, chip["y"] + 10)
        page.mouse.down()
        page.mouse.move(target["x"] + 150, target["y"] + 20, steps=5)
        page.mouse.up()
    expect(page.locator(".chosen")).to_have_text("A > B = D > C")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Send ranking").click()
    expect(page.get_by_text("There is nothing to do now.")).to_be_visible()
    (stored,) = rows(live, Ranking)
    assert [each.place for each in sorted(stored.places, key=lambda each: each.shown)] == [1, 2, 3, 2]


def test_ranking_without_a_script(live: Live, signed_in_page: Callable[..., Page]) -> None:
    campaign(live, "Eggs?", way="ranking", rated=True, flags=FLAGS)
    page = signed_in_page(java_script_enabled=False)
    page.goto(f"{live.url}/chat/work")
    for at in range(4):
        page.locator(f'input[name="rating-{at}"][value="{at + 1}"]').check()
        page.get_by_label(f"Place of {'ABCD'[at]}").select_option(str(4 - at))
    page.locator('input[name="flags-2"]').first.check()
    page.get_by_role("button", name="Send ranking").click()
    expect(page.get_by_text("There is nothing to do now.")).to_be_visible()
    (stored,) = rows(live, Ranking)
    assert [(each.place, each.rating, len(each.flags)) for each in sorted(stored.places, key=lambda each: each.shown)] == [
        (4, 1, 0), (3, 2, 0), (2, 3, 1), (1, 4, 0),
    ]  # fmt: skip


def test_a_reply_is_written_with_its_draft_kept(live: Live, signed_in_page: Callable[..., Page]) -> None:
    campaign(live, "How do kites fly?", way="demonstration", replies=())
    page = signed_in_page()
    page.goto(f"{live.url}/chat/work")
    page.get_by_label("Your reply").fill("By lift")
    expect(page.get_by_text("Draft kept.")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Your reply")).to_have_value("By lift")
    page.get_by_label("Your reply").press("End")
    page.keyboard.type(", as wings do.")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("There is nothing to do now.")).to_be_visible()
    (stored,) = rows(live, Demonstration)
    assert stored.text == "By lift, as wings do."
    assert stored.signals["typed_chars"] >= 14
    assert rows_of_drafts(live) == 0


def rows_of_drafts(live: Live) -> int:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        return db.query(Draft).count()


def test_a_prompt_is_written_and_taken_back(live: Live, signed_in_page: Callable[..., Page]) -> None:
    campaign(live, way="prompts")
    page = signed_in_page()
    page.goto(f"{live.url}/chat/work")
    page.get_by_label("Your prompt:").fill("Why is the sea salty?")
    page.get_by_role("button", name="Send prompt").click()
    expect(page.locator(".own-prompts")).to_contain_text("Why is the sea salty?")
    expect(page.get_by_label("Your prompt:")).to_have_value("")
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_label("Your prompt:")).to_have_value("Why is the sea salty?")
    assert [row for row in rows(live, Prompt) if row.author_id is not None] == []


def test_the_chosen_reply_is_improved_and_the_chat_goes_on_from_it(
    live: Live, signed_in_page: Callable[..., Page]
) -> None:
    with transaction(str(live.settings.database_url), str(live.settings.redis_url)) as db:
        db.query(Campaign).filter_by(slug="helpful").one().edits = "required"
    page = signed_in_page()
    page.goto(f"{live.url}/chat/helpful")
    page.get_by_label("Your message").fill("How do I boil an egg?")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    box = page.get_by_label("Improve the reply that you chose")
    expect(box).not_to_have_value("")
    expect(page.get_by_label("Your message")).to_have_count(0)
    box.fill("For nine minutes, in hot water.")
    page.get_by_role("button", name="Send improved reply").click()
    expect(page.locator(".said-by-model")).to_contain_text("For nine minutes, in hot water.")
    expect(page.get_by_label("Your message")).to_be_visible()
    assert [row.text for row in rows(live, Edit)] == ["For nine minutes, in hot water."]
