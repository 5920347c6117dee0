"""Every crowdworker page in every language, on a phone and wide: nothing is wider than the page, no button cuts its words off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from playwright.sync_api import Page

from server.language import COOKIE, LANGUAGES
from tests.browser import every_page
from tests.browser.conftest import Live

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Open = Callable[..., Page]
# What sticks out, outside of boxes that scroll by themselves; and controls whose text is larger than they are.
STICKS_OUT = """() => {
  const wide = document.documentElement.clientWidth;
  const name = (each) => `${each.tagName.toLowerCase()}.${[...each.classList].join(".")} "${each.textContent.trim().slice(0, 40)}"`;
  const scrolls = (each) => { for (let up = each.parentElement; up && up !== document.body; up = up.parentElement) {
    if (/auto|scroll|hidden|clip/.test(getComputedStyle(up).overflowX)) return true; } return false; };
  const found = [];
  if (document.documentElement.scrollWidth > wide) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const each of document.body.querySelectorAll("*")) {
    const box = each.getBoundingClientRect();
    if (!each.checkVisibility() || !box.width || each.closest(".visually-hidden, .skip, svg, dialog:not([open])")) continue;
    if ((box.right > wide + 1 || box.left < -1) && !scrolls(each)) found.push(`${name(each)} ends at ${Math.round(box.right)}`);
    if (!each.textContent.trim() || !each.matches("button, .button, summary, .badge, th, kbd, label.step")) continue;
    const range = document.createRange();
    range.selectNodeContents(each);
    const text = range.getBoundingClientRect();
    if (text.right > box.right + 1 || text.left < box.left - 1 || text.bottom > box.bottom + 1 || text.top < box.top - 1)
      found.push(`${name(each)} is larger than its box`);
  }
  return found;
}"""


WIDTHS = (320, 360, 1280)  # 320 is a wide page at 400 %
IS_PAGE: dict[str, bool] = {}  # found out once: files and parts of pages are in no language
EVERY_WIDTH = ("en", "de", "ar")  # the others where there is least room
OTHERS = [code for code in LANGUAGES if code not in EVERY_WIDTH]


def found_on(page: Page, widths: tuple[int, ...] = WIDTHS) -> list[str]:
    """In these widths, with everything unfolded."""
    found = []
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        found += [f"{width}: {each}" for each in page.evaluate(STICKS_OUT)]
    return found


def visit_all(live: Live, world: every_page.World, page: Page, role: str, code: str) -> list[str]:
    page.context.add_cookies([{"name": COOKIE, "value": code, "url": live.url}])
    found: list[str] = []
    for address in [*every_page.visits(world, role), "/no-such-page"]:
        if address not in IS_PAGE:
            answer = page.request.get(live.url + address, headers={"Accept": "text/html"})
            IS_PAGE[address] = "<html" in answer.text()
        if not IS_PAGE[address]:
            continue
        page.goto(live.url + address)
        assert page.evaluate("document.documentElement.lang") == code, address
        widths = WIDTHS if code in EVERY_WIDTH else WIDTHS[:1]
        found += [f"{code} {address} {each}" for each in found_on(page, widths)]
    return found


def test_what_sticks_out_is_found(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page()
    assert found_on(page) == []
    page.evaluate("""() => {
      const wide = document.createElement("pre");
      wide.style.width = "2000px";
      document.querySelector("main").append(wide);
    }""")
    assert any("the page is" in each for each in found_on(page))
    page.evaluate("document.querySelector('main pre').remove()")
    page.evaluate("Object.assign(document.querySelector('.button').style, {height: '3px', minHeight: 0, padding: 0})")
    assert any("larger than its box" in each for each in found_on(page))


@pytest.mark.parametrize("codes", [EVERY_WIDTH, OTHERS[::2], OTHERS[1::2]], ids=" ".join)
def test_no_page_of_a_crowdworker_sticks_out(live: Live, signed_in_page: Open, codes: Sequence[str]) -> None:
    world = every_page.build(live.settings)
    page, found = signed_in_page(), []
    for code in codes:
        found += visit_all(live, world, page, "crowdworker", code)
    page.context.clear_cookies()
    for code in codes:
        found += visit_all(live, world, page, "nobody", code)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("role", ["researcher", "admin"])
def test_no_page_of_researchers_and_admins_sticks_out(live: Live, signed_in_page: Open, role: str) -> None:
    world = every_page.build(live.settings)
    found = visit_all(live, world, signed_in_page("Rosa", (role,)), role, "en")
    assert not found, "\n".join(found)
