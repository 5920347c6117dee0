"""`whetstone round`: start, watch, retry, release and cancel rounds; the schedule."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.orm import Session

from server.cli.connection import connected
from server.models import Round
from server.routes.round_json import round_json, schedule_json
from server.services.rounds import outlook, rounds, schedules
from server.services.rounds.round_settings import parse_assignments
from server.settings import Settings
from server.transaction import transaction_of

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 20.0  # after which a step that nobody takes is worth a word
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NUMBER = click.argument("number", type=click.IntRange(min=1))


@click.group()
def command() -> None:
    """Rounds: a preference model and a policy from all comparisons so far, checked, then deployed.

    \b
    Example:
      whetstone round start --wait
    """


@command.command()
@click.option("--wait", is_flag=True, help="Follow it to its end; exit with 1 unless it is done.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A setting of this round; repeatable.")
@_JSON
@click.pass_context
def start(ctx: click.Context, wait: bool, assignments: tuple[str, ...], as_json: bool) -> None:
    """Start a round now.

    \b
    Example:
      whetstone round start --wait --set policy.episodes=500 --set gates.win_rate=0.55
    """
    wanted = parse_assignments(list(assignments))
    with connected() as settings:
        with _db(settings) as db:
            row = rounds.start(db, trigger="command", settings=wanted)
            found = round_json(db, row)
        if wait:
            found = _follow(settings, row.id)
    _tell(found, as_json=as_json)
    ctx.exit(1 if wait and found["status"] != "done" else 0)


@command.command("list")
@_JSON
def list_rounds(as_json: bool) -> None:
    """All rounds, newest first, and what the next one would learn from.

    \b
    Example:
      whetstone round list
    """
    with connected() as settings, _db(settings) as db:
        found = [round_json(db, row) for row in rounds.newest_rounds(db, limit=1000)]
        now = outlook.outlook(db)
    if as_json:
        click.echo(json.dumps({"rounds": found, "next": {"usable": now.usable, "new": now.new}}))
        return
    table = Table("round", "status", "comparisons", "PM accuracy", "KL", "win rate", "seconds", "started")
    for row in found:
        version, accuracy = row["dataset_version"], row["pm_result"].get("accuracy")
        kl, wins = row["policy_result"].get("kl"), row["policy_result"].get("win_rate")
        table.add_row(
            str(row["number"]), row["status"], str(version["counts"]["pairs"]) if version else "-",
            _percent(accuracy), "-" if kl is None else f"{kl:.1f}", _percent(wins),
            "-" if row["seconds"] is None else f"{row['seconds']:.0f}", str(row["created_at"])[:16].replace("T", " "),
        )  # fmt: skip
    Console(width=None if Console().is_terminal else 160).print(table)
    click.echo(f"The next would learn from {now.usable} usable comparisons, {now.new} of them new.")


@command.command()
@_NUMBER
@_JSON
def show(number: int, as_json: bool) -> None:
    """One round with its steps and gates.

    \b
    Example:
      whetstone round show 3
    """
    with connected() as settings, _db(settings) as db:
        found = round_json(db, rounds.find_number(db, number))
    _tell(found, as_json=as_json)


@command.command()
@_NUMBER
@click.option("--wait", is_flag=True, help="Follow it to its end; exit with 1 unless it is done.")
@_JSON
@click.pass_context
def retry(ctx: click.Context, number: int, wait: bool, as_json: bool) -> None:
    """Try a failed round again from the step that failed.

    \b
    Example:
      whetstone round retry 3 --wait
    """
    _change(ctx, number, wait, as_json, lambda db, row: rounds.retry(db, row, None))


@command.command()
@_NUMBER
@click.option("--reason", required=True, help="Why it may go on; for the audit log.")
@click.option("--wait", is_flag=True, help="Follow it to its end; exit with 1 unless it is done.")
@_JSON
@click.pass_context
def release(ctx: click.Context, number: int, reason: str, wait: bool, as_json: bool) -> None:
    """Let a held round go on although a check was not passed.

    \b
    Example:
      whetstone round release 3 --reason "read fifty replies, they are fine"
    """
    _change(ctx, number, wait, as_json, lambda db, row: rounds.release(db, row, None, reason))


@command.command()
@_NUMBER
@_JSON
@click.pass_context
def cancel(ctx: click.Context, number: int, as_json: bool) -> None:
    """Stop a round for good; its worker ends the job within seconds.

    \b
    Example:
      whetstone round cancel 3
    """
    _change(ctx, number, False, as_json, lambda db, row: rounds.cancel(db, row, None))


@command.command()
@click.option("--cron", help="Minute, hour, day of month, month, day of week.")
@click.option("--time-zone", help="Such as Europe/Berlin.")
@click.option("--minimum", type=click.IntRange(min=0), help="Only with so many new usable comparisons.")
@click.option("--on/--off", "enabled", default=None, help="Switch it on or off.")
@_JSON
def schedule(cron: str | None, time_zone: str | None, minimum: int | None, enabled: bool | None, as_json: bool) -> None:
    """Show when rounds start by themselves, or change it.

    \b
    Example:
      whetstone round schedule --cron "0 3 * * 1" --time-zone Europe/Berlin --minimum 500
    """
    with connected() as settings, _db(settings) as db:
        rows = schedules.all_schedules(db)
        if (cron, time_zone, minimum, enabled) != (None, None, None, None):
            old = rows[0] if rows else None
            changed = schedules.save_schedule(
                db, None,
                cron=cron or (old.cron if old else schedules.DEFAULT_CRON),
                time_zone=time_zone or (old.time_zone if old else "UTC"),
                minimum=minimum if minimum is not None
                else (old.minimum_new_comparisons if old else schedules.DEFAULT_MINIMUM),
                enabled=enabled if enabled is not None else (old.enabled if old else True),
                schedule_id=old.id if old else None,
            )  # fmt: skip
            rows = [changed, *rows[1:]]
        found = [schedule_json(row) for row in rows]
    if as_json:
        click.echo(json.dumps({"schedules": found}))
    elif not found:
        click.echo("No round starts by itself; set one with --cron.")
    for row in [] if as_json else found:
        state = f"next at {row['next_at']}" if row["enabled"] else "off"
        click.echo(
            f"{row['cron']} ({row['time_zone']}), with {row['minimum_new_comparisons']} new comparisons or more: {state}."
            + (f" Last: {row['last_outcome']}" if row["last_outcome"] else "")
        )


def _db(settings: Settings) -> Any:
    return transaction_of(settings)


def _change(ctx: click.Context, number: int, wait: bool, as_json: bool, change: Any) -> None:
    with connected() as settings:
        with _db(settings) as db:
            row: Round = rounds.find_number(db, number)
            change(db, row)
            db.flush()
            found = round_json(db, row)
        if wait:
            found = _follow(settings, row.id)
    _tell(found, as_json=as_json)
    ctx.exit(1 if wait and found["status"] != "done" else 0)


def _follow(settings: Settings, round_id: int) -> dict[str, Any]:
    """Show each step's progress until the round is over or held."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    bars: dict[str, TaskID] = {}
    since, warned = time.monotonic(), False
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        while True:
            with _db(settings) as db:
                found = _read(db, round_id)
            for step in found["steps"]:
                if step["status"] != "waiting":
                    _draw(progress, bars, step)
            if any(step["status"] in ("running", "done") for step in found["steps"]):
                since = time.monotonic()
            elif not warned and time.monotonic() - since > PATIENCE_SECONDS:
                console.print("No training worker has taken the round yet. Is `whetstone up` running on this home?")
                warned = True
            if found["status"] not in ("queued", "running"):
                return found
            time.sleep(POLL_SECONDS)


def _read(db: Session, round_id: int) -> dict[str, Any]:
    return round_json(db, rounds.find_round(db, round_id))


def _draw(progress: Progress, bars: dict[str, TaskID], step: dict[str, Any]) -> None:
    name, told = step["name"], step["progress"]
    if name not in bars:
        bars[name] = progress.add_task(name.replace("_", " "), total=None, note="")
    if step["status"] == "done":
        progress.update(bars[name], total=1, completed=1, note="done")
        progress.stop_task(bars[name])
    else:
        of = told.get("of")
        note = f"{told.get('step', 0)} of {of}" if of else step["status"]
        progress.update(bars[name], total=of, completed=told.get("step", 0), note=note)


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"Round {found['number']} is {found['status']}.")
    for step in found["steps"]:
        if step["status"] == "waiting":
            continue
        took = "" if step["seconds"] is None else f" in {step['seconds']:.0f} s"
        click.echo(f"  {step['name']:<14} {step['status']}{took}")
        for gate in step["gates"].values():
            value = "not known" if gate["value"] is None else f"{gate['value']:.3g}"
            word = "passed" if gate["passed"] else "NOT PASSED"
            click.echo(f"    {word:<10} {gate['label']}: {value}, wanted {gate['rule']} {gate['threshold']:g}")
        if step["failure"]:
            click.echo(f"    {step['failure']}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
