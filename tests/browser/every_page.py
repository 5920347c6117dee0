"""A world with something on every page, and the addresses of all pages in it, found from the routes.

A new page is visited without being entered anywhere, by the least of the roles that may see it; one whose address names an
object of a new kind fails until `world` holds one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from server.models import Campaign, CheckResult, Job, Person, Prompt, Report, Schedule
from server.routes import ROUTERS
from server.services import notices
from server.services.campaigns.campaign_settings import FLAGS
from server.services.data import datasets
from server.services.data.dataset_selection import DatasetSelection
from server.services.door import members
from server.services.panels import panels
from server.services.pay import appeals, ledger, payrolls
from server.services.people import invitations
from server.services.rounds import rounds, runs
from server.services.snapshots import best_of
from server.services.working import work_time
from server.settings import Settings
from server.transaction import transaction
from tests import factories
from tests.server.test_round_pages import GATE
from tests.server.test_route_roles import EVERYBODY, allowed

ROLES = ("nobody", "crowdworker", "researcher", "admin")
CODE = "```python\nfor number in range(10):\n    print('a line of code that is much wider than any telephone', number, number ** 2)\n```"
TABLE = (
    "| a wide column | and another one | and a third | and one more |\n|---|---|---|---|\n| "
    + " | ".join(["antidisestablishmentarianism"] * 4)
    + " |"
)
LONG = (
    "Boil it for **nine** minutes. " * 30 + f"\n\n{CODE}\n\n{TABLE}\n\nhttps://example.org/{'a-very-long-address' * 8}"
)
WAYS = ("ranked", "written", "prompts", "veiled")  # beside chats and pairs
DOORS = ("consent", "tested", "members")
POLICY = "a-policy-with-a-name-that-is-rather-long-for-a-phone-2026-11-27"
SHORT = "I do not know.\n\n1. One\n2. Two"
FINISHED = {
    "accuracy": 0.7, "accuracy_ci95": [0.6, 0.8], "calibration_error": 0.1, "pairs": 17, "test_pairs": 3, "log_loss": 0.6,
}  # fmt: skip


@dataclass
class World:
    """What the addresses name: for each place of an address its values."""

    places: dict[str, list[str]]
    # Where one name means different things.
    by_path: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def addresses(self, path: str) -> Iterator[str]:
        """The route's addresses; KeyError for a place that this world has nothing for."""
        names = re.findall(r"\{(\w+)\}", path)
        known = self.places | self.by_path.get(path, {})
        for values in itertools.product(*(known[name] for name in names)):
            yield path.format(**dict(zip(names, values, strict=True)))


def page_routes() -> list[tuple[str, str]]:
    """Path and least role of every GET route that may answer with a page: all but the API."""
    found = []
    for route in (route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)):
        if "GET" in route.methods and not route.path.startswith("/api/"):
            roles = allowed("GET", route.path)
            found.append((route.path, next(role for role in ROLES if role in roles)))
    return found


def visits(world: World, role: str) -> list[str]:
    """Addresses that somebody with this role visits: those that nobody below may see, and as crowdworker and admin also
    what everybody may, since its frame then shows more."""
    found = []
    for path, least in page_routes():
        may = allowed("GET", path)
        if least == role or (role in ("crowdworker", "admin") and may == EVERYBODY):
            found += list(world.addresses(path))
    return found


def build(settings: Settings) -> World:
    """Rows for every page, on top of the two campaigns of the browser tests."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    with transaction(settings.database_url, settings.redis_url) as db:
        return _fill(db)


def _fill(db: Session) -> World:
    writer = factories.person(db, "Wilhelmina Featherstonehaugh-Cholmondeley", held_out=True)
    served = factories.snapshot(db, name=POLICY)
    chat = factories.campaign(
        db, slug="long", name="Long replies with code", served_by=served, ties=True, both_bad=True, max_turns=9,
        overlap=2, instructions=f"# Read\n\n{LONG}",
    )  # fmt: skip
    pairs = factories.campaign(db, slug="pairs", name="Given texts", way="pairs", justification="required")
    factories.campaign(db, slug="nothing-left", name="Nothing left", way="pairs")
    for number in range(3):
        factories.item(db, pairs, f"{number}. {LONG}", [LONG, SHORT])
    _ways(db, writer)
    for number in range(40):
        talk = factories.conversation(db, chat, writer, status="finished")
        turn = factories.turn(db, talk, f"Question {number}", (LONG, SHORT))
        factories.comparison(db, turn, writer, strength=1 + number % 4)
    best = best_of.register_best_of(
        db, name=f"best-of-{POLICY}", policy=served, k=64,
        preference_model=factories.snapshot(db, name=f"scorer-of-{POLICY}", kind="pm"),
    )  # fmt: skip
    notes = {"k": 64, "scores": [-1.2345] * 63 + [None], "taken": 0, "policy_log_probability": -70.0, "unscored": 1}
    turn.candidates[0].snapshot_id, turn.candidates[0].sampling = best.id, {"temperature": 1.0, "best_of": notes}
    reason = {"reason": "other", "note": "It names a person. " * 20}
    db.add(Report(person_id=writer.id, campaign_id=chat.id, turn_id=turn.id, **reason))
    _made, token = invitations.make_invitation(db, ["crowdworker"], by=writer, note="For a panel. " * 9)
    payroll_id = pay(db, writer, chat)
    study = factories.panel(db, pairs, slug="study", name="A study with a name that is rather long for a phone")
    for number in range(3):
        arrived = panels.Arrival("5f1c0a9b8e7d6c5b4a392817", f"68a1c0a9b8e7d6c5b4a39281{number}", "st1", {})
        panels.enter(db, study, arrived)
    round_ids = _rounds(db)
    job = Job(
        kind="export", status="done", settings={"format": "hh", "campaign": None, "selection": {}},
        result={"comparisons": 1, "conversations": 1, "simulated_left_out": 0, "counts": {"mode": {"helpful": 1}},
                "files": [{"name": "comparisons.jsonl", "comparisons": 1, "bytes": 2, "sha256": "0" * 64}]},
    )  # fmt: skip
    failed = Job(
        kind="import",
        status="failed",
        settings={"path": "/imports/a.jsonl", "campaign": "long"},
        failure="Line 7 is not JSON. " * 9,
    )
    db.add_all([job, failed])
    db.flush()
    return World(
        places={
            "slug": ["long", "pairs"],
            "conversation_id": [str(talk.id)],
            "round_id": [str(each) for each in round_ids],
            "snapshot_id": [str(served.id), str(best.id)],
            "job_id": [str(job.id), str(failed.id)],
            "payroll_id": [str(payroll_id)],
            "person_id": [str(writer.id)],
            "name": ["manifest.json"],
        },
        by_path={
            "/chat/{slug}": {"slug": ["helpful", "red-team", "long", "pairs", "nothing-left", *WAYS]},
            "/chat/{slug}/begin": {"slug": ["long", *DOORS]},
            "/admin/panels/{slug}": {"slug": ["study"]},
            "/sign-in/{token}": {"token": ["any"]},
            "/invitation/{token}": {"token": [token]},
        },
    )


def _ways(db: Session, writer: Person) -> None:
    """A campaign of each way with something in hand, and one before each step of the door."""
    ranked = factories.campaign(
        db, slug="ranked", name="To be ranked", way="ranking", candidates=4, rated=True, flags=FLAGS
    )
    factories.item(db, ranked, f"Which? {LONG}", [LONG, SHORT, "Eggs are boiled in water.", "No."])
    written = factories.campaign(db, slug="written", name="To be answered", way="demonstration")
    factories.item(db, written, f"What would you answer? {LONG}", [])
    asked = factories.campaign(db, slug="prompts", name="To be asked", way="prompts")
    db.add(
        Prompt(
            campaign_id=asked.id,
            text="Why is the sea salty?",
            author_id=writer.id,
            written_in_id=asked.id,
            status="proposed",
        )
    )
    veiled = factories.campaign(
        db, slug="veiled", name="Behind a veil", way="pairs", mode="red_team", blurred=True, ties=True, both_bad=True,
    )  # fmt: skip
    factories.item(db, veiled, f"Which is worse? {LONG}", [LONG, SHORT])
    factories.campaign(db, slug="consent", name="With consent", consent=f"It may *upset* you.\n\n{LONG}")
    tested = factories.campaign(db, slug="tested", name="With a test", pass_mark=1)
    members.add_question(
        db, factories.person(db, "Ada", "admin"), tested, f"Which one? {SHORT}", "* The better\nThe longer one of both"
    )
    factories.campaign(db, slug="members", name="For members", access="members")


def pay(db: Session, person: Person, campaign: Campaign) -> int:
    """Entries of each status, appeals with and without an answer, a notice, a report and checks; returns the payroll."""
    admin, of = factories.person(db, "Ada", "admin"), {"campaign_id": campaign.id}
    reason = "Only three answers in half an hour, and nobody typed anything. " * 3
    for _ in range(2):
        rejected = factories.entry(db, person, "1234.50", campaign_id=campaign.id)
        ledger.reject(db, admin, [rejected.id], reason)
        appeal = appeals.appeal(db, person, rejected.id, "I read every reply twice, and the second was long. " * 4)
    ledger.answer_appeal(db, admin, appeal.id, "upheld", reason)
    ledger.reject(db, admin, [factories.entry(db, person, **of).id], reason)
    factories.entry(db, person, status="approved", **of)
    made = payrolls.make(db, admin, "USD")
    for status in ("pending", "approved"):
        factories.entry(db, person, status=status, currency="EUR", **of)
    ledger.add(db, admin, [person], "bonus", "2.50", "EUR", reason, f"key-of-a-bonus-{person.id}", campaign)
    notices.send(db, admin, [person.id], LONG, campaign=campaign, idempotency_key="key-of-a-notice")
    work_time.seen(db, person, campaign)
    talk = factories.conversation(db, campaign, person, status="finished")
    turn = factories.turn(db, talk, "Why?")
    factories.comparison(db, turn, person)
    db.add(Report(person_id=person.id, turn_id=turn.id, reason="nonsense", note=reason, **of))
    db.add(CheckResult(person_id=person.id, turn_id=turn.id, kind="gold", passed=True, expected={}, answered={}, **of))
    campaign.pay_per_hour, campaign.shares_checks, campaign.leaderboard = Decimal("14.50"), True, True
    db.flush()
    return made.id


def _rounds(db: Session) -> list[int]:
    """One that is done, with curves; one that is held by a gate."""
    db.add(Schedule(cron="0 3 * * 1", time_zone="UTC", minimum_new_comparisons=100))
    done = rounds.start(db, trigger="command", settings={"initial": POLICY})
    done.dataset_version_id = datasets.freeze(db, DatasetSelection()).id
    db.flush()
    for _step in range(7):
        held = rounds.claim(db, done.id, "w")
        assert held is not None
        rounds.finish_step(db, held)
        if held.name == "pm":
            run = runs.run_of_step(db, held, "preference")
            curves = {"loss": [[step, 0.7 - step / 100] for step in range(1, 40)]}
            runs.finish_run(db, run.id, {"seed": 1}, FINISHED, {"step": 39, "of": 39, "curves": curves})
    second = rounds.start(db, trigger="command", settings={"initial": POLICY})
    held = rounds.claim(db, second.id, "w")
    assert held is not None
    rounds.hold_step(db, held, {"accuracy": GATE}, "Held for a person. " * 5)
    return [done.id, second.id]
