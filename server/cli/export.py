"""`whetstone export`."""

from __future__ import annotations

import json
import shutil
from datetime import date, datetime
from pathlib import Path

import click

from server.cli.connection import connected
from server.cli.following import perform
from server.db import session_factory
from server.models.campaigns import MODES, PURPOSES
from server.services import jobs
from server.services.data.selection import SOURCES
from server.settings import Settings


def _day(at: datetime | None) -> date | None:
    return at.date() if at else None


@click.command()
@click.option("--format", "format_", type=click.Choice(jobs.EXPORT_FORMATS), default="hh", show_default=True)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="File to write; ending in .gz it is compressed."
)
@click.option("--campaign", metavar="SLUG", help="Only this campaign.")
@click.option("--mode", type=click.Choice(MODES))
@click.option("--round", "round_number", type=click.IntRange(1), help="Only what this round's policy was serving.")
@click.option("--source", type=click.Choice(SOURCES), help="Only what was compared here (chat) or imported.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="First UTC day.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Last UTC day.")
@click.option("--purpose", type=click.Choice((*PURPOSES, "all")), default="training", show_default=True)
@click.option("--simulated", is_flag=True, help="With the comparisons of the simulated crowd.")
@click.option("--test-share", default=0.0, help="Hold this share of the conversations out: --out becomes a folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as one JSON object.")
def command(
    format_: str,
    out: Path,
    campaign: str | None,
    mode: str | None,
    round_number: int | None,
    source: str | None,
    since: datetime | None,
    until: datetime | None,
    purpose: str,
    simulated: bool,
    test_share: float,
    as_json: bool,
) -> None:
    """Write comparisons, rankings, edits or demonstrations to a file, with a manifest beside it; people become stable pseudonyms.

    \b
    Example:
      whetstone export --format hh --campaign helpful --out helpful.jsonl.gz
      whetstone export --format rankings --out rankings.jsonl
      whetstone export --format trl-explicit --test-share 0.05 --out preferences/
    """
    with connected() as settings:
        with session_factory(str(settings.database_url)).begin() as db:
            # no task is sent: this command is the worker
            job = jobs.request_export(
                db,
                None,
                format_,
                campaign=campaign,
                mode=mode,
                round_number=round_number,
                since=_day(since),
                until=_day(until),
                source=source,
                purpose=None if purpose == "all" else purpose,
                simulated=simulated,
                compressed=out.suffix == ".gz",
                test_share=test_share,
                send=False,
            )
        manifest = perform(settings, job.id, quiet=as_json).result or {}
        written = _fetch(settings, job.id, [file["name"] for file in manifest["files"]], out)
    if as_json:
        click.echo(json.dumps({"job": job.id, "written": [str(path) for path in written], **manifest}))
        return
    click.echo(f"Wrote {manifest[manifest['of']]:,} {manifest['of']} to {', '.join(map(str, written))}.")
    if manifest["simulated_left_out"]:
        click.echo(f"Left out {manifest['simulated_left_out']:,} of the simulated crowd; --simulated includes them.")


def _fetch(settings: Settings, job_id: int, names: list[str], out: Path) -> list[Path]:
    """Copy the export's files to where the command was told; the manifest lies beside a single file."""
    folder = Path(settings.artifacts) / "exports" / str(job_id)
    try:
        if len(names) > 1 or out.is_dir():
            out.mkdir(parents=True, exist_ok=True)
            pairs = [(folder / name, out / name) for name in (*names, "manifest.json")]
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            pairs = [(folder / names[0], out), (folder / "manifest.json", out.with_name(f"{out.name}.manifest.json"))]
        for source, target in pairs:
            part = target.with_name(f".{target.name}.part")
            shutil.copyfile(source, part)
            part.replace(target)
    except OSError as error:
        raise click.ClickException(
            f"{error.filename or out}: {error.strerror}. The export itself is done: its files lie in {folder}."
        ) from error
    return [target for _, target in pairs[: len(names)]]
