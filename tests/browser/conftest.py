"""A real server on a committed database, a stand-in for the reply worker, and a headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from redis import Redis

from server.app import create_app
from server.models import Campaign, Prompt
from server.services.people import people
from server.settings import Settings
from server.transaction import transaction
from tests import factories
from tests.browser.reply_writer import ReplyWriter

# The shell first: the same engine without the window around it, which takes a third of the processor time of a test.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine; skipped where there is none, an error in CI.

    Not for the whole session: while playwright runs, its event loop keeps `asyncio.run` from every other test.
    """
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        sentence = (
            "No Chromium found; the browser tests were not run. Install one, for example: apt-get install chromium"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Live:
    """A running server: its address, and how to make a person who can sign in."""

    url: str
    settings: Settings
    server: uvicorn.Server

    def link_for(self, name: str, *roles: str) -> str:
        """The address of a fresh one-click link."""
        assert self.settings.database_url is not None
        assert self.settings.redis_url is not None
        with transaction(self.settings.database_url, self.settings.redis_url) as db:
            person = people.create_person(db, name, list(roles) or ["crowdworker"])
            return f"{self.url}/sign-in/{people.make_sign_in_link(db, self.settings, person)}"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def seed(settings: Settings) -> None:
    """Two campaigns with a pool of prompts."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    with transaction(settings.database_url, settings.redis_url) as db:
        helpful = factories.campaign(
            db, slug="helpful", name="Helpful assistant", max_turns=2, instructions="Prefer the *honest* reply."
        )
        factories.campaign(db, slug="red-team", name="Red team", mode="red_team", continuation="less_harmful")
        for text in ("How do I boil an egg?", "What can I plant in a shady garden?", "Explain tides to a child."):
            db.add(Prompt(campaign_id=helpful.id, text=text))
        assert db.get(Campaign, helpful.id) is not None


@pytest.fixture
def live(settings: Settings, committed: str, redis: Redis) -> Iterator[Live]:
    """The application in a thread of its own, on committed rows."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = replace(settings, public_url=url, port=port, demo=True)
    seed(own)
    config = uvicorn.Config(
        create_app(own), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield Live(url, own, server)
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture
def replies(live: Live) -> Iterator[ReplyWriter]:
    """Replies as if a worker wrote them."""
    assert live.settings.database_url is not None
    assert live.settings.redis_url is not None
    writer = ReplyWriter(live.settings.database_url, live.settings.redis_url)
    writer.start()
    yield writer
    writer.stop()


@pytest.fixture
def signed_in_page(chromium: Browser, live: Live, replies: ReplyWriter) -> Iterator[Callable[..., Page]]:
    """Open a page as a new person; any script error or broken rule of the content policy fails the test."""
    contexts = []
    problems: list[str] = []

    def open_page(name: str = "Alice", roles: tuple[str, ...] = ("crowdworker",), **options: object) -> Page:
        context = chromium.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
        page.goto(live.link_for(name, *roles))
        if options.get("java_script_enabled") is False:
            page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{live.url}/")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:  # closing one in the middle of a navigation has hung for ever
            with suppress(PlaywrightError):
                page.goto("about:blank", timeout=5_000)
        context.close()
    assert problems == []
