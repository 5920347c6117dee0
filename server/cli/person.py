"""`whetstone person`: accounts, roles, invitations."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from server.cli.connection import connected
from server.db import session_factory
from server.models.people import ROLES
from server.services import audit
from server.services.door import members
from server.services.people import invitations, people, roster

_ROLE = click.option(
    "--role", "roles", multiple=True, type=click.Choice(ROLES), default=("crowdworker",), show_default=True,
    help="Can be given several times.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """Accounts, roles and invitations.

    \b
    Example:
      whetstone person invite --role crowdworker --uses 20
    """


@command.command()
@click.argument("name")
@_ROLE
@click.option("--email", help="Needed to sign in with a password.")
@click.option("--password", help="Better not given here: without it, and with --email, you are asked.")
@_JSON
def add(name: str, roles: tuple[str, ...], email: str | None, password: str | None, as_json: bool) -> None:
    """Make an account.

    \b
    Example:
      whetstone person add "Ada Lovelace" --role admin --email ada@example.org
    """
    if email and password is None:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        person = people.create_person(db, name, roles, email=email, password=password)
        audit.record(db, None, "person.create", "person", person.id, roles=list(person.roles))
    if as_json:
        click.echo(json.dumps({"id": person.id, "name": person.name, "roles": person.roles, "email": person.email}))
    else:
        click.echo(f"{person.name} is person {person.id}: {', '.join(person.roles)}.")


@command.command("list")
@click.option("--search", default="", help="Letters of a name or e-mail address.")
@_JSON
def list_(search: str, as_json: bool) -> None:
    """Show everyone, newest first.

    \b
    Example:
      whetstone person list --json
    """
    members: list[roster.Member] = []
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        before: int | None = None
        while True:
            page, before = roster.list_people(db, search, before)
            members += page
            if before is None:
                break
    if as_json:
        rows = [
            {
                "id": member.person.id,
                "name": member.person.name,
                "email": member.person.email,
                "roles": member.person.roles,
                "simulated": member.person.simulated,
                "disabled": member.person.disabled_at is not None,
                "answers": member.answers,
            }
            for member in members
        ]
        click.echo(json.dumps(rows))
        return
    table = Table("Id", "Name", "E-mail", "Roles", "Answers", "")
    for member in members:
        person = member.person
        state = "disabled" if person.disabled_at else "simulated" if person.simulated else ""
        table.add_row(
            str(person.id), person.name, person.email or "", ", ".join(person.roles), f"{member.answers:,}", state
        )
    Console(width=None if Console().is_terminal else 160).print(table)


@command.command()
@_ROLE
@click.option("--uses", default=1, show_default=True, help="How many people may use the link.")
@click.option("--days", default=14, show_default=True, help="How long it is valid.")
@click.option("--note", default="", help="For yourself: whom it is for.")
@_JSON
def invite(roles: tuple[str, ...], uses: int, days: int, note: str, as_json: bool) -> None:
    """Make a link that lets people make an account; it is shown only now.

    \b
    Example:
      whetstone person invite --role researcher
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        made, token = invitations.make_invitation(db, roles, note=note, max_uses=uses, days=days)
        audit.record(db, None, "invitation.create", "invitation", made.id, roles=made.roles, max_uses=uses)
        link = f"{settings.public_url}/invitation/{token}"
    click.echo(json.dumps({"id": made.id, "link": link, "roles": made.roles}) if as_json else link)


@command.command()
@click.argument("person")
@click.option("--undo", is_flag=True, help="Let the person in again.")
def disable(person: str, undo: bool) -> None:
    """Close an account: signed out everywhere, its work stays.

    \b
    Example:
      whetstone person disable mallory@example.org
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        found = roster.one(db, person)
        if undo:
            people.enable_person(found)
        else:
            people.disable_person(db, found)
        audit.record(db, None, "person.enable" if undo else "person.disable", "person", found.id)
    click.echo(f"{found.name} can sign in again." if undo else f"{found.name} is signed out and cannot sign in.")


@command.command()
@click.argument("person")
@click.password_option(help="Better not given here: without it you are asked.")
def password(person: str, password: str) -> None:
    """Give PERSON, who forgot it, another password; every browser has to sign in again.

    \b
    Example:
      whetstone person password ada@example.org
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        found = roster.one(db, person)
        people.set_password(db, found, password)
        audit.record(db, None, "person.password", "person", found.id)
    click.echo(f"{found.name} has another password and is signed out everywhere.")


@command.command()
@click.argument("person")
@click.option("--minutes", default=60, show_default=True, help="How long the link is valid.")
def link(person: str, minutes: int) -> None:
    """Make a link that signs PERSON in with one click, once; only in a demo (WHETSTONE_DEMO=1).

    \b
    Example:
      WHETSTONE_DEMO=1 whetstone person link "Alex Admin"
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        found = roster.one(db, person)
        token = people.make_sign_in_link(db, settings, found, minutes=minutes)
        audit.record(db, None, "person.link", "person", found.id, minutes=minutes)
    click.echo(f"{settings.public_url}/sign-in/{token}")


@command.command("hold-out")
@click.argument("who")
@click.option("--no", "back", is_flag=True, help="Take them out of the pool again.")
def hold_out(who: str, back: bool) -> None:
    """Put somebody into the held-out pool: what they answer from now on only measures, wherever they give it.

    \b
    Example:
      whetstone person hold-out ada@example.org
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        person = members.hold_out(db, None, roster.one(db, who).id, held_out=not back)
    click.echo(f"{person.name} is {'in' if person.held_out else 'not in'} the held-out pool.")
