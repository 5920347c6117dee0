"""Snapshots: what there is, what made it, what serves where; deploying one and rolling back, as pages and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, Db, Researcher, Visitor
from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, DatasetVersion, Deployment, Person, Round, Run, Snapshot
from server.pages import Page, render
from server.routes.round_json import snapshot_json
from server.routes.row_id import RowId, row_id
from server.services.campaigns import campaigns
from server.services.snapshots import best_of, deployments, registry, serving

router = APIRouter()


class BestOfBody(BaseModel):
    """Names of the snapshot to make, of the policy that writes its replies and of the preference model that scores them."""

    name: str = Field(max_length=100)
    policy: str = Field(max_length=100)
    preference_model: str = Field(max_length=100)
    k: int = best_of.K_USUAL


@dataclass(frozen=True)
class SnapshotsPage(Page):
    """All snapshots and what serves each campaign."""

    template: ClassVar[str] = "snapshots/list.html"
    snapshots: list[dict[str, Any]]
    served: list[serving.Served]
    policies: list[tuple[str, str]]
    writers: list[tuple[str, str]]  # policies that the best of k can be drawn from
    scorers: list[tuple[str, str]]
    k_range: tuple[int, int, int]  # least, usual, most
    typed: BestOfBody | None = None  # what was refused
    error: str = ""


@dataclass(frozen=True)
class SnapshotPage(Page):
    """One snapshot: what made it, its files, where it serves."""

    template: ClassVar[str] = "snapshots/show.html"
    snapshot: dict[str, Any]
    endpoint: dict[str, Any] | None
    files: list[tuple[str, int, str]]
    run: Run | None
    made_by: Round | None
    dataset_version: DatasetVersion | None
    parent: Snapshot | None
    children: list[Snapshot]
    draws_from: Snapshot | None
    scored_by: Snapshot | None
    used_by: list[Snapshot]  # best-of snapshots that it writes or scores replies for
    serves: list[tuple[Campaign, float]]


class DeployBody(BaseModel):
    """Snapshot names with their relative shares."""

    campaign: str = Field(max_length=100)
    shares: dict[str, float]
    reason: str = Field(default="", max_length=2000)


class RollbackBody(BaseModel):
    """The campaign whose earlier deployment returns."""

    campaign: str = Field(max_length=100)


def _list_page(
    request: Request,
    db: Session,
    who: Visitor,
    *,
    status: int = 200,
    error: str = "",
    typed: BestOfBody | None = None,
) -> Response:
    served = serving.by_campaign(db)
    where: dict[int, list[dict[str, Any]]] = {}
    for item in served:
        for _, key, share in item.shares:
            where.setdefault(key, []).append({"campaign": item.campaign.name, "share": share})
    found = registry.snapshots(db)
    usable = [row for row in found if row.retired_at is None]
    page = SnapshotsPage(
        title="Snapshots",
        snapshots=[snapshot_json(db, row) | {"serves": where.get(row.id, []), "at": row.created_at} for row in found],
        served=served,
        policies=[(row.name, row.name) for row in usable if row.kind == "policy"],
        writers=[(row.name, row.name) for row in usable if row.kind == "policy" and row.path is not None],
        scorers=[(row.name, row.name) for row in usable if row.kind == "pm" and row.path is not None],
        k_range=(best_of.K_LEAST, best_of.K_USUAL, best_of.K_MOST),
        typed=typed,
        error=error,
    )
    return render(request, who, page, status=status)


@router.get("/snapshots")
def snapshots_page(request: Request, db: Db, who: AnyVisitor, person: Researcher) -> Response:
    return _list_page(request, db, who)


@router.get("/snapshots/{snapshot_id}")
def snapshot_page(request: Request, db: Db, who: AnyVisitor, person: Researcher, snapshot_id: RowId) -> Response:
    row = db.get(Snapshot, snapshot_id)
    if row is None:
        raise NotFound("There is no such snapshot.")
    listed, others = row.manifest.get("files") or {}, registry.snapshots(db)
    page = SnapshotPage(
        title=row.name,
        snapshot=snapshot_json(db, row),
        endpoint=row.endpoint,
        files=[(name, int(file.get("bytes", 0)), str(file["sha256"])) for name, file in sorted(listed.items())],
        run=db.get(Run, row.run_id) if row.run_id else None,
        made_by=db.get(Round, row.round_id) if row.round_id else None,
        dataset_version=db.get(DatasetVersion, row.dataset_version_id) if row.dataset_version_id else None,
        parent=db.get(Snapshot, row.parent_id) if row.parent_id else None,
        children=[other for other in others if other.parent_id == row.id and other.origin != "best_of"],
        draws_from=row.draws_from,
        scored_by=row.scored_by,
        used_by=[other for other in others if row.id in (other.draws_from_id, other.scored_by_id)],
        serves=[
            (item.campaign, share) for item in serving.by_campaign(db) for _, key, share in item.shares if key == row.id
        ],
    )
    return render(request, who, page)


@router.post("/snapshots/deploy")
def deploy(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    campaign: Annotated[str, Form(max_length=100)],
    snapshot: Annotated[str, Form(max_length=100)],
    percent: Annotated[float, Form()] = 100.0,
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    try:
        with db.begin_nested():
            found, chosen = campaigns.find_campaign(db, campaign), registry.find_snapshot(db, snapshot)
            serving.give_share(db, found, chosen, percent / 100, person, reason)
    except (BadInput, Conflict) as refused:
        return _list_page(request, db, who, status=refused.status, error=refused.message)
    return RedirectResponse("/snapshots", status_code=HTTP_303_SEE_OTHER)


@router.post("/snapshots/best-of")
def make_best_of(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    name: Annotated[str, Form(max_length=100)],
    policy: Annotated[str, Form(max_length=100)],
    preference_model: Annotated[str, Form(max_length=100)],
    k: Annotated[int, Form()] = best_of.K_USUAL,
) -> Response:
    body = BestOfBody(name=name.strip(), policy=policy, preference_model=preference_model, k=k)
    try:
        with db.begin_nested():
            _make_best_of(db, person, body)
    except (BadInput, Conflict) as refused:
        return _list_page(request, db, who, status=refused.status, error=refused.message, typed=body)
    return RedirectResponse("/snapshots", status_code=HTTP_303_SEE_OTHER)


def _make_best_of(db: Session, person: Person, body: BestOfBody) -> Snapshot:
    policy, pm = registry.find_snapshot(db, body.policy), registry.find_snapshot(db, body.preference_model)
    return best_of.register_best_of(db, name=body.name, policy=policy, preference_model=pm, k=body.k, person=person)


@router.post("/snapshots/rollback")
def rollback(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    campaign: Annotated[str, Form(max_length=100)],
    deployment: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    try:
        with db.begin_nested():
            key = row_id(deployment)
            to = db.get(Deployment, key) if key else None
            deployments.rollback(db, campaigns.find_campaign(db, campaign), person, to=to)
    except (BadInput, Conflict) as refused:
        return _list_page(request, db, who, status=refused.status, error=refused.message)
    return RedirectResponse("/snapshots", status_code=HTTP_303_SEE_OTHER)


@router.get("/api/snapshots")
def list_snapshots(db: Db, person: Researcher) -> dict[str, Any]:
    return {
        "snapshots": [snapshot_json(db, row) for row in registry.snapshots(db)],
        "serving": {
            item.campaign.slug: {name: share for name, _, share in item.shares} for item in serving.by_campaign(db)
        },
    }


@router.get("/api/snapshots/{snapshot_id}")
def show_snapshot(db: Db, person: Researcher, snapshot_id: RowId) -> dict[str, Any]:
    row = db.get(Snapshot, snapshot_id)
    if row is None:
        raise NotFound("There is no such snapshot.")
    return {"snapshot": snapshot_json(db, row) | {"manifest": row.manifest}}


@router.post("/api/snapshots/deploy", status_code=201)
def deploy_json(db: Db, person: Researcher, body: DeployBody) -> dict[str, Any]:
    parts = [(registry.find_snapshot(db, name), share) for name, share in body.shares.items()]
    campaign = campaigns.find_campaign(db, body.campaign)
    made = deployments.deploy(db, campaign, parts, reason=body.reason or "Deployed by hand.", person=person)
    return {"deployment": {"id": made.id, "shares": {name: share for name, _, share in serving.shares_of(made)}}}


@router.post("/api/snapshots/best-of", status_code=201)
def make_best_of_json(db: Db, person: Researcher, body: BestOfBody) -> dict[str, Any]:
    return {"snapshot": snapshot_json(db, _make_best_of(db, person, body))}


@router.post("/api/snapshots/rollback", status_code=201)
def rollback_json(db: Db, person: Researcher, body: RollbackBody) -> dict[str, Any]:
    made = deployments.rollback(db, campaigns.find_campaign(db, body.campaign), person)
    return {"deployment": {"id": made.id, "shares": {name: share for name, _, share in serving.shares_of(made)}}}
