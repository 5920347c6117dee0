"""A slow connection, the weight of pages, and that no page asks anybody but us for anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from server.models import Comparison
from tests.browser import every_page
from tests.browser.conftest import Live
from tests.browser.test_verdicts import rows

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
# A slow 3G connection: 400 kbit/s both ways, 400 ms there and back.
BYTES_PER_SECOND, LATENCY_MS = 400_000 / 8, 400
USABLE_SECONDS = 5
SENT_SECONDS = 3
MOST_BYTES = 100_000
expect.set_options(timeout=20_000)


def slow_down(page: Page) -> None:
    """From now on this page has a slow connection and an empty cache."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    rates = {"downloadThroughput": BYTES_PER_SECOND, "uploadThroughput": BYTES_PER_SECOND}
    devtools.send("Network.emulateNetworkConditions", {"offline": False, "latency": LATENCY_MS, **rates})


def test_the_chat_is_usable_on_a_slow_connection(live: Live, signed_in_page: Open) -> None:
    page = signed_in_page(viewport={"width": 360, "height": 740})
    page.goto(f"{live.url}/chat/helpful")
    page.get_by_label("Your message").fill("How do I boil an egg?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    slow_down(page)
    began = time.monotonic()
    page.reload(wait_until="commit")
    page.locator("#chat[data-live]").wait_for()
    expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
    usable = time.monotonic() - began
    page.keyboard.press("8")
    began = time.monotonic()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your message")).to_be_visible()
    sent = time.monotonic() - began
    assert [row.scale_position for row in rows(live, Comparison)] == [8]
    assert usable < USABLE_SECONDS, usable
    assert sent < SENT_SECONDS, sent


def test_pages_of_crowdworkers_are_light(live: Live, signed_in_page: Open) -> None:
    """With everything that they load, in the language with the largest table of sentences for the scripts."""
    world = every_page.build(live.settings)
    page = signed_in_page()
    page.context.add_cookies([{"name": "whetstone_language", "value": "hi", "url": live.url}])
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    loaded: list[float] = []
    devtools.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
    heavy = {}
    for address in every_page.visits(world, "crowdworker"):
        if "<html" not in page.request.get(live.url + address, headers={"Accept": "text/html"}).text():
            continue
        loaded.clear()
        page.goto(live.url + address, wait_until="load")
        page.wait_for_timeout(100)
        heavy[address] = round(sum(loaded))
    assert len(heavy) > 8
    assert all(size > 5000 for size in heavy.values()), heavy  # they were counted
    assert {address: size for address, size in heavy.items() if size > MOST_BYTES} == {}


@pytest.mark.slow
@pytest.mark.parametrize("role", every_page.ROLES)
def test_no_page_asks_anybody_else(live: Live, signed_in_page: Open, role: str) -> None:
    world = every_page.build(live.settings)
    page = signed_in_page(role.capitalize(), ("crowdworker",) if role == "nobody" else (role,))
    if role == "nobody":
        page.context.clear_cookies()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    for address in [*every_page.visits(world, role), "/no-such-page"]:
        if "<html" in page.request.get(live.url + address, headers={"Accept": "text/html"}).text():
            page.goto(live.url + address)
    ours = urlsplit(live.url).netloc
    assert len(asked) > 4
    assert {url for url in asked if urlsplit(url).scheme != "data" and urlsplit(url).netloc != ours} == set()
