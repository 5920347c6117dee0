"""`whetstone simulate`: a simulated crowd on the running server, over HTTP like everybody else."""

import json
import subprocess
import sys

import click

from server.cli.connection import connected
from server.services.simulated import crowd_sessions
from server.transaction import transaction_of


def shares(given: tuple[str, ...]) -> dict[str, float] | None:
    """`slug` or `slug:share`, each once; none at all means every open campaign, evenly."""
    found: dict[str, float] = {}
    for text in given:
        slug, _, share = text.partition(":")
        try:
            found[slug] = float(share or 1)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not SLUG or SLUG:SHARE", param_hint="--campaign") from None
    return found or None


@click.command()
@click.option("--people", default=12, show_default=True, type=click.IntRange(1, 500), help="How many work at once.")
@click.option("--comparisons", default=100, show_default=True, type=click.IntRange(1), help="How many in all.")
@click.option(
    "--campaign", "campaigns", multiple=True, metavar="SLUG[:SHARE]", help="Where they work; default: every open one."
)
@click.option("--seed", default=0, show_default=True, help="Decides who they are and what they choose.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context, people: int, comparisons: int, campaigns: tuple[str, ...], seed: int, as_json: bool
) -> None:
    """Let simulated people compare replies on the server that runs now.

    They are marked as simulated, hear a hidden judge through noise and biases of their own, and use the same
    addresses, queues and leases as people in a browser.

    \b
    Example:
      whetstone simulate --people 12 --comparisons 300
      whetstone simulate --campaign helpful:3 --campaign red-team:1 --json
    """
    with connected() as settings:
        with transaction_of(settings) as db:
            sessions = crowd_sessions(db, people)
        job = {
            "base_url": f"http://{settings.host}:{settings.port}",
            "people": sessions,
            "comparisons": comparisons,
            "campaigns": shares(campaigns),
            "seed": seed,
        }
        worked = subprocess.run(
            [sys.executable, "-m", "simulation.crowd"],
            input=json.dumps(job),
            text=True,
            stdout=subprocess.PIPE,
            check=False,
        )
    if worked.returncode:
        ctx.exit(1)
    summary = json.loads(worked.stdout)
    if as_json:
        click.echo(worked.stdout.strip())
    else:
        click.echo(f"{summary['comparisons']} comparisons by {summary['people']} people in {summary['seconds']:.0f} s.")
