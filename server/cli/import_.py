"""`whetstone import`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from server.cli.connection import connected
from server.cli.following import perform
from server.db import session_factory
from server.models.campaigns import MODES
from server.services import jobs


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--campaign", required=True, metavar="SLUG", help="The campaign that the comparisons join.")
@click.option("--format", "format_", type=click.Choice(jobs.IMPORT_FORMATS), default="auto", show_default=True)
@click.option("--mode", type=click.Choice(MODES), help="Mode of lines that name none (default: the campaign's).")
@click.option("--skip-bad", is_flag=True, help="Leave bad lines out and list them, instead of importing nothing.")
@click.option("--again", is_flag=True, help="Import even if this file is in the campaign already.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    file: Path, campaign: str, format_: str, mode: str | None, skip_bad: bool, again: bool, as_json: bool
) -> None:
    """Bring comparisons from FILE (JSON lines, plain or .gz) into a campaign.

    hh-rlhf, TRL preference records (implicit or explicit prompt, plain or conversational) and our own export are read. A
    bad line is named with its number and reason, and then nothing at all is imported.

    \b
    Example:
      whetstone import harmless-base.jsonl.gz --campaign helpful
    """
    with connected() as settings:
        with session_factory(str(settings.database_url)).begin() as db:
            # no task is sent: this command is the worker
            job = jobs.request_import(
                db, None, file, campaign, format_, mode, again=again, skip_bad=skip_bad, send=False
            )
        result = perform(settings, job.id, quiet=as_json).result or {}
    if as_json:
        click.echo(json.dumps({"job": job.id, "campaign": campaign, **result}))
        return
    click.echo(f"Imported {result['comparisons']:,} comparisons of {result['lines']:,} lines into {campaign}.")
    if result["bad_lines"]:
        click.echo(f"Left out {result['bad_lines']:,} bad lines:")
        for bad in result["bad"]:
            click.echo(f"  line {bad['line']}: {bad['reason']}")
