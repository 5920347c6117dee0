"""`whetstone pay`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from server.cli.connection import connected
from server.db import session_factory
from server.errors import BadInput
from server.services.pay import ledger, payrolls


@click.group()
def command() -> None:
    """What is owed, and payrolls.

    \b
    Example:
      whetstone pay show
      whetstone pay export --currency USD --out may.csv
    """


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(as_json: bool) -> None:
    """Say what the ledger comes to, and list the newest payrolls.

    \b
    Example:
      whetstone pay show
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        sums, made = ledger.sums(db, ledger.Wanted()), payrolls.newest(db)
    if as_json:
        owed = [vars(each) | {"amount": str(each.amount)} for each in sums]
        paid = [
            {"payroll": each.id, "currency": each.currency, "entries": each.entries, "total": str(each.total),
             "made_at": each.created_at.isoformat()}
            for each in made
        ]  # fmt: skip
        click.echo(json.dumps({"ledger": owed, "payrolls": paid}))
        return
    for each in sums:
        click.echo(f"{each.status:9} {each.amount:>14,} {each.currency}  {each.entries:,} entries")
    for payroll in made:
        click.echo(
            f"payroll {payroll.id}: {payroll.total:,} {payroll.currency}, {payroll.entries:,} entries, "
            f"{payroll.created_at:%Y-%m-%d %H:%M} UTC"
        )
    if not sums:
        click.echo("Nothing is owed: no session has ended in a campaign that pays.")


@command.command()
@click.option("--currency", metavar="CODE", help="Make a payroll of what is approved in this currency.")
@click.option("--since", default="", metavar="DAY", help="Entered from this day on (UTC).")
@click.option("--until", default="", metavar="DAY", help="Entered to this day, which is included.")
@click.option(
    "--payroll", "number", type=click.IntRange(1, 2**63 - 1), help="Write the file of an earlier payroll again."
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The CSV file to write.")
def export(currency: str | None, since: str, until: str, number: int | None, out: Path) -> None:
    """Mark what is approved as paid and write it to a file, in one step; or write an earlier payroll again.

    \b
    Example:
      whetstone pay export --currency USD --since 2026-05-01 --until 2026-05-31 --out may.csv
      whetstone pay export --payroll 7 --out again.csv
    """
    if (currency is None) == (number is None):
        raise BadInput("Say --currency for a new payroll, or --payroll for an earlier one.")
    with connected() as settings:
        sessions = session_factory(str(settings.database_url))
        if currency is not None:
            # Committed before the file is written: a full disk must not leave a file of what was not paid.
            with sessions.begin() as db:
                number = payrolls.make(db, None, currency, *payrolls.period(since, until)).id
        assert number is not None
        with sessions() as db:
            found = payrolls.find(db, number)
            try:
                with out.open("w", encoding="utf-8", newline="") as file:
                    file.writelines(payrolls.as_csv(db, found))
            except OSError as error:
                raise BadInput(
                    f"{out} cannot be written ({error}). The payroll is kept: `whetstone pay export --payroll {number} "
                    "--out FILE` writes it."
                ) from error
    click.echo(f"Payroll {found.id}: {found.entries:,} entries, {found.total:,} {found.currency}, in {out}.")
