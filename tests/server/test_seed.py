"""The demo is made once, stays as people leave it, and gives fresh links."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.errors import NotAllowed
from server.models import Campaign, Person, Prompt, Schedule
from server.services import seed
from server.services.campaigns import campaigns
from server.services.people import people
from server.services.snapshots import deployments, registry
from server.settings import Settings


def test_seeding_twice_makes_everything_once(db: Session, settings: Settings) -> None:
    first = seed.seed_demo(db, settings)
    helpful = campaigns.find_campaign(db, "helpful")
    helpful.name = "Changed by an admin"
    second = seed.seed_demo(db, settings)
    assert [role for role, _, _ in first] == ["crowdworker", "researcher", "admin"]
    assert {token for _, _, token in first}.isdisjoint(token for _, _, token in second)
    assert db.scalar(select(func.count()).select_from(Person)) == 3
    assert db.scalar(select(func.count()).select_from(Schedule)) == 1
    assert db.scalars(select(Campaign.slug).order_by(Campaign.slug)).all() == ["helpful", "red-team"]
    assert helpful.name == "Changed by an admin"
    for slug, mode in (("helpful", "helpful"), ("red-team", "red_team")):
        campaign = campaigns.find_campaign(db, slug)
        current = deployments.current(db, campaign)
        assert campaign.mode == mode and current is not None
        assert [share.snapshot for share in current.shares] == [registry.starter_snapshot(db)]
        wanted = dict.fromkeys(("train", "held_out"), 0)
        for _, of, split in seed.read_prompts(seed.PROMPTS):
            wanted[split] += of == mode
        assert campaigns.prompt_counts(db, campaign) == wanted
        assert min(wanted.values()) > 0
    assert db.scalar(select(func.count()).select_from(Prompt)) == len(seed.read_prompts(seed.PROMPTS))


def test_each_link_signs_its_person_in_once(db: Session, settings: Settings) -> None:
    for role, name, token in seed.seed_demo(db, settings):
        person = people.use_sign_in_link(db, settings, token)
        assert (person.roles, person.name) == ([role], name)


def test_nothing_is_seeded_without_the_demo(db: Session, settings: Settings) -> None:
    with pytest.raises(NotAllowed):
        seed.seed_demo(db, replace(settings, demo=False))
