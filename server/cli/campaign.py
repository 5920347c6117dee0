"""`whetstone campaign`: make, show and change campaigns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from server.cli.connection import connected
from server.db import session_factory
from server.errors import BadInput
from server.models import Campaign
from server.models.campaigns import MODES
from server.services.campaigns import campaign_settings, campaigns
from server.services.snapshots import deployments
from server.services.working.instructions import new_instructions, newest_instructions

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_SET = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"One of {', '.join((*campaign_settings.SETTINGS, 'pool'))}.",
)


@click.group()
def command() -> None:
    """Standing requests for feedback.

    \b
    Example:
      whetstone campaign list
    """


def _described(db: Session, campaign: Campaign) -> dict[str, Any]:
    deployment = deployments.current(db, campaign)
    pay = campaign.pay_per_hour
    return {
        "slug": campaign.slug,
        "name": campaign.name,
        **{name: getattr(campaign, name) for name in campaign_settings.SETTINGS},
        "pay_per_hour": None if pay is None else str(pay),
        "comparisons": campaigns.comparison_count(db, campaign),
        "prompts": campaigns.prompt_counts(db, campaign),
        "pool": db.get_one(Campaign, campaign.pool_id).slug if campaign.pool_id is not None else None,
        "served_by": {share.snapshot.name: share.share for share in deployment.shares} if deployment else {},
    }


def _parsed(changes: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise BadInput(f"{change!r} must look like NAME=VALUE, such as overlap=2.")
        found[name.strip()] = value.strip()
    return found


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show all campaigns.

    \b
    Example:
      whetstone campaign list --json
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        found = [_described(db, campaign) for campaign in campaigns.all_campaigns(db)]
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("Slug", "Name", "Mode", "Status", "Comparisons", "Prompts", "Served by")
    for one in found:
        table.add_row(
            one["slug"], one["name"], one["mode"], one["status"], f"{one['comparisons']:,}",
            f"{sum(one['prompts'].values()):,}", ", ".join(one["served_by"]),
        )  # fmt: skip
    Console(width=None if Console().is_terminal else 160).print(table)


@command.command()
@click.argument("slug")
@_JSON
def show(slug: str, as_json: bool) -> None:
    """Show one campaign with its settings and instructions.

    \b
    Example:
      whetstone campaign show helpful
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        campaign = campaigns.find_campaign(db, slug)
        newest = newest_instructions(db, campaign)
        found = _described(db, campaign) | {
            "instructions_version": newest.version if newest else None,
            "instructions": newest.markdown if newest else "",
        }
    if as_json:
        click.echo(json.dumps(found))
        return
    instructions, flags = found.pop("instructions"), found.pop("flags")
    found["flags"] = ", ".join(f"{flag['key']} ({flag['label']})" for flag in flags) or None
    for name in ("prompts", "served_by"):
        found[name] = ", ".join(f"{key} {value}" for key, value in found[name].items()) or None
    for name, value in found.items():
        click.echo(f"{name.replace('_', ' '):22} {'–' if value is None else value}")
    click.echo(f"\n{instructions}")


@command.command()
@click.argument("slug")
@click.option("--name", required=True, help="What people see.")
@click.option("--mode", type=click.Choice(MODES), default="helpful", show_default=True)
@click.option(
    "--instructions", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of Markdown.",
)  # fmt: skip
@_SET
def add(slug: str, name: str, mode: str, instructions: Path, changes: tuple[str, ...]) -> None:
    """Make a campaign; it begins paused, until a snapshot serves it and it is opened.

    \b
    Example:
      whetstone campaign add essays --name "Essays" --instructions essays.md --set overlap=2
    """
    wanted: dict[str, Any] = {"status": "paused", **_parsed(changes)}
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        campaigns.create_campaign(
            db,
            slug=slug,
            name=name,
            mode=mode,
            instructions=_text(instructions),
            **wanted,
        )
    way = wanted.get("way", "chat")
    fill = (
        f"items add FILE --campaign {slug}"
        if way in ("pairs", "demonstration")
        else f"snapshot deploy NAME --campaign {slug}"
    )
    click.echo(f"Made {slug}. Next: whetstone {fill}; whetstone campaign open {slug}")


@command.command()
@click.argument("slug")
@click.option("--name", help="What people see.")
@click.option(
    "--instructions", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of Markdown: the next version.",
)  # fmt: skip
@click.option(
    "--prompts", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with one opening message a line, added to the pool.",
)  # fmt: skip
@click.option("--held-out", is_flag=True, help="These prompts only measure.")
@_SET
def edit(
    slug: str,
    name: str | None,
    instructions: Path | None,
    prompts: Path | None,
    held_out: bool,
    changes: tuple[str, ...],
) -> None:
    """Change settings, follow the instructions by a new version, add prompts.

    \b
    Example:
      whetstone campaign edit helpful --set quota=5000 --prompts more.txt
    """
    done: list[str] = []
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        campaign = campaigns.find_campaign(db, slug)
        wanted = _parsed(changes) | ({"name": name} if name else {})
        for field, (before, after) in campaigns.update_campaign(db, campaign, None, **wanted).items():
            done.append(f"{field}: {before} -> {after}")
        if instructions:
            done.append(f"instructions: version {new_instructions(db, campaign, _text(instructions), None).version}")
        if prompts:
            split = "held_out" if held_out else "train"
            added = campaigns.add_prompts(db, campaign, [(line, split) for line in _text(prompts).splitlines()])
            done.append(f"prompts: {added} new")
    click.echo("\n".join(done) or "Nothing changed.")


@command.command()
@click.argument("slug")
def pause(slug: str) -> None:
    """Let nobody work in the campaign for now; what people have begun stays.

    \b
    Example:
      whetstone campaign pause red-team
    """
    _status(slug, "paused")


@command.command("open")
@click.argument("slug")
def open_(slug: str) -> None:
    """Let people work in the campaign.

    \b
    Example:
      whetstone campaign open red-team
    """
    _status(slug, "open")


def _status(slug: str, status: str) -> None:
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        campaign = campaigns.find_campaign(db, slug)
        campaigns.update_campaign(db, campaign, None, status=status)
        way = campaign.way
        unserved = way in ("chat", "ranking") and deployments.current(db, campaign) is None
    click.echo(f"{slug} is {status}.")
    if status == "open" and unserved:
        there = "nobody can work there yet" if way == "chat" else "only items that you add can be ranked"
        click.echo(f"No model serves it, so {there}: whetstone snapshot deploy NAME --campaign {slug}", err=True)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path} cannot be read as UTF-8 text ({error}).") from error
