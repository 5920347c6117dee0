"""Making and changing campaigns: refusals in plain words, instructions that only grow, a pool without doubles."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import AuditEntry, Campaign
from server.services.campaigns import campaigns
from server.services.working.instructions import instructions_versions, new_instructions, newest_instructions
from tests import factories
from tests.conftest import Cast


def make(db: Session, **more: object) -> Campaign:
    values = {"slug": "essays", "name": "Essays", "mode": "helpful", "instructions": "Compare."}
    return campaigns.create_campaign(db, **{**values, **more})  # type: ignore[arg-type]


def test_a_campaign_has_its_settings_and_first_instructions(db: Session, cast: Cast) -> None:
    made = make(db, overlap="3", temperature="0.7", pay_per_hour="12.505", quota="", person=cast.ada)
    assert (made.overlap, made.temperature, str(made.pay_per_hour), made.quota) == (3, 0.7, "12.50", None)
    newest = newest_instructions(db, made)
    assert newest is not None and (newest.version, newest.markdown) == (1, "Compare.")
    actions = db.scalars(select(AuditEntry.action).where(AuditEntry.object_id == made.id).order_by(AuditEntry.id)).all()
    assert actions == ["campaign.create", "campaign.instructions"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("overlap", 0, "from 1 to 20"),
        ("overlap", "two", "whole number"),
        ("overlap", "1.5", "whole number"),
        ("grades", 5, "from 1 to 4"),
        ("temperature", 0, "above 0 and at most 2"),
        ("temperature", "nan", "above 0"),
        ("top_p", 1.01, "above 0 and at most 1"),
        ("quota", -1, "or empty"),
        ("lease_minutes", "", "from 1 to 1440"),
        ("mode", "nice", "one of helpful, red_team"),
        ("status", "gone", "one of open, paused, closed"),
        ("slug", "No Spaces", "small letters"),
        ("name", "  ", "1 to 200 characters"),
        ("instructions", "\n ", "empty"),
        ("colour", "red", "has no setting"),
    ],
)
def test_what_the_database_would_refuse_is_refused_in_words(db: Session, field: str, value: object, words: str) -> None:
    with pytest.raises(BadInput, match=words) as raised:
        make(db, **{field: value})
    assert raised.value.field == field


def test_a_slug_is_taken_once(db: Session) -> None:
    make(db)
    with pytest.raises(Conflict, match="already a campaign"):
        make(db)
    with pytest.raises(NotFound):
        campaigns.find_campaign(db, "other")


def test_mode_and_scale_stay_once_people_have_compared(db: Session, cast: Cast) -> None:
    campaign = factories.campaign(db)
    assert campaigns.update_campaign(db, campaign, cast.ada, mode="red_team") == {"mode": ["helpful", "red_team"]}
    campaigns.update_campaign(db, campaign, cast.ada, mode="helpful")
    factories.comparison(db, factories.turn(db, factories.conversation(db, campaign, cast.alice)), cast.alice)
    for change in ({"mode": "red_team"}, {"grades": 3}):
        with pytest.raises(Conflict, match="Create another campaign"):
            campaigns.update_campaign(db, campaign, cast.ada, **change)
    assert campaigns.update_campaign(db, campaign, cast.ada, overlap=2, name=campaign.name) == {"overlap": [1, 2]}


def test_instructions_get_a_version_only_when_they_change(db: Session, cast: Cast) -> None:
    campaign = make(db)
    assert new_instructions(db, campaign, "Compare.\r\n", cast.ada).version == 1
    assert new_instructions(db, campaign, "Compare well.", cast.ada).version == 2
    assert [found.version for found in instructions_versions(db, campaign)] == [2, 1]


def test_a_pool_holds_each_prompt_once(db: Session) -> None:
    campaign = make(db, max_message_chars=20)
    assert (
        campaigns.add_prompts(db, campaign, [("a", "train"), (" a ", "train"), ("", "train"), ("b", "held_out")]) == 2
    )
    assert campaigns.add_prompts(db, campaign, [("a", "held_out"), ("c", "train")]) == 1
    assert campaigns.prompt_counts(db, campaign) == {"train": 2, "held_out": 1}
    with pytest.raises(BadInput, match="at most 20"):
        campaigns.add_prompts(db, campaign, [("x" * 21, "train")])


def test_only_open_campaigns_are_offered(db: Session) -> None:
    make(db, slug="a", name="A", status="paused")
    b = make(db, slug="b", name="B")
    assert campaigns.open_campaigns(db, factories.person(db)) == [b]
