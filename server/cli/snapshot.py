"""`whetstone snapshot`: add, list, check and deploy models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.cli import fetching
from server.cli.connection import connected
from server.db import session_factory
from server.errors import BadInput
from server.models import Campaign, Deployment, DeploymentShare, Snapshot
from server.services.campaigns.campaigns import find_campaign
from server.services.snapshots import best_of, deployments, registry
from server.settings import Settings

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_CAMPAIGN = click.option("--campaign", "slug", required=True, metavar="SLUG", help="The campaign to change.")


@click.group()
def command() -> None:
    """Models that answer people, and which campaign each serves.

    \b
    Example:
      whetstone snapshot list
    """


@command.command()
@click.argument("source", required=False, metavar="[DIR-OR-HUB-ID]")
@click.option("--name", required=True, help="What it is called here.")
@click.option(
    "--copy", is_flag=True, help="Copy the directory to the artifacts; without, it is served from where it lies."
)
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option(
    "--endpoint", metavar="URL", help="An OpenAI-compatible server instead of files, such as http://gpu:8000/v1."
)
@click.option("--model", help="The model's name on that server.")
@click.option("--api-key-variable", metavar="NAME", help="Environment variable of the reply worker that holds the key.")
@click.option("--probe/--no-probe", default=True, show_default=True, help="Ask the endpoint what it can.")
@click.option("--no-stream", is_flag=True, help="The endpoint cannot stream (only needed with --no-probe).")
@_JSON
def add(
    source: str | None,
    name: str,
    copy: bool,
    revision: str | None,
    endpoint: str | None,
    model: str | None,
    api_key_variable: str | None,
    probe: bool,
    no_stream: bool,
    as_json: bool,
) -> None:
    """Register a model: a directory, a model of the Hugging Face hub, or an OpenAI-compatible endpoint.

    A directory must hold safetensors, a tokenizer with a chat template, and a pad token that is not the end token. A
    preference model that `whetstone train preference` wrote is registered as one. The key of an endpoint is read from the
    reply worker's environment and never stored.

    \b
    Example:
      whetstone snapshot add models/mine --name mine --copy
      whetstone snapshot add Qwen/Qwen2.5-0.5B-Instruct --name qwen
      whetstone snapshot add --endpoint http://gpu:8000/v1 --model big --api-key-variable VLLM_KEY --name big
    """
    if (source is None) == (endpoint is None):
        raise click.UsageError("Give a directory or hub id, or --endpoint with --model.")
    with connected() as settings:
        if endpoint is not None:
            asked = {"base_url": endpoint, "model": model or ""}
            described = registry.checked_endpoint(
                asked | ({"api_key_variable": api_key_variable} if api_key_variable else {})
            )
            described = fetching.probe(described) if probe else described | {"streams": not no_stream}
            with session_factory(str(settings.database_url)).begin() as db:
                snapshot = registry.register_policy(db, name=name, origin="registered", endpoint=described)
        else:
            assert source is not None
            snapshot = _add_files(settings, source, name, revision, copy=copy)
    told = {"name": snapshot.name, "id": snapshot.id, "path": snapshot.path, "endpoint": snapshot.endpoint}
    then = f"deploy {name} --campaign SLUG"
    if snapshot.kind == "pm":
        then = f"best-of NEW-NAME --policy POLICY --preference-model {name}"
    click.echo(json.dumps(told) if as_json else f"Added {name}. Next: whetstone snapshot {then}")


def _add_files(settings: Settings, source: str, name: str, revision: str | None, *, copy: bool) -> Snapshot:
    sessions = session_factory(str(settings.database_url))
    with sessions() as db:  # before gigabytes are moved
        registry.check_name(db, name)
    folder = Path(source).expanduser()
    if folder.is_dir() and not copy:
        folder = folder.resolve()
        kind = fetching.check(folder)["kind"]
        path, moved = str(folder), False
    else:
        path, moved = f"snapshots/{name}", True
        folder = Path(settings.artifacts) / path
        kind = fetching.place(source, folder, revision)["kind"]
    try:
        with sessions.begin() as db:
            came_from = {"source": source} | ({"revision": revision} if revision else {})
            manifest = registry.folder_manifest(folder, kind, **came_from)
            return registry.register_policy(db, name=name, origin="registered", path=path, manifest=manifest, kind=kind)
    except BaseException:
        if moved:
            shutil.rmtree(folder)
        raise


@command.command("best-of")
@click.argument("name")
@click.option("--policy", required=True, metavar="NAME", help="The local policy that writes the replies.")
@click.option("--preference-model", required=True, metavar="NAME", help="The preference model that scores them.")
@click.option("--k", default=best_of.K_USUAL, show_default=True, help="Replies to choose from, 2 to 64.")
@_JSON
def best_of_(name: str, policy: str, preference_model: str, k: int, as_json: bool) -> None:
    """Make a snapshot that answers with the best of k replies of a policy (rejection sampling).

    Each of its replies costs k replies of the policy, and is shown when it is whole.

    \b
    Example:
      whetstone snapshot best-of helpful-16 --policy round-1-policy --preference-model round-1-pm --k 16
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        writes, scores = registry.find_snapshot(db, policy), registry.find_snapshot(db, preference_model)
        made = best_of.register_best_of(db, name=name, policy=writes, preference_model=scores, k=k)
        told = {"name": name, "id": made.id, "draws_from": policy, "scored_by": preference_model, "k": k}
    click.echo(json.dumps(told) if as_json else f"Made {name}. Next: whetstone snapshot deploy {name} --campaign SLUG")


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show all snapshots and what each serves.

    \b
    Example:
      whetstone snapshot list --json
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        found = [_described(db, snapshot) for snapshot in registry.snapshots(db)]
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("Name", "Kind", "Origin", "Where", "Made", "Serves")
    for one in found:
        where = one["endpoint"]["base_url"] if one["endpoint"] else one["path"]
        if one["k"]:
            where = f"best of {one['k']} of {one['draws_from']} by {one['scored_by']}"
        serves = ", ".join(f"{slug} ({share:.0%})" for slug, share in one["serves"].items())
        table.add_row(one["name"], one["kind"], one["origin"], where, one["created_at"][:16], serves)
    Console(width=None if Console().is_terminal else 160).print(table)


def _described(db: Session, snapshot: Snapshot) -> dict[str, Any]:
    parent = db.get(Snapshot, snapshot.parent_id) if snapshot.parent_id else None
    return {
        "name": snapshot.name,
        "kind": snapshot.kind,
        "backend": snapshot.backend,
        "origin": snapshot.origin,
        "path": snapshot.path,
        "endpoint": snapshot.endpoint,
        "draws_from": snapshot.draws_from.name if snapshot.draws_from else None,
        "scored_by": snapshot.scored_by.name if snapshot.scored_by else None,
        "k": snapshot.k,
        "parent": parent.name if parent else None,
        "created_at": snapshot.created_at.isoformat(),
        "retired_at": snapshot.retired_at.isoformat() if snapshot.retired_at else None,
        "serves": _serves(db, snapshot),
    }


def _serves(db: Session, snapshot: Snapshot) -> dict[str, float]:
    """Slug of each campaign it serves now -> its part of the replies."""
    found = {}
    for slug, deployment in db.execute(
        select(Campaign.slug, Deployment)
        .join(Deployment, Deployment.campaign_id == Campaign.id)
        .join(DeploymentShare)
        .where(DeploymentShare.snapshot_id == snapshot.id, Deployment.replaced_at.is_(None))
        .order_by(Campaign.slug)
    ):
        total = sum(part.share for part in deployment.shares)
        found[slug] = sum(part.share for part in deployment.shares if part.snapshot_id == snapshot.id) / total
    return found


@command.command()
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show one snapshot with its files and where it came from.

    \b
    Example:
      whetstone snapshot show starter
    """
    with connected() as settings, session_factory(str(settings.database_url))() as db:
        snapshot = registry.find_snapshot(db, name)
        found = _described(db, snapshot) | {"manifest": snapshot.manifest}
    if as_json:
        click.echo(json.dumps(found))
        return
    manifest = found.pop("manifest")
    table = Table(show_header=False)
    for key, value in found.items():
        table.add_row(key.replace("_", " "), json.dumps(value) if isinstance(value, dict) else str(value or "-"))
    for file, about in (manifest.get("files") or {}).items():
        table.add_row(file, f"{about.get('bytes', 0):,} bytes, sha256 {about['sha256'][:16]}…")
    Console().print(table)


@command.command()
@click.argument("name")
@_JSON
@click.pass_context
def check(ctx: click.Context, name: str, as_json: bool) -> None:
    """Compare a snapshot's files with the hashes of its registration, or ask its endpoint; exit 1 when something is wrong.

    Of the best of k replies, the files of both its policy and its preference model are compared.

    \b
    Example:
      whetstone snapshot check starter
    """
    with connected() as settings:
        with session_factory(str(settings.database_url))() as db:
            snapshot = registry.find_snapshot(db, name)
            parts = [part for part in (snapshot.draws_from, snapshot.scored_by) if part is not None] or [snapshot]
        problem, about = None, dict[str, Any]()
        for part in parts:
            if part.backend == "openai":
                about |= fetching.probe(part.endpoint or {})
                continue
            folder = registry.snapshot_folder(settings.artifacts, part)
            problem = problem or registry.difference(folder, part.manifest)
            about |= fetching.check(folder) if problem is None and part.kind == "policy" else {}
    if as_json:
        click.echo(json.dumps({"name": name, "ok": problem is None, "problem": problem, **about}))
    else:
        click.echo(
            f"{name} is as it was registered." if problem is None else f"{name}: {problem}.", err=problem is not None
        )
    ctx.exit(0 if problem is None else 1)


@command.command()
@click.argument("shares", nargs=-1, required=True, metavar="NAME[:SHARE]...")
@_CAMPAIGN
@click.option("--reason", default="Deployed from the command line.", help="Kept in the history.")
def deploy(shares: tuple[str, ...], slug: str, reason: str) -> None:
    """Let one or several snapshots serve a campaign from now on.

    \b
    Example:
      whetstone snapshot deploy starter --campaign helpful
      whetstone snapshot deploy new:0.9 starter:0.1 --campaign helpful
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        parts = [_share(db, one) for one in shares]
        deployments.deploy(db, find_campaign(db, slug), parts, reason=reason)
    click.echo(f"{', '.join(shares)} now serve{'s' if len(shares) == 1 else ''} {slug}.")


def _share(db: Session, text: str) -> tuple[Snapshot, float]:
    name, colon, share = text.partition(":")
    try:
        return registry.find_snapshot(db, name), float(share) if colon else 1.0
    except ValueError:
        raise BadInput(f"{share!r} is no share; write NAME:0.5 or NAME alone.") from None


@command.command()
@_CAMPAIGN
def rollback(slug: str) -> None:
    """Deploy again what served before; doing it twice brings the newer one back.

    \b
    Example:
      whetstone snapshot rollback --campaign helpful
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        deployment = deployments.rollback(db, find_campaign(db, slug), None)
        names = ", ".join(part.snapshot.name for part in deployment.shares)
    click.echo(f"{names} serves {slug} again.")


@command.command()
@click.argument("name")
def retire(name: str) -> None:
    """Take a snapshot out of use; its files stay, since comparisons refer to it.

    \b
    Example:
      whetstone snapshot retire helpful-16
    """
    with connected() as settings, session_factory(str(settings.database_url)).begin() as db:
        registry.retire(db, registry.find_snapshot(db, name))
    click.echo(f"{name} is retired.")
