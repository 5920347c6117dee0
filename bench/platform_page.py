"""A page in Chromium with an empty cache: requests, bytes over the wire, and the time until somebody could choose."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, sync_playwright

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
SETTLE_MS = 500  # what a page asks for after it is ready counts as well


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine; exits with what to do where there is none."""
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        sys.exit("no Chromium was found: run `sh scripts/chromium.sh`, or leave pages out with --no-pages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def cookies_of(header: str, url: str) -> list[Any]:
    """A Cookie header as Playwright wants it."""
    pairs = (each.partition("=") for each in header.split("; "))
    return [{"name": name, "value": value, "url": url} for name, _, value in pairs]


def cold_visit(browser: Browser, url: str, path: str, cookie: str, ready: str) -> dict[str, Any]:
    """One visit by a browser that has never been there; ready is when all has loaded and the element `ready` can be seen."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_cookies(cookies_of(cookie, url))
    page = context.new_page()
    page.set_default_timeout(60_000)
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    kinds: dict[str, str] = {}
    bytes_by_kind: dict[str, int] = {}

    def asked(event: Mapping[str, Any]) -> None:
        kinds[event["requestId"]] = event.get("type", "Other")

    def came(event: Mapping[str, Any]) -> None:
        kind = kinds.get(event["requestId"], "Other")
        bytes_by_kind[kind] = bytes_by_kind.get(kind, 0) + int(event["encodedDataLength"])

    network.on("Network.requestWillBeSent", asked)
    network.on("Network.loadingFinished", came)
    began = time.perf_counter()
    page.goto(url + path, wait_until="load")
    page.locator(ready).first.wait_for(state="visible")
    seconds = time.perf_counter() - began
    page.wait_for_timeout(SETTLE_MS)
    context.close()
    return {
        "ready_s": seconds, "kb": sum(bytes_by_kind.values()) / 1000, "requests": len(kinds),
        "kb_by_kind": {kind: round(count / 1000, 1) for kind, count in sorted(bytes_by_kind.items())},
    }  # fmt: skip


def middle(visits: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of visits to one page."""
    return visits[-1] | {
        name: statistics.median(visit[name] for visit in visits) for name in ("ready_s", "kb", "requests")
    }
