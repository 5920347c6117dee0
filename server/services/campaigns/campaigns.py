"""Campaigns: making and changing them, and their pool of prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, Comparison, Person, Prompt, Question
from server.services import audit
from server.services.campaigns.campaign_settings import FIXED, FLAGS, checked_settings
from server.services.items import openings
from server.services.people import guests
from server.services.working import kinds, overlap, work_time
from server.services.working.instructions import new_instructions

CHECKED_WAYS = ("pairs", "ranking")
SPLITS = ("train", "held_out")
RANKED = 4  # replies to a prompt of a new campaign that ranks; InstructGPT had 4 to 9
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def find_campaign(db: Session, slug: str) -> Campaign:
    """The campaign with this slug, or NotFound."""
    found = db.scalar(select(Campaign).where(Campaign.slug == slug))
    if found is None:
        raise NotFound(f"There is no campaign {slug!r}; `whetstone campaign list` shows those that exist.")
    return found


def all_campaigns(db: Session) -> list[Campaign]:
    """Every campaign, by name."""
    return list(db.scalars(select(Campaign).order_by(Campaign.name, Campaign.id)))


def open_campaigns(db: Session, person: Person) -> list[Campaign]:
    """The campaigns that people can work in now, by name; somebody whom a panel sent sees those of their studies."""
    found = select(Campaign).where(Campaign.status == "open").order_by(Campaign.name, Campaign.id)
    theirs = guests.only_campaigns(db, person)
    return list(db.scalars(found if theirs is None else found.where(Campaign.id.in_(theirs))))


def create_campaign(
    db: Session, *, slug: str, name: str, mode: str, instructions: str, person: Person | None = None, **settings: Any
) -> Campaign:
    """Make a campaign with the first version of its instructions.

    Raises BadInput for a setting out of bounds and Conflict when the slug is taken.
    """
    if not _SLUG.fullmatch(slug):
        raise BadInput(
            f"The slug {slug!r} must be 1 to 63 small letters, digits and hyphens, beginning with a letter or digit.",
            field="slug",
        )
    pool = settings.pop("pool", None)
    if settings.get("way") == "ranking":
        settings.setdefault("candidates", RANKED)
    values = checked_settings({"mode": mode, **settings})
    if pool:
        values["pool_id"] = _pool(db, None, pool)
    if values.get("pass_mark") is not None:
        raise BadInput("Make the campaign and its test's questions first, then set the pass mark.", field="pass_mark")
    if values.get("rated"):
        values.setdefault("flags", FLAGS)
    _check_checks(values.get("way", "chat"), values)
    values["name"] = _name(name)
    made: Campaign | None = db.scalar(
        insert(Campaign)
        .values(slug=slug, created_by_id=person.id if person else None, **values)
        .on_conflict_do_nothing(index_elements=["slug"])
        .returning(Campaign)
    )
    if made is None:
        raise Conflict(f"There is already a campaign {slug!r}; choose another slug.", field="slug")
    audit.record(db, person, "campaign.create", "campaign", made.id, slug=slug, **_plain(values))
    new_instructions(db, made, instructions, person)
    return made


def update_campaign(db: Session, campaign: Campaign, person: Person | None, **changes: Any) -> dict[str, Any]:
    """Change name, status or settings; returns what changed as field -> [before, after].

    What the answers mean by stays once there are any: in the other mode, say, they would mean the opposite.
    """
    name, pool = changes.pop("name", None), changes.pop("pool", None)
    values = checked_settings(changes)
    if pool is not None:
        values["pool_id"] = _pool(db, campaign, pool)
    if values.get("pass_mark") is not None and not _has_questions(db, campaign):
        raise BadInput("Add a question to the test before you ask people to pass it.", field="pass_mark")
    if values.get("rated") and not values.get("flags", campaign.flags):
        values["flags"] = FLAGS
    _check_checks(values.get("way", campaign.way), values)
    if name is not None:
        values["name"] = _name(name)
    changed = {field: value for field, value in values.items() if getattr(campaign, field) != value}
    fixed = next((field for field in changed if field in FIXED), None)
    if fixed is not None and kinds.any_given(db, campaign):
        raise Conflict(
            f"The {FIXED[fixed]} cannot change: this campaign has answers. Create another campaign.", field=fixed
        )
    if {"pay_per_hour", "currency"} & set(changed):
        work_time.end_all(db, campaign)
    before = {field: getattr(campaign, field) for field in changed}
    for field, value in changed.items():
        setattr(campaign, field, value)
    difference = {field: [_json(before[field]), _json(value)] for field, value in changed.items()}
    if difference:
        audit.record(db, person, "campaign.update", "campaign", campaign.id, changes=difference)
        db.flush()
    if "overlap" in changed:
        overlap.apply(db, campaign)
    if "pairing" in changed:
        openings.put_all_away(db, campaign)
    return difference


def _check_checks(way: str, values: Mapping[str, Any]) -> None:
    """BadInput for a share of checks, or a screening by them, where no item can be a check: nobody would ever meet one."""
    field = next((name for name in ("check_rate", "screening_items") if values.get(name)), None)
    if field is not None and way not in CHECKED_WAYS:
        raise BadInput(
            "Checks are items with an expert's answer, so they need a campaign of given texts (pairs) or rankings.",
            field=field,
        )


def _has_questions(db: Session, campaign: Campaign) -> bool:
    asked = select(Question.id).where(Question.campaign_id == campaign.id, Question.retired_at.is_(None)).limit(1)
    return db.scalar(asked) is not None


def _pool(db: Session, campaign: Campaign | None, slug: str) -> int | None:
    """Whose prompts are used; empty means the campaign's own."""
    if not slug.strip() or (campaign is not None and slug.strip() == campaign.slug):
        return None
    found = db.scalar(select(Campaign).where(Campaign.slug == slug.strip()))
    if found is None or found.pool_id is not None:
        raise BadInput("The pool is the slug of a campaign that has prompts of its own.", field="pool")
    return found.id


def comparison_count(db: Session, campaign: Campaign) -> int:
    """How many comparisons the campaign holds, imports included."""
    return db.scalar(select(func.count()).where(Comparison.campaign_id == campaign.id)) or 0


def add_prompts(
    db: Session, campaign: Campaign, prompts: Iterable[tuple[str, str]], person: Person | None = None
) -> int:
    """Add (text, split) to the campaign's pool; texts that are there already are passed over. Returns how many are new."""
    rows: dict[str, dict[str, Any]] = {}
    for text, split in prompts:
        cleaned = text.strip()
        if not cleaned:
            continue
        if split not in SPLITS:
            raise BadInput(f"A prompt's split must be train or held_out, not {split!r}.", field="split")
        if "\0" in cleaned:
            raise BadInput("A prompt holds the character U+0000, which cannot be stored.", field="prompts")
        if len(cleaned) > campaign.max_message_chars:
            raise BadInput(
                f"The prompt that begins {cleaned[:40]!r} has {len(cleaned):,} characters; this campaign's messages have "
                f"at most {campaign.max_message_chars:,}.",
                field="prompts",
            )
        rows.setdefault(cleaned, {"campaign_id": campaign.id, "text": cleaned, "split": split})
    if not rows:
        return 0
    added = db.scalars(
        insert(Prompt).on_conflict_do_nothing(index_elements=["campaign_id", "text"]).returning(Prompt.id),
        list(rows.values()),
    ).all()
    if added:
        audit.record(db, person, "campaign.prompts", "campaign", campaign.id, added=len(added))
    return len(added)


def prompt_counts(db: Session, campaign: Campaign) -> dict[str, int]:
    """Prompts of the pool by split, those that nobody has accepted yet aside."""
    accepted = (Prompt.campaign_id == campaign.id, Prompt.status == "accepted")
    rows = db.execute(select(Prompt.split, func.count()).where(*accepted).group_by(Prompt.split))
    found: dict[str, int] = dict(rows.all())
    return {split: found.get(split, 0) for split in SPLITS}


def _name(name: str) -> str:
    cleaned = name.strip()
    if not 1 <= len(cleaned) <= 200:
        raise BadInput("The name must have 1 to 200 characters.", field="name")
    return cleaned


def _json(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {field: _json(value) for field, value in values.items()}
