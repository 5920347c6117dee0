"""`whetstone items`."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import click

from server.cli.connection import connected
from server.db import session_factory
from server.errors import BadInput
from server.services.campaigns.campaigns import find_campaign
from server.services.items import demonstration_pairs, item_lines, items, kept
from server.services.people import roster
from server.transaction import transaction_of


@click.group()
def command() -> None:
    """Texts for people to compare or rank, and messages for them to answer.

    \b
    Example:
      whetstone items add pairs.jsonl --campaign pairs
    """


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--campaign",
    "slug",
    required=True,
    metavar="SLUG",
    help="A campaign of the way `pairs`, `ranking` or `demonstration`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def add(file: Path, slug: str, as_json: bool) -> None:
    """Put the items of FILE (.jsonl or .jsonl.gz) into a campaign's queue; those that are there are passed over.

    A line is {"prompt": text or messages, "a": text, "b": text} to compare, {"prompt": …, "replies": [texts]} to rank, or
    {"prompt": …} alone to be answered. With "expected": {"picked": 0 or 1}, or for a ranking {"above": [[0, 2], …]} (the first
    of each two must stand above the second), it is a gold item. With "for": ["ann@example.org", 7] it goes to these people alone.

    \b
    Example:
      whetstone items add pairs.jsonl --campaign pairs
    """
    given = item_lines.read(_lines(file))
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        campaign = find_campaign(db, slug)
        added = items.add_items(db, campaign, given)
        unmet = any(each.expected for each in given) and not campaign.check_rate and not campaign.screening_items
    counts = {"lines": len(given), "added": added, "already_there": len(given) - added}
    click.echo(json.dumps(counts) if as_json else f"Added {added:,} of {len(given):,} items to {slug}.")
    if unmet:
        click.echo(
            "Some are gold items, and the campaign's share of checks is 0, so nobody meets them: "
            f"whetstone campaign edit {slug} --set check_rate=0.1",
            err=True,
        )


@command.command("from-demonstrations")
@click.argument("source", metavar="SLUG")
@click.option("--campaign", "slug", required=True, metavar="SLUG", help="A campaign of the way `pairs` for evaluation.")
@click.option(
    "--count", type=click.IntRange(1, demonstration_pairs.MOST), default=100, show_default=True, help="At most."
)
def from_demonstrations(source: str, slug: str, count: int) -> None:
    """Pair what people wrote in the campaign SLUG with replies of the model that serves another, to be compared blind.

    \b
    Example:
      whetstone items from-demonstrations write --campaign blind
    """
    with connected() as settings, transaction_of(settings) as db:
        added = demonstration_pairs.make(db, find_campaign(db, slug), find_campaign(db, source), count=count)
    click.echo(f"Paired {added:,} demonstrations of {source} in {slug}; the model's replies are being written.")


@command.command("hand-over")
@click.argument("slug")
@click.option("--from", "of", required=True, metavar="WHO", help="A number, e-mail address or name.")
@click.option("--to", required=True, metavar="WHO", help="Likewise, or `everybody`.")
def hand_over(slug: str, of: str, to: str) -> None:
    """Give the items that wait for one named person to another, or to everybody; what is in hand just now stays.

    \b
    Example:
      whetstone items hand-over pairs --from ann@example.org --to everybody
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        person = roster.one(db, of)
        count = kept.hand_over(db, find_campaign(db, slug), person, to)
        name = person.name
    click.echo(f"{count:,} items of {name} in {slug} are handed over.")


@command.command()
@click.argument("slug")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def show(slug: str, as_json: bool) -> None:
    """Say how far the items of a campaign are.

    \b
    Example:
      whetstone items show pairs
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        campaign = find_campaign(db, slug)
        found = items.standing(db, campaign)
        waiting = [
            {
                "person": line.person.id,
                "name": line.person.name,
                "items": line.items,
                "passed": line.passed,
                "away": line.away,
            }
            for line in kept.waiting(db, campaign)
        ]
    if as_json:
        click.echo(json.dumps(found.__dict__ | {"kept_for": waiting}))
        return
    click.echo(f"{found.items:,} items, {found.answered:,} with all their answers; {found.answers:,} answers in all.")
    click.echo(f"Checks: {found.checks:,}.")
    for line in waiting:
        told = f", {line['passed']:,} passed over" if line["passed"] else ""
        told += f"; {line['name']} {line['away']}" if line["away"] else ""
        click.echo(f"{line['items']:,} wait for {line['name']}{told}.")


def _lines(file: Path) -> list[str]:
    # Not splitlines: a text may hold U+2028 or U+0085, which end no line of JSON.
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as lines of UTF-8 ({error}).") from error
