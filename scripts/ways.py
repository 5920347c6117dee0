"""Record every way of giving feedback as pictures: desktop and phone, light and dark, left to right and right to left.

    WHETSTONE_HOME=/tmp/ways whetstone up --demo         # in another terminal
    WHETSTONE_HOME=/tmp/ways .venv/bin/python scripts/ways.py --out docs/pictures/ways

Makes a campaign of each way with some items on that installation; better not on one that people use. Needs a Chromium and the
packages of requirements/test.txt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import select
from sqlalchemy.orm import Session

from scripts.pictures import ARGUMENTS, CHROMIUMS, DESKTOP
from server.cli.connection import connected
from server.edge import SESSION_COOKIE
from server.models import Campaign
from server.services.campaigns import campaigns
from server.services.door import members
from server.services.items import items
from server.services.items.items import item_of
from server.services.people import people
from server.services.simulated import open_session
from server.services.snapshots import deployments
from server.transaction import transaction

PHONE = {"width": 360, "height": 740}
QUESTIONS = ("How do I boil an egg?", "Why is the sea salty?", "What can I plant in a shady garden?")
REPLIES = (
    "Lower the egg into boiling water and give it **nine minutes** for a firm yolk, six for a soft one. Then cool it under cold water.",
    "Eggs are boiled in water.",
    "I would rather not talk about eggs.",
    "Put it into the microwave for ten minutes, shell and all.",
)


@dataclass(frozen=True)
class Look:
    """How a person's browser is set."""

    name: str
    phone: bool = False
    dark: bool = False
    language: str = "en"


LOOKS = (
    Look("desktop"), Look("dark", dark=True), Look("phone", phone=True), Look("phone-dark", phone=True, dark=True),
    Look("arabic", language="ar"), Look("phone-arabic", phone=True, language="ar"),
)  # fmt: skip


def made(db: Session, slug: str, name: str, **settings: Any) -> Campaign:
    """A campaign of one way, with prompts and items; the one that is there is used again."""
    found = db.scalar(select(Campaign).where(Campaign.slug == slug))
    if found is not None:
        return found
    mode = settings.pop("mode", "helpful")
    told = "Prefer what is **helpful** and **honest**. If you cannot tell, skip it."
    campaign = campaigns.create_campaign(db, slug=slug, name=name, mode=mode, instructions=told, **settings)
    starter = db.scalar(select(Campaign).where(Campaign.slug == "helpful"))
    assert starter is not None, "start `whetstone up --demo` first"
    serving = deployments.current(db, starter)
    assert serving is not None
    deployments.deploy(db, campaign, [(part.snapshot, part.share) for part in serving.shares], reason="A walk.")
    texts: dict[str, dict[str, Any]] = {
        "pairs": {"a": REPLIES[0], "b": REPLIES[1]}, "ranking": {"replies": list(REPLIES)}, "demonstration": {},
    }  # fmt: skip
    if campaign.way in texts:
        items.add_items(db, campaign, [item_of({"prompt": question, **texts[campaign.way]}) for question in QUESTIONS])
    return campaign


def make(db: Session) -> None:
    """One campaign of each way."""
    many = {"overlap": 20, "prepared": 0}
    made(db, "walk-chat", "Everyday help", ties="yes", both_bad="yes", edits="optional")
    made(db, "walk-pairs", "Given texts", way="pairs", ties="yes", both_bad="yes", **many)
    made(db, "walk-ranking", "Ranking", way="ranking", rated="yes", **many)
    made(db, "walk-demonstration", "Demonstrations", way="demonstration", **many)
    made(db, "walk-prompts", "Prompts", way="prompts")
    guarded = made(
        db, "walk-red-team", "Red team", mode="red_team", blurred="yes", asks_success="yes", daily_limit="50",
        consent="What you read here **can be upsetting**. You may stop at any time, and you are paid for your time all the same.",
    )  # fmt: skip
    if guarded.pass_mark is None:
        for question in ("Which reply do you pick here?", "What if you want to stop?"):
            members.add_question(db, None, guarded, question, "* The more harmful one\nThe better one\nThe longer one")
        campaigns.update_campaign(db, guarded, None, pass_mark="1")


class Walker:
    """A person with a browser set in one way."""

    def __init__(self, browser: Browser, base_url: str, out: Path, look: Look, cookie: str) -> None:
        self.out, self.look = out, look
        context = browser.new_context(
            base_url=base_url,
            viewport=PHONE if look.phone else DESKTOP,  # type: ignore[arg-type]
            color_scheme="dark" if look.dark else "light",
            locale={"ar": "ar-EG"}.get(look.language, "en-GB"),
        )
        context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": base_url}])
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)

    def take(self, name: str) -> None:
        """One picture; nothing may stick out of the page."""
        self.page.wait_for_timeout(400)
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} sticks out"
        path = self.out / f"{name}-{self.look.name}.jpg"
        self.page.screenshot(path=path, type="jpeg", quality=55, full_page=True)
        print(path.name)


def chat(walker: Walker) -> None:
    page = walker.page
    page.goto("/chat/walk-chat")
    walker.take("chat-1-opening")
    page.locator("#message").fill("How far apart should I plant tomatoes?")
    page.locator(".composer button").click()
    page.wait_for_selector("fieldset.scale:not([disabled])")
    page.keyboard.press("2")
    walker.take("chat-2-comparison")
    page.keyboard.press("Enter")
    page.wait_for_selector("form.edit")
    walker.take("chat-3-edit")


def pairs(walker: Walker) -> None:
    page = walker.page
    page.goto("/chat/walk-pairs")
    page.wait_for_selector("fieldset.scale:not([disabled])")
    page.keyboard.press("0")
    walker.take("pairs")


def ranking(walker: Walker) -> None:
    page = walker.page
    page.goto("/chat/walk-ranking")
    page.wait_for_selector("form.ranking")
    walker.take("ranking-1-rating")
    for key in "6521":
        page.keyboard.press(key)
        page.keyboard.press("Enter")
    for key in ("a", "1", "b", "2", "c", "2"):
        page.keyboard.press(key)
    walker.take("ranking-2-order")


def demonstration(walker: Walker) -> None:
    page = walker.page
    page.goto("/chat/walk-demonstration")
    page.locator("#written").fill("Nine minutes in boiling water, then cold water so that it peels.")
    walker.take("demonstration")


def prompts(walker: Walker) -> None:
    page = walker.page
    page.goto("/chat/walk-prompts")
    page.locator("#written").fill(f"Explain tides to a child, as seen by {walker.look.name}.")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".own-prompts")
    walker.take("prompts")


def red_team(walker: Walker) -> None:
    page = walker.page
    page.goto("/chat/walk-red-team")
    walker.take("red-team-1-consent")
    page.locator("button[value=yes]").click()
    page.wait_for_selector(".question")
    walker.take("red-team-2-test")
    for question in page.locator(".question").all():
        question.locator("input[value='0']").check()
    page.locator("form[action$='/test'] button").click()
    page.locator("#message").fill("Say something rude about my neighbour.")
    page.locator(".composer button").click()
    page.wait_for_selector("fieldset.scale:not([disabled])")
    walker.take("red-team-3-behind-a-veil")


def own_page(walker: Walker) -> None:
    walker.page.goto("/me")
    walker.take("me")
    walker.page.goto("/settings")
    walker.take("settings")


WAYS: tuple[Callable[[Walker], None], ...] = (chat, pairs, ranking, demonstration, prompts, red_team, own_page)


def main() -> None:
    """Walk through every way, set in every look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/ways"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        raise SystemExit("No Chromium found; install one, for example: apt-get install chromium")
    with connected() as settings:
        database_url, redis_url = str(settings.database_url), str(settings.redis_url)
        with transaction(database_url, redis_url) as db:
            make(db)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            for look in LOOKS:
                with transaction(database_url, redis_url) as db:
                    person = people.create_person(db, name=f"Walker {look.name}", roles=["crowdworker"])
                    cookie = open_session(db, person)["cookie"]
                base_url = f"http://{settings.host}:{os.environ.get('PORT', settings.port)}"
                walker = Walker(browser, base_url, given.out, look, cookie)
                for way in WAYS:
                    way(walker)
                walker.page.context.close()


if __name__ == "__main__":
    main()
