"""`whetstone panel`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import click
from sqlalchemy import select

from server.cli.connection import connected
from server.db import session_factory
from server.errors import BadInput
from server.models import Panel
from server.services.panels import panel_roster, panel_settings, prolific

TOKEN = "PROLIFIC_TOKEN"


@click.group()
def command() -> None:
    """Studies at panels: list them, and connect one to Prolific's messages.

    \b
    Example:
      whetstone panel list
      PROLIFIC_TOKEN=… whetstone panel connect may --workspace 63722982f9cc073ecc730f6b
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_panels(as_json: bool) -> None:
    """List the studies with their submissions by status.

    \b
    Example:
      whetstone panel list
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        found = [(each, panel_roster.counts(db, each.panel)) for each in panel_settings.listed(db)]
    for each, counts in found:
        panel = each.panel
        if as_json:
            told = {
                "panel": panel.slug, "name": panel.name, "kind": panel.kind, "campaign": each.campaign.slug,
                "closed": panel.closed_at is not None, "submissions": counts, "finished": each.finished,
            }  # fmt: skip
            click.echo(json.dumps(told))
        else:
            stand = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items())
            click.echo(f"{panel.slug:24} {panel.kind:9} {each.campaign.slug:24} {stand or 'nobody yet'}")
    if not found and not as_json:
        click.echo("There is no study yet; make one on the page Panels.")


@command.command()
@click.argument("slug")
@click.option("--workspace", required=True, metavar="ID", help="The number of the workspace at Prolific.")
@click.option("--new-secret", is_flag=True, help="Make a new secret, for all studies of the workspace.")
def connect(slug: str, workspace: str, new_secret: bool) -> None:
    """Let Prolific tell this site of every change of a submission: secret, subscription, confirmation.

    The token of the API is read from PROLIFIC_TOKEN, used for this and kept nowhere. Again is no harm.

    \b
    Example:
      PROLIFIC_TOKEN=… whetstone panel connect may --workspace 63722982f9cc073ecc730f6b
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise BadInput(f"Set {TOKEN} to a token of Prolific's API (there: Settings, API tokens).")
    with connected() as settings:
        if not settings.cookie_secure:
            raise BadInput(
                f"Prolific sends to https addresses alone and this site is {settings.public_url}; see WHETSTONE_PUBLIC_URL."
            )
        sessions = session_factory(str(settings.database_url))
        there = prolific.Prolific(token, workspace, prolific.API)
        with sessions() as db:
            secret = None if new_secret else _known_secret(db.scalars(select(Panel)).all(), workspace)
            if panel_settings.find(db, slug).kind != "prolific":
                raise BadInput(f"The study {slug!r} is of another panel than Prolific.")
        made = secret or there.new_secret()
        with sessions.begin() as db:  # before subscribing: the first message may come at once
            for panel in db.scalars(select(Panel)).all():
                of_workspace = panel.settings.get("workspace") == workspace
                if panel.slug == slug or of_workspace:
                    panel.settings = panel.settings | {"workspace": workspace}
                    if panel.webhook_secret != made:
                        panel_settings.set_secret(db, None, panel, made)
        address = f"{settings.public_url}/panel/{slug}/webhook"
        number = there.subscribe(address)
    click.echo(f"Prolific tells {address} of every submission (subscription {number}).")


def _known_secret(panels: Sequence[Panel], workspace: str) -> str | None:
    """The secret that a study of the workspace has here."""
    known = [each.webhook_secret for each in panels if each.settings.get("workspace") == workspace]
    return next((secret for secret in known if secret), None)
