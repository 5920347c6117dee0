"""Record a session on a running Whetstone as screenshots: chat, comparison, a round in progress, the deployed policy answering.

    whetstone up --demo                                  # in another terminal
    .venv/bin/python scripts/pictures.py --out docs/pictures [--round]

With --round a round is started (and there must be enough comparisons, see `whetstone simulate`), watched to its end, and the chat is
visited again. Needs a Chromium and the packages of requirements/test.txt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright

from server.cli.connection import connected
from server.edge import SESSION_COOKIE
from server.services.people import people
from server.services.simulated import open_session
from server.transaction import transaction

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
# The same arguments as the browser tests: as root there is no sandbox, and nothing may call out.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")


class Walk:
    """One browser and where its pictures go."""

    def __init__(self, browser: Browser, base_url: str, out: Path) -> None:
        self.browser = browser
        self.base_url = base_url
        self.out = out

    def page_for(self, cookie: str, *, phone: bool = False, dark: bool = False) -> Page:
        """A page of a signed-in person."""
        context = self.browser.new_context(
            base_url=self.base_url,
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            device_scale_factor=2 if phone else 1,
        )
        context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": self.base_url}])
        return context.new_page()

    def take(self, page: Page, name: str) -> None:
        """One picture."""
        page.screenshot(path=self.out / f"{name}.png")
        print(name)


def chat(walk: Walk, cookie: str, name: str, *, phone: bool = False, dark: bool = False) -> None:
    """A message, two replies, a choice by key, the next turn."""
    page = walk.page_for(cookie, phone=phone, dark=dark)
    page.goto("/chat/helpful")
    if page.get_by_role("button", name="New conversation").count():
        page.get_by_role("button", name="New conversation").click()
        page.wait_for_selector("textarea#message")
    walk.take(page, f"{name}-1-opening")
    page.fill("textarea#message", "How far apart should I plant tomatoes? It is for my family.")
    page.press("textarea#message", "Enter")
    page.wait_for_selector(".candidate")
    walk.take(page, f"{name}-2-writing")
    page.wait_for_selector("fieldset.scale:not([disabled])", timeout=60_000)
    page.wait_for_timeout(300)
    page.keyboard.press("2")
    walk.take(page, name)
    page.keyboard.press("Enter")
    page.wait_for_selector("textarea#message", timeout=20_000)
    page.wait_for_timeout(400)
    walk.take(page, f"{name}-4-next-turn")
    page.context.close()


def rounds(walk: Walk, cookie: str, minutes: float) -> None:
    """Start a round by the button and follow it."""
    page = walk.page_for(cookie)
    page.goto("/rounds")
    walk.take(page, "rounds-1-before")
    page.get_by_role("button", name="Start a round now").click()
    page.wait_for_url("**/rounds/*")
    deadline, pictures = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < deadline:
        page.wait_for_timeout(5_000)
        text = page.inner_text("main")
        if pictures < 1 and "kl" in text.lower() and page.locator("svg polyline").count() >= 3:
            walk.take(page, "rounds-2-in-progress")
            pictures += 1
        if page.get_by_text("done", exact=True).count() >= 7:
            break
    page.reload()
    page.wait_for_timeout(500)
    page.screenshot(path=walk.out / "round.png", full_page=True)
    print("round")
    page.goto("/snapshots")
    walk.take(page, "snapshots")
    page.context.close()


def admin(walk: Walk, cookie: str) -> None:
    """The pages of an admin."""
    page = walk.page_for(cookie)
    for path, name in (
        ("/", "admin-home"),
        ("/admin/data", "admin-data"),
        ("/admin/conversations", "admin-conversations"),
        ("/admin/people", "admin-people"),
        ("/admin/campaigns", "admin-campaigns"),
        ("/admin/jobs", "admin-jobs"),
    ):
        page.goto(path)
        walk.take(page, name)
    page.goto("/admin/conversations")
    page.locator("a[href^='/admin/conversations/']").first.click()
    page.wait_for_load_state()
    walk.take(page, "admin-conversation")
    page.context.close()


def main() -> None:
    """Take the walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--round", action="store_true")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long a round may take")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        raise SystemExit("No Chromium found; install one, for example: apt-get install chromium")
    with connected() as settings:
        assert settings.database_url is not None
        assert settings.redis_url is not None
        with transaction(settings.database_url, settings.redis_url) as db:
            cookies = {
                role: open_session(db, people.create_person(db, name=name, roles=[role]))["cookie"]
                for role, name in (("crowdworker", "Walker"), ("researcher", "Rosa"), ("admin", "Ada"))
            }
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            walk = Walk(browser, f"http://{settings.host}:{os.environ.get('PORT', settings.port)}", given.out)
            chat(walk, cookies["crowdworker"], "chat")
            chat(walk, cookies["crowdworker"], "chat-phone", phone=True)
            chat(walk, cookies["crowdworker"], "chat-dark", dark=True)
            if given.round:
                rounds(walk, cookies["researcher"], given.minutes)
                chat(walk, cookies["crowdworker"], "chat-after-round")
            admin(walk, cookies["admin"])
            browser.close()


if __name__ == "__main__":
    main()
