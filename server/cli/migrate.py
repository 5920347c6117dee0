"""`whetstone migrate`."""

import json

import click

from server import migrate
from server.cli.connection import connected
from server.revision import revisions


@click.command()
@click.option(
    "--check", is_flag=True, help="Change nothing; exit with 1 unless the database is at the newest revision."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, check: bool, as_json: bool) -> None:
    """Bring the database to this version's tables; safe to call again and from several machines.

    \b
    Example:
      whetstone migrate
      DATABASE_URL=postgresql://me@db/whetstone REDIS_URL=redis://db WHETSTONE_SECRET=... whetstone migrate --check
    """
    with connected() as settings:
        assert settings.database_url is not None, "connected() gives addresses"
        before, newest = revisions(settings.database_url)
        if not check and before != newest:
            migrate.upgrade(settings.database_url)
        now, _ = revisions(settings.database_url)
    if as_json:
        click.echo(json.dumps({"before": before, "revision": now, "newest": newest}))
    elif now == newest:
        click.echo(f"The database is at revision {now}" + ("." if before == now else f" (was {before or 'empty'})."))
    else:
        click.echo(f"The database is at {now or 'no revision'}, this version needs {newest}; run: whetstone migrate")
    ctx.exit(0 if now == newest else 1)
