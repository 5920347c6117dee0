"""Snapshots: registering a policy or a preference model with its files' hashes, finding it, retiring it.

A snapshot's row is the authority on its files: whoever loads the weights compares them with `manifest["files"]` of the row, so
that a directory changed after its registration is noticed even when its own manifest was changed with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import Deployment, DeploymentShare, Person, Round, Run, Snapshot
from server.services import audit

STARTER = "starter"
# Shipped with the code; read as plain files, since the server imports nothing of training.
STARTER_FOLDER = Path(__file__).resolve().parents[3] / "training" / "starter" / "model"
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def register_policy(
    db: Session,
    *,
    name: str,
    origin: str,
    path: str | Path | None = None,
    endpoint: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    kind: str = "policy",
    parent: Snapshot | None = None,
    run: Run | None = None,
    round: Round | None = None,  # noqa: A002 - the glossary's word
    dataset_version_id: int | None = None,
    person: Person | None = None,
) -> Snapshot:
    """Store a snapshot: files at `path` (below the artifacts, or absolute) or an `endpoint`; `kind` "pm" for a preference model.

    `manifest` holds {"files": {name: {"sha256", "bytes"}}} for files, as `folder_manifest` and training write it.
    Raises Conflict when the name is taken, BadInput when something is missing or cannot be.
    """
    check_name(db, name)
    if (path is None) == (endpoint is None):
        raise BadInput("A snapshot is either a folder of files or an endpoint; give one of them.")
    if path is not None and not (manifest or {}).get("files"):
        raise BadInput(f"The snapshot {name} has no list of its files' hashes, so it could not be checked when loaded.")
    snapshot = Snapshot(
        name=name,
        kind=kind,
        backend="local" if path is not None else "openai",
        origin=origin,
        path=str(path) if path is not None else None,
        endpoint=checked_endpoint(endpoint) if endpoint is not None else None,
        manifest=dict(manifest or {}),
        parent_id=parent.id if parent else None,
        run_id=run.id if run else None,
        round_id=round.id if round else None,
        dataset_version_id=dataset_version_id,
    )
    db.add(snapshot)
    db.flush()
    audit.record(db, person, "snapshot.register", "snapshot", snapshot.id, name=name, kind=kind, origin=origin)
    return snapshot


def check_name(db: Session, name: str) -> None:
    """BadInput for a name that could not be a folder's, Conflict for one that is taken."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"A snapshot's name has 1 to 100 letters, digits, dots, dashes and underscores; {name!r} has not.",
            field="name",
        )
    if db.scalar(select(Snapshot.id).where(Snapshot.name == name)) is not None:
        raise Conflict(f"There is a snapshot {name} already; choose another name.", field="name")


def checked_endpoint(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """An endpoint's description with only known keys; the key itself is never stored, only its variable's name."""
    known = {"base_url", "model", "api_key_variable", "streams", "logprobs", "seed", "limit_name"}
    unknown = sorted(set(endpoint) - known)
    if unknown:
        raise BadInput(
            f"An endpoint has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}.", field="endpoint"
        )
    address = urlsplit(str(endpoint.get("base_url", "")))
    if address.scheme not in ("http", "https") or not address.hostname:
        raise BadInput(
            "The endpoint's address must look like https://host/v1, without /chat/completions at its end.",
            field="base_url",
        )
    if address.username or address.password or address.query or address.fragment:
        raise BadInput(
            "The endpoint's address must hold no password or query; name a variable for the key.", field="base_url"
        )
    if not endpoint.get("model"):
        raise BadInput("The endpoint needs the name of the model it should answer with.", field="model")
    variable = endpoint.get("api_key_variable")
    if variable is not None and not _VARIABLE.fullmatch(variable):
        raise BadInput(
            f"{variable!r} is no name of an environment variable; give a name such as OPENAI_API_KEY, never the key itself.",
            field="api_key_variable",
        )
    return {**endpoint, "base_url": str(endpoint["base_url"]).rstrip("/")}


def find_snapshot(db: Session, name: str) -> Snapshot:
    """The snapshot of this name, or NotFound."""
    found = db.scalar(select(Snapshot).where(Snapshot.name == name))
    if found is None:
        raise NotFound(f"There is no snapshot {name}; `whetstone snapshot list` names all.")
    return found


def snapshots(db: Session, kind: str | None = None) -> list[Snapshot]:
    """All snapshots, newest first."""
    wanted = select(Snapshot).order_by(Snapshot.id.desc())
    return list(db.scalars(wanted.where(Snapshot.kind == kind) if kind else wanted))


def starter_snapshot(db: Session) -> Snapshot:
    """The model shipped with Whetstone, registered on first use; its path follows the clone when that has moved.

    A newer Whetstone may ship other weights: those become a snapshot of their own, since comparisons refer to the earlier.
    """
    try:
        manifest = json.loads((STARTER_FOLDER / MANIFEST).read_text("utf-8"))
        hashes = "".join(f"{name}{file['sha256']}" for name, file in sorted(manifest["files"].items()))
    except (OSError, ValueError, KeyError) as error:
        raise NotFound(
            f"The starter model is not in {STARTER_FOLDER} ({error}); restore it from the repository."
        ) from error
    name, places = STARTER, [STARTER, f"{STARTER}-{hashlib.sha256(hashes.encode()).hexdigest()[:8]}"]
    for found in db.scalars(select(Snapshot).where(Snapshot.name.in_(places)).order_by(Snapshot.id)):
        if found.manifest.get("files") == manifest["files"]:
            found.path = str(STARTER_FOLDER)
            return found
        name = places[1]
    return register_policy(db, name=name, origin="initial", path=STARTER_FOLDER, manifest=manifest)


def retire(db: Session, snapshot: Snapshot, person: Person | None = None) -> None:
    """Take a snapshot out of use; its files stay, since comparisons refer to it.

    Conflict while it serves a campaign, or while a snapshot in use draws its replies from it or has them scored by it.
    """
    db.refresh(snapshot, with_for_update=True)  # whoever makes such a snapshot in this moment comes before or after
    serves = db.scalar(
        select(Deployment.id)
        .join(DeploymentShare)
        .where(DeploymentShare.snapshot_id == snapshot.id, Deployment.replaced_at.is_(None))
        .limit(1)
    )
    if serves is not None:
        raise Conflict(f"{snapshot.name} serves a campaign now; deploy another snapshot there first.")
    uses = or_(Snapshot.draws_from_id == snapshot.id, Snapshot.scored_by_id == snapshot.id)
    users = db.scalars(select(Snapshot.name).where(uses, Snapshot.retired_at.is_(None)).order_by(Snapshot.id)).all()
    if users:
        does = "scores" if snapshot.kind == "pm" else "writes"
        raise Conflict(f"{snapshot.name} {does} the replies of {', '.join(users)}; retire what uses it first.")
    snapshot.retired_at = db.scalar(select(func.now()))
    audit.record(db, person, "snapshot.retire", "snapshot", snapshot.id, name=snapshot.name)


def snapshot_folder(artifacts: str | Path, snapshot: Snapshot) -> Path:
    """Where a local snapshot's files lie."""
    if snapshot.path is None:
        raise BadInput(
            f"{snapshot.name} has no files of its own: it is an endpoint, or the best of another snapshot's replies."
        )
    return Path(artifacts) / snapshot.path  # an absolute path stays itself


def folder_manifest(folder: Path, kind: str = "policy", **provenance: Any) -> dict[str, Any]:
    """The manifest of a directory as it lies there, in the form that training writes."""
    return {"kind": kind, "provenance": provenance, "files": folder_hashes(folder)}


def folder_hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """Name, SHA-256 and size of every file below `folder`, but the manifest and hidden ones."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder)
        if name.name == MANIFEST or any(part.startswith(".") for part in name.parts):
            continue
        with file.open("rb") as opened:
            found[name.as_posix()] = {
                "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
                "bytes": file.stat().st_size,
            }
    return found


def difference(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """What differs between a directory and the hashes stored for it, in one sentence; None when nothing does."""
    listed: Mapping[str, Any] = manifest.get("files") or {}
    if not listed:
        return "its row holds no hashes; register it again"
    if not folder.is_dir():
        return f"{folder} is missing; restore it from a backup, or from the run that made it"
    present = folder_hashes(folder)
    for name in sorted({*listed, *present}):
        if name not in present:
            return f"{folder / name} is missing; restore it from a backup, or from the run that made it"
        if name not in listed:
            return f"{folder / name} was not there when it was registered; remove it"
        if present[name]["sha256"] != listed[name]["sha256"]:
            return f"{folder / name} is damaged: its SHA-256 is not the registered one; restore it from a backup"
    return None
