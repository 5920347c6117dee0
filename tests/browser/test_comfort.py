"""Keys as a person has set them, and the look of the pages, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from server.models import Comparison
from tests.browser.conftest import Live
from tests.browser.test_verdicts import ask, rows

Open = Callable[..., Page]
COLOUR = "getComputedStyle(document.documentElement).backgroundColor"
LIGHT, DARK = "rgb(246, 245, 242)", "rgb(18, 21, 23)"


def test_keys_are_set_by_typing_them_and_work(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    page.goto(f"{live.url}/settings")
    page.get_by_label("Step 1 of the scale").click()
    page.keyboard.type("q")  # takes the place of the 1
    page.get_by_label("Send the choice (Enter always does)").click()
    page.keyboard.type("g")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("Step 1 of the scale")).to_have_value("q")
    ask(page, live)
    page.keyboard.press("1")
    expect(page.locator(".chosen")).to_have_text("Choose a step, then send.")
    page.keyboard.press("Q")  # with caps lock
    expect(page.locator(".chosen")).to_have_text("A is much better.")
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    expect(sheet.locator("dt", has_text="q")).to_have_count(1)
    page.keyboard.press("g")  # behind the open sheet nothing happens
    page.keyboard.press("Escape")
    assert rows(live, Comparison) == []
    page.keyboard.press("g")
    expect(page.locator(".said-by-model")).to_have_count(1)
    assert [row.scale_position for row in rows(live, Comparison)] == [1]
    page.locator("h1").click()
    page.keyboard.press("m")
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("m1q")  # in a box every key is a letter
    expect(page.get_by_label("Your message")).to_have_value("m1q")


def test_with_single_keys_off_none_does_anything(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    page.goto(f"{live.url}/settings")
    page.get_by_label("Switch all single keys off").check()
    page.get_by_role("button", name="Save").click()
    ask(page, live)
    for key in ("1", "8", "s", "r", "?"):
        page.keyboard.press(key)
    expect(page.locator(".chosen")).to_have_text("Choose a step, then send.")
    expect(page.locator("details.remark[open], dialog[open]")).to_have_count(0)
    page.get_by_role("radio", name="B is much better").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")  # the form's own way
    expect(page.locator(".said-by-model")).to_have_count(1)
    assert [row.scale_position for row in rows(live, Comparison)] == [8]


def test_digits_of_a_french_keyboard_and_letters_of_a_russian_one(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    ask(page, live)
    press = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, code, bubbles: true}))"
    page.evaluate(press, ["é", "Digit2"])
    expect(page.locator(".chosen")).to_have_text("A is clearly better.")
    page.evaluate(press, ["к", "KeyR"])
    expect(page.get_by_label("What is wrong?")).to_be_visible()
    page.evaluate(press, ["o", "KeyS"])  # Dvorak: its own letters count, not the places
    expect(page.get_by_label("Why do you skip it?")).to_be_hidden()


def test_the_look_follows_the_device_until_somebody_chooses(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(color_scheme="dark")
    assert page.evaluate(COLOUR) == DARK
    page.goto(f"{live.url}/settings")
    page.get_by_label("Light", exact=True).check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert page.evaluate(COLOUR) == LIGHT
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in").first).to_be_visible()
    assert page.evaluate(COLOUR) == LIGHT  # the browser remembers
    page.get_by_label("Light or dark").select_option("dark")
    page.get_by_role("button", name="Change the look").click()
    page.wait_for_function(f"{COLOUR} === '{DARK}'")


def test_settings_work_without_a_script(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(java_script_enabled=False)
    page.goto(f"{live.url}/settings")
    page.get_by_label("Take the last answer back").fill("s")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("s already stands for: Take the last answer back.")).to_be_visible()
    page.get_by_label("Skip", exact=True).fill("u")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
