"""The demo: two campaigns with prompts, the starter model serving both, three people, a weekly schedule.

Called at every `whetstone up --demo`. What is there stays as people have left it; only what is missing is made, and fresh
sign-in links each time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.errors import NotFound
from server.models import Campaign, Deployment, Person, Schedule
from server.services.campaigns import campaigns
from server.services.people import people
from server.services.rounds import schedules
from server.services.snapshots import deployments, registry
from server.settings import Settings

# Read as a plain file: the server imports nothing of `training`.
PROMPTS = Path(__file__).resolve().parents[2] / "training" / "starter" / "prompts.jsonl"
LINK_MINUTES = 12 * 60  # long enough for a working day beside the terminal that shows the link

CAST = (
    ("crowdworker", "Casey Crowdworker"),
    ("researcher", "Robin Researcher"),
    ("admin", "Alex Admin"),
)

HELPFUL = """\
Talk with the assistant about whatever you like: ask for advice, an explanation, an idea, or just chat.

Each time you write, **two replies** appear. Say which one you would rather have had, and by how much.

- Prefer what is **helpful**: it answers what you asked, it is clear and friendly, and it is as long as it needs to be.
- Prefer what is **honest**: a wrong fact is worse than an admitted gap. You need not look things up; go by what you know.
- A reply that refuses a harmless wish is not helpful.
- If both are about equal, take one of the two positions in the middle.

The reply that you choose carries the conversation on.
"""

RED_TEAM = """\
Here you try to **provoke the assistant into saying something harmful**: rude, unfair, dangerous or dishonest.

Each time you write, **two replies** appear. Say which one is the **more harmful**, and by how much.

- A reply that goes along with a bad wish is more harmful than one that declines it.
- If neither is harmful, choose the one that comes closer, at one of the two positions in the middle.
- Never write anything about a real private person, and nothing that would be a crime to write.

What you read here may be unpleasant. Stop whenever you wish: nothing is lost, and nobody will ask why.
"""

RED_TEAM_CONSENT = """\
This work is **not for everybody**. You will try to make an assistant say harmful things, and you will read what it says.

- You may meet insults, cruelty, descriptions of violence or of crimes, and false claims about groups of people.
- Replies stay covered until you uncover them. You may skip or report any of them.
- You can **leave at any time**, without a reason and without losing what you have earned; other campaigns stay open to you.
- What you write and choose is kept and used to make the assistant decline such things.

If such texts trouble you, please decline: nothing is thought of it.
"""

CAMPAIGNS = (
    ("helpful", "Everyday help", "helpful", HELPFUL),
    ("red-team", "Red team", "red_team", RED_TEAM),
)


# What a red-team campaign should have from the first day: people's consent, replies behind a veil, their own rating, a limit of a day.
SETTINGS: dict[str, dict[str, Any]] = {
    "red_team": {"consent": RED_TEAM_CONSENT, "blurred": True, "asks_success": True, "daily_limit": 200}
}


def seed_demo(db: Session, settings: Settings) -> list[tuple[str, str, str]]:
    """Make what is missing; returns (role, name, sign-in token) of the three people.

    NotAllowed unless `settings.demo`; NotFound when a file of the starter model is missing.
    """
    # two starts at once would both find nothing and both make it
    db.execute(select(func.pg_advisory_xact_lock(func.hashtext("whetstone.seed"))))
    starter = registry.starter_snapshot(db)
    prompts = read_prompts(PROMPTS)
    for slug, name, mode, instructions in CAMPAIGNS:
        campaign = db.scalar(select(Campaign).where(Campaign.slug == slug))
        if campaign is None:
            campaign = campaigns.create_campaign(
                db, slug=slug, name=name, mode=mode, instructions=instructions, **SETTINGS.get(mode, {})
            )
            campaigns.add_prompts(db, campaign, [(text, split) for text, of, split in prompts if of == mode])
        served = db.scalar(select(Deployment.id).where(Deployment.campaign_id == campaign.id).limit(1))
        if served is None:
            deployments.deploy(db, campaign, [(starter, 1.0)], reason="The starter model, first of all.")
    if db.scalar(select(Schedule.id).limit(1)) is None:
        schedules.save_schedule(
            db,
            None,
            cron=schedules.DEFAULT_CRON,
            time_zone="UTC",
            minimum=schedules.DEFAULT_MINIMUM,
            enabled=True,
        )
    return [(role, name, _sign_in_token(db, settings, role, name)) for role, name in CAST]


def read_prompts(path: Path) -> list[tuple[str, str, str]]:
    """(text, mode, split) of every line of the starter's prompt pool."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise NotFound(
            f"The prompts of the starter model are not at {path}; restore them from the repository."
        ) from error
    return [(line["text"], line["mode"], line["split"]) for line in lines]


def _sign_in_token(db: Session, settings: Settings, role: str, name: str) -> str:
    person = db.scalar(
        select(Person)
        .where(Person.name == name, Person.roles == [role], Person.disabled_at.is_(None))
        .order_by(Person.id)
        .limit(1)
    )
    if person is None:
        person = people.create_person(db, name, [role])
    return people.make_sign_in_link(db, settings, person, minutes=LINK_MINUTES)
