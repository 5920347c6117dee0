"""Campaigns, for admins: make, change, pause; new versions of the instructions; more prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, Db
from server.errors import BadInput, WhetstoneError
from server.models import AuditEntry, Campaign, DeploymentShare, Instructions
from server.pages import Page, render
from server.routes.row_id import row_id
from server.services import audit
from server.services.campaigns import campaign_settings, campaigns
from server.services.door import checks
from server.services.door.checks import Evidence
from server.services.items import demonstration_pairs, item_lines, items, kept, openings, pool_items
from server.services.items.items import Standing
from server.services.items.kept import Waiting
from server.services.people import people
from server.services.snapshots import deployments
from server.services.working.instructions import instructions_versions, new_instructions

router = APIRouter()

MAX_PASTE_CHARS = 900_000  # below the largest body that the server takes

# What a form shows for each number: label, help. The bounds come from the service.
WORDS = {
    "grades": ("Strengths on each side", "4 gives eight positions"),
    "overlap": ("People per turn", "how many compare the same turn"),
    "quota": ("Comparisons wanted", "empty: no end"),
    "pay_per_hour": ("Pay per hour", "shown to people; empty: not paid"),
    "temperature": ("Temperature", "of sampling"),
    "top_p": ("Top p", "1 keeps every token possible"),
    "max_new_tokens": ("Longest reply", "in tokens"),
    "max_turns": ("Turns in a conversation", "then a new one begins"),
    "max_message_chars": ("Longest message", "in characters"),
    "lease_minutes": ("Lease", "minutes without activity until a conversation expires"),
    "undo_seconds": ("Undo", "seconds in which a choice can be taken back; 0: not at all"),
    "candidates": ("Replies to a prompt", "of a ranking, 4 to 9 as a rule; a chat shows two"),
    "prepared": (
        "Kept in store",
        "suggestions or items whose replies are sampled ahead, so that they are there at once",
    ),
    "check_rate": ("Share of checks", "how often an item with an expert's key is mixed in, 0 to 0.5"),
    "too_fast_seconds": ("Too fast", "quicker choices are marked, never refused"),
}
CHOICE_WORDS: dict[str, tuple[str, dict[str, str]]] = {
    "way": ("What people do", {
        "chat": "Chat, and compare two replies a turn", "pairs": "Compare two given texts",
        "ranking": "Rank several replies to a prompt", "demonstration": "Write the reply to a prompt",
        "prompts": "Write prompts for a pool",
    }),
    "purpose": ("What the answers are for", {
        "training": "Training", "evaluation": "Evaluation only: never trained on",
    }),
    "pairing": ("Which models write the two replies", {
        "shares": "Each is drawn by the deployment's shares", "one": "Both from one model", "two": "Two different models",
    }),
    "continuation": ("What carries the chat on", {
        "chosen": "The reply that was picked", "less_harmful": "The less harmful reply",
        "random": "One of both, at random",
    }),
    "justification": ("Why one reply is better", {
        "off": "Is not asked", "optional": "May be said", "required": "Must be said",
    }),
    "edits": ("Improving the reply that was chosen in a chat", {
        "off": "Is not asked", "optional": "May be done", "required": "Must be done",
    }),
    "rated": ("Before a ranking", {"no": "Nothing", "yes": "Rate each reply from 1 to 7, with the flags below"}),
    "ties": ("“Both are about equal”", {"no": "Cannot be chosen", "yes": "May be chosen"}),
    "shares_checks": ("Results of checks", {"no": "Are for admins alone", "yes": "Each person sees their own"}),
    "leaderboard": ("Leaderboard", {"no": "None", "yes": "People here see each other's names and numbers"}),
    "both_bad": ("“Both are bad”", {"no": "Cannot be chosen", "yes": "May be chosen, with a reason"}),
}  # fmt: skip


@dataclass(frozen=True)
class NumberField:
    """One number of the form."""

    name: str
    label: str
    help: str
    value: Any
    min: float
    max: float
    step: str


@dataclass(frozen=True)
class ChoiceField:
    """One choice of the form."""

    name: str
    label: str
    options: list[tuple[str, str]]
    value: str


@dataclass(frozen=True)
class Listed:
    """One campaign in the list."""

    campaign: Campaign
    comparisons: int
    prompts: dict[str, int]
    shares: list[DeploymentShare]


@dataclass(frozen=True)
class CampaignsPage(Page):
    """The list, and the form of a new campaign."""

    template: ClassVar[str] = "admin/campaigns.html"
    listed: list[Listed]
    typed: dict[str, str] = field(default_factory=dict)
    error: str = ""
    error_field: str = ""


@dataclass(frozen=True)
class CampaignPage(Page):
    """One campaign with everything that can be changed."""

    template: ClassVar[str] = "admin/campaign.html"
    campaign: Campaign
    comparisons: int
    numbers: list[NumberField]
    choices: list[ChoiceField]
    flags: str  # as lines of text
    pool: str  # the slug of the campaign whose prompts are used; empty for its own
    items: Standing | None  # of a campaign that people work through item by item
    kept: list[Waiting]  # what waits for named people
    checks: list[Evidence]
    prompts: dict[str, int]
    versions: list[Instructions]
    shares: list[DeploymentShare]
    failed_at: datetime | None  # when what serves last failed to write ahead, while it is not tried again yet
    history: list[AuditEntry]
    saved: str = ""
    error: str = ""
    error_field: str = ""
    typed: dict[str, str] = field(default_factory=dict)


def _shares(db: Session, campaign: Campaign) -> list[DeploymentShare]:
    deployment = deployments.current(db, campaign)
    return list(deployment.shares) if deployment else []


def _list(db: Session, **more: Any) -> CampaignsPage:
    listed = [
        Listed(
            campaign,
            campaigns.comparison_count(db, campaign),
            campaigns.prompt_counts(db, campaign),
            _shares(db, campaign),
        )
        for campaign in campaigns.all_campaigns(db)
    ]
    return CampaignsPage(title="Campaigns", listed=listed, **more)


def _one(db: Session, campaign: Campaign, **more: Any) -> CampaignPage:
    typed = more.get("typed", {})
    numbers = [
        NumberField(
            name=name,
            label=label,
            help=help_,
            value=typed.get(name, getattr(campaign, name)),
            min=0 if rule.above_low else rule.low,
            max=rule.high,
            step="1" if rule.kind is int else "any",
        )
        for name, (label, help_) in WORDS.items()
        for rule in [campaign_settings.NUMBERS[name]]
    ]
    return CampaignPage(
        title=campaign.name,
        campaign=campaign,
        comparisons=campaigns.comparison_count(db, campaign),
        numbers=numbers,
        choices=[
            ChoiceField(name, label, list(options.items()), typed.get(name, _as_option(getattr(campaign, name))))
            for name, (label, options) in CHOICE_WORDS.items()
        ],
        flags=typed.get("flags", campaign_settings.flag_lines(campaign.flags)),
        pool=typed.get("pool", _pool_slug(db, campaign)),
        items=items.standing(db, campaign) if campaign.way not in ("chat", "prompts") else None,
        kept=kept.waiting(db, campaign),
        checks=checks.by_person(db, campaign),
        prompts=campaigns.prompt_counts(db, campaign),
        versions=instructions_versions(db, campaign),
        shares=_shares(db, campaign),
        failed_at=openings.failed_lately(db, campaign) or pool_items.failed_lately(db, campaign),
        history=audit.history(db, "campaign", campaign.id),
        **more,
    )


def _pool_slug(db: Session, campaign: Campaign) -> str:
    return db.get_one(Campaign, campaign.pool_id).slug if campaign.pool_id is not None else ""


def _as_option(value: str | bool) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


@router.get("/admin/campaigns")
def campaigns_page(request: Request, db: Db, who: AnyVisitor, person: Admin) -> Response:
    return render(request, who, _list(db))


@router.post("/admin/campaigns")
def create(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: Annotated[str, Form(max_length=200)] = "",
    name: Annotated[str, Form(max_length=1000)] = "",
    mode: Annotated[str, Form(max_length=50)] = "helpful",
    instructions: Annotated[str, Form(max_length=MAX_PASTE_CHARS)] = "",
) -> Response:
    """A new campaign begins paused: it needs a snapshot to serve it before people come."""
    try:
        with db.begin_nested():  # a refusal leaves nothing of the campaign behind
            made = campaigns.create_campaign(
                db, slug=slug.strip(), name=name, mode=mode, instructions=instructions, status="paused", person=person
            )
    except WhetstoneError as error:
        typed = {"slug": slug, "name": name, "mode": mode, "instructions": instructions}
        page = _list(db, typed=typed, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(made, "made")


@router.get("/admin/campaigns/{slug}")
def campaign_page(request: Request, db: Db, who: AnyVisitor, person: Admin, slug: str, saved: str = "") -> Response:
    return render(request, who, _one(db, campaigns.find_campaign(db, slug), saved=saved))


async def _typed(request: Request) -> dict[str, str]:
    """The fields of the form that a campaign has; others are not looked at."""
    allowed = ("name", "pool", *campaign_settings.SETTINGS)
    return {key: value for key, value in (await request.form()).items() if key in allowed and isinstance(value, str)}


@router.post("/admin/campaigns/{slug}")
def change(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    typed: Annotated[dict[str, str], Depends(_typed)],
) -> Response:
    """Change the name and settings that the form sends."""
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            campaigns.update_campaign(db, campaign, person, **typed)
    except WhetstoneError as error:
        page = _one(db, campaign, typed=typed, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(campaign, "saved")


@router.post("/admin/campaigns/{slug}/instructions")
def save_instructions(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    instructions: Annotated[str, Form(max_length=MAX_PASTE_CHARS)] = "",
) -> Response:
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            new_instructions(db, campaign, instructions, person)
    except WhetstoneError as error:
        page = _one(
            db, campaign, typed={"instructions": instructions}, error=error.message, error_field=error.field or ""
        )
        return render(request, who, page, status=error.status)
    return _to(campaign, "instructions")


@router.post("/admin/campaigns/{slug}/prompts")
def add_prompts(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    prompts: Annotated[str, Form(max_length=MAX_PASTE_CHARS)] = "",
    split: Annotated[str, Form(max_length=20)] = "train",
) -> Response:
    """One prompt a line."""
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            campaigns.add_prompts(db, campaign, [(line, split) for line in prompts.splitlines()], person)
    except WhetstoneError as error:
        page = _one(db, campaign, typed={"prompts": prompts}, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(campaign, "prompts")


@router.post("/admin/campaigns/{slug}/items")
def add_items(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    lines: Annotated[str, Form(max_length=MAX_PASTE_CHARS)] = "",
) -> Response:
    """One item a line, as JSON; a bad line is named and none is added."""
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            items.add_items(db, campaign, item_lines.read(lines.split("\n")), person)
    except WhetstoneError as error:
        page = _one(db, campaign, typed={"lines": lines}, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(campaign, "items")


@router.post("/admin/campaigns/{slug}/items/hand-over")
def hand_over(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    of: Annotated[str, Form(max_length=20)] = "",
    to: Annotated[str, Form(max_length=320)] = "",
) -> Response:
    """Items that wait for one named person go to another, or to everybody."""
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            owner = row_id(of)
            if owner is None:
                raise BadInput("Say by their number whose items they are.", field="to")
            kept.hand_over(db, campaign, people.get_person(db, owner), to, person)
    except WhetstoneError as error:
        page = _one(db, campaign, typed={"to": to, "of": str(of)}, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(campaign, "handed")


@router.post("/admin/campaigns/{slug}/demonstrations")
def pair_demonstrations(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    source: Annotated[str, Form(max_length=63)] = "",
) -> Response:
    """What people wrote in another campaign, each beside a reply of the model that serves this one."""
    campaign = campaigns.find_campaign(db, slug)
    try:
        with db.begin_nested():
            if not source.strip():
                raise BadInput("Type the slug of the campaign in which people wrote the replies.", field="source")
            demonstration_pairs.make(db, campaign, campaigns.find_campaign(db, source.strip()), person)
    except WhetstoneError as error:
        page = _one(db, campaign, typed={"source": source}, error=error.message, error_field="source")
        return render(request, who, page, status=error.status)
    return _to(campaign, "items")


def _to(campaign: Campaign, saved: str) -> Response:
    return RedirectResponse(f"/admin/campaigns/{campaign.slug}?saved={saved}", status_code=HTTP_303_SEE_OTHER)
