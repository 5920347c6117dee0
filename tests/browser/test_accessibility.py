"""axe-core over every page, light and dark, wide and on a phone: no violation of a rule of WCAG 2.2, levels A and AA.

axe finds what a program can find; docs/accessibility.md says what was looked at by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from tests.browser import every_page
from tests.browser.conftest import Live
from tests.browser.test_verdicts import change

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]},
    "rules": {"target-size": {"enabled": True}},  # of WCAG 2.2; axe leaves it off unless asked
    "resultTypes": ["violations"],
}
# Colours do not depend on the width, nor sizes on the colours: each once is enough.
# Where whoever looks has no place, and a page says so: no leaderboard, no panel's link, no provider and no mail set up.
NOT_THERE = ("/me/leaderboard/", "/panel/", "/sign-in/")
LOOKS = ((1280, "light"), (360, "dark"))


def violations(page: Page) -> Iterator[str]:
    """What axe finds on the page as it stands, wide and light, then narrow and dark."""
    address = page.url.partition("//")[2].partition("/")[2]
    page.evaluate(AXE_SCRIPT)
    for width, look in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=look, reduced_motion="reduce")
        for found in page.evaluate("rules => axe.run(rules).then(found => found.violations)", RULES):
            for node in found["nodes"]:
                why = " ".join(node["failureSummary"].split())
                yield f"/{address} {look} {width}: {found['id']} {node['target']} {why}"


@pytest.fixture
def world(live: Live) -> every_page.World:
    return every_page.build(live.settings)


@pytest.fixture
def open_as(live: Live, chromium, signed_in_page: Open) -> Callable[[str], Page]:
    """A page of a person with one role, or of nobody."""

    def open_page(role: str) -> Page:
        page = signed_in_page(role.capitalize(), ("crowdworker",) if role == "nobody" else (role,))
        if role == "nobody":
            page.context.clear_cookies()
        return page

    return open_page


def test_every_route_has_an_address(world: every_page.World) -> None:
    """A new kind of object in an address fails here until the world of these tests has one."""
    for path, _role in every_page.page_routes():
        assert list(world.addresses(path))


@pytest.mark.slow
@pytest.mark.parametrize("role", every_page.ROLES)
def test_no_page_violates_wcag(live: Live, world: every_page.World, open_as: Callable[[str], Page], role: str) -> None:
    page = open_as(role)
    found: list[str] = []
    looked_at = 0
    for address in every_page.visits(world, role):
        answer = page.request.get(live.url + address)
        if "<html" not in answer.text():  # a part of a page, a file, or JSON
            continue
        assert answer.status == 200 or address.startswith(NOT_THERE), (address, answer.status)
        page.goto(live.url + address)
        looked_at += 1
        found += violations(page)
    assert not found, "\n".join(found)
    assert looked_at >= 2


def test_no_state_of_a_comparison_violates_wcag(live: Live, open_as: Callable[[str], Page]) -> None:
    every_page.build(live.settings)
    page = open_as("crowdworker")
    change(live, ties=True, both_bad=True)
    page.goto(f"{live.url}/chat/helpful")
    page.get_by_label("Your message").fill("Please fail")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    found = list(violations(page))
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    page.keyboard.press("7")
    page.get_by_text("Say why (optional)").click()
    page.locator("summary", has_text="Report a problem").click()
    found += violations(page)
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("?")
    found += violations(page)
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Send choice").click()
    expect(page.locator(".said-by-model")).to_have_count(1)
    found += violations(page)
    assert not found, "\n".join(found)


def test_no_error_and_no_refused_form_violates_wcag(
    live: Live, world: every_page.World, open_as: Callable[[str], Page]
) -> None:
    page = open_as("nobody")
    found: list[str] = []
    for address in ("/settings", "/nothing", "/chat/helpful"):
        page.goto(live.url + address)
        found += violations(page)
    page.goto(f"{live.url}/sign-in")
    page.get_by_label("E-mail address").fill("nobody@example.org")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    expect(page.locator(".notice.bad")).to_be_visible()
    found += violations(page)
    page = open_as("crowdworker")
    page.goto(f"{live.url}/settings")
    page.get_by_label("Skip", exact=True).fill("u")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("[aria-invalid]")).to_be_visible()
    found += violations(page)
    page.goto(f"{live.url}/admin/people")  # not for this role
    found += violations(page)
    assert not found, "\n".join(found)
