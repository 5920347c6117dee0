"""Two people in two real browsers and forty simulated ones on one campaign with overlap 3, while web and workers are killed.

Real processes as `whetstone up` starts them: web, reply worker, beat. Each person has one conversation of one turn and gives
second opinions on the others' turns, until every turn has three answers of three people: not one more, not one less.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect

from server.models import Campaign, Comparison, Conversation, Draft, Lease, Person, Turn
from server.services import simulated
from server.services.campaigns import campaigns
from server.services.people import people
from server.services.snapshots import deployments, registry
from server.settings import Settings
from server.supervisor import Supervisor, children
from server.transaction import transaction
from simulation.browser import Browser, Refused
from tests.browser.conftest import free_port

SIMULATED, SEEN, OVERLAP = 40, 2, 3
TURNS = SIMULATED + SEEN
KILLS = ((6, "web"), (10, "reply"), (16, "web"), (24, "reply"), (30, "web"))  # seconds after the crowd began
LONGEST = 400.0


@dataclass
class Keeper:
    """Starts the processes in a thread of its own (they die with it), keeps them alive, and kills them when told."""

    settings: Settings
    said: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    to_kill: list[str] = field(default_factory=list)

    def run(self) -> None:
        wanted = [child for child in children(self.settings) if child.name in ("web", "reply", "beat")]
        supervisor = Supervisor(wanted, self.settings.home, self.said.append)
        supervisor.start()
        while not self.over.wait(0.1):
            while self.to_kill:
                running = supervisor.running()
                name = self.to_kill.pop()
                if name in running:
                    os.killpg(running[name], signal.SIGKILL)
            supervisor.watch()
        supervisor.stop()


@pytest.fixture
def installation(settings: Settings, committed: str, redis: object, tmp_path: Path) -> Iterator[Keeper]:
    """A campaign that the starter model serves, and the processes."""
    port = free_port()
    own = replace(settings, port=port, public_url=f"http://127.0.0.1:{port}", home=tmp_path, demo=True)
    with transaction(str(own.database_url), str(own.redis_url)) as db:
        campaign = campaigns.create_campaign(
            db, slug="hands", name="Many hands", mode="helpful", instructions="Pick the better reply.", overlap=OVERLAP,
            max_turns=1, max_new_tokens=12, prepared=0, lease_minutes=5,
        )  # fmt: skip
        deployments.deploy(db, campaign, [(registry.starter_snapshot(db), 1.0)], reason="test")
    keeper = Keeper(own)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    yield keeper
    keeper.over.set()
    thread.join(timeout=30)


def simulate(
    keeper: Keeper, session: Any, number: int, campaign_id: int, done: threading.Event, problems: list[BaseException]
) -> None:
    """One simulated person: an own conversation, something typed and not sent, and second opinions until all is done."""
    try:
        with Browser(keeper.settings.public_url, patience=LONGEST) as browser:
            browser.use(session)
            turn = browser.send_message("hands", f"Question {number}: what can I plant in a shady garden?")
            ready = browser.wait_for_replies(turn["id"])
            assert ready["status"] == "ready", ready
            browser.compare(turn["id"], 1 + number % 8, 4000)
            browser.request("PUT", f"/api/drafts/message:{campaign_id}", {"text": f"Thought {number}"})
            while not done.is_set():
                second = browser.request("GET", "/api/campaigns/hands/conversation")["second_opinion"]
                if second is None:
                    time.sleep(0.5)
                    continue
                try:
                    browser.compare(second["turn"]["id"], 1 + (number + second["turn"]["id"]) % 8, 3000)
                except Refused as refused:
                    # The first answer was stored and its reply was lost with the web server: then this one is the second.
                    if refused.status != 409:
                        raise
    except BaseException as error:  # recorded: a thread cannot fail a test
        problems.append(error)


def counted(keeper: Keeper) -> Counter[int]:
    """How many turns have how many answers."""
    with transaction(str(keeper.settings.database_url), str(keeper.settings.redis_url)) as db:
        answers = Counter(turn_id for (turn_id,) in db.query(Comparison.turn_id))
        return Counter(answers[turn_id] for (turn_id,) in db.query(Turn.id))


def open_page(chromium: Chromium, keeper: Keeper, name: str) -> Page:
    with transaction(str(keeper.settings.database_url), str(keeper.settings.redis_url)) as db:
        token = people.make_sign_in_link(db, keeper.settings, people.create_person(db, name, ["crowdworker"]))
    page = chromium.new_context().new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=90_000)
    patient_goto(page, f"{keeper.settings.public_url}/sign-in/{token}")
    page.wait_for_url(f"{keeper.settings.public_url}/")
    patient_goto(page, f"{keeper.settings.public_url}/chat/hands")
    return page


def patient_goto(page: Page, url: str) -> None:
    """As somebody who presses reload while the server is away."""
    deadline = time.monotonic() + 90
    while True:
        try:
            answer = page.goto(url)
            if answer is not None and answer.status < 500:
                return
        except Exception:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forty_two_people_and_three_answers_each(chromium: Chromium, installation: Keeper) -> None:
    keeper = installation
    with transaction(str(keeper.settings.database_url), str(keeper.settings.redis_url)) as db:
        sessions = simulated.crowd_sessions(db, SIMULATED)
        campaign_id = db.query(Campaign).one().id
    pages = [open_page(chromium, keeper, name) for name in ("Alice", "Bob")]
    # Typed before anything is killed, and never sent by hand: it must be there at the end of it all.
    pages[0].get_by_label("Your message").fill("How do I boil an egg for nine minutes?")
    expect(pages[0].get_by_text("Draft kept.")).to_be_visible()
    done, problems = threading.Event(), []
    crowd = [
        threading.Thread(target=simulate, args=(keeper, session, number, campaign_id, done, problems))
        for number, session in enumerate(sessions)
    ]
    begun = time.monotonic()
    for thread in crowd:
        thread.start()
    kills = list(KILLS)
    try:
        while kills:
            after, name = kills.pop(0)
            time.sleep(max(0.0, begun + after - time.monotonic()))
            keeper.to_kill.append(name)
        patient_goto(pages[0], f"{keeper.settings.public_url}/chat/hands")
        expect(pages[0].get_by_label("Your message")).to_have_value("How do I boil an egg for nine minutes?")
        pages[1].get_by_label("Your message").fill("What shall I cook tonight?")
        for page in pages:
            page.get_by_role("button", name="Send", exact=True).click()
        for page in pages:
            expect(page.get_by_role("button", name="Send choice")).to_be_enabled()
            page.keyboard.press("2")
            page.keyboard.press("Enter")
        deadline = begun + LONGEST
        while counted(keeper) != {OVERLAP: TURNS} and not problems and time.monotonic() < deadline:
            for page in pages:  # they give second opinions too, whenever there is one
                # a page that has just gone on to its message box would send the 7 as a message
                asked = page.get_by_text("A second opinion, please.").count()
                if asked and page.evaluate("document.activeElement.tagName") != "TEXTAREA":
                    page.keyboard.press("7")
                    page.keyboard.press("Enter")
                    page.wait_for_timeout(300)
                else:
                    page.wait_for_timeout(500)
                    patient_goto(page, f"{keeper.settings.public_url}/chat/hands")
    finally:
        done.set()
        for thread in crowd:
            thread.join(timeout=60)
    assert problems == [], keeper.said
    assert counted(keeper) == {OVERLAP: TURNS}
    deaths = Counter(line.split()[0] for line in keeper.said)
    assert deaths["web"] >= 3
    assert deaths["reply"] >= 2
    with transaction(str(keeper.settings.database_url), str(keeper.settings.redis_url)) as db:
        by_turn: dict[int, list[int]] = {}
        for turn_id, person_id in db.query(Comparison.turn_id, Comparison.person_id).order_by(Comparison.id):
            by_turn.setdefault(turn_id, []).append(person_id)
        assert all(len(set(who)) == OVERLAP for who in by_turn.values())  # nobody twice
        own = dict(db.query(Turn.id, Conversation.person_id).join(Conversation).all())
        assert all(who[0] == own[turn_id] for turn_id, who in by_turn.items())  # the own choice first, then others'
        assert db.query(Turn).filter(Turn.queue_id.is_not(None)).count() == 0
        assert db.query(Lease).filter(Lease.turn_id.is_not(None), Lease.released_at.is_(None)).count() == 0
        by_people = db.query(Draft.text).join(Person, Person.id == Draft.person_id).filter(Person.simulated)
        assert sorted(text for (text,) in by_people) == sorted(f"Thought {number}" for number in range(SIMULATED))
        seen = db.query(Comparison).join(Person, Person.id == Comparison.person_id).filter(~Person.simulated).count()
        assert seen >= SEEN
