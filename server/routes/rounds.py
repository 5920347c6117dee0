"""The research pages: all rounds with the start form and the schedule, and one round as it advances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session
from starlette.status import HTTP_303_SEE_OTHER

from server.charts import Chart, chart
from server.edge import AnyVisitor, Db, Researcher, Visitor
from server.errors import BadInput, Conflict, WhetstoneError
from server.models import Round, Run, Schedule, Snapshot
from server.pages import Page, render
from server.routes.round_json import round_json
from server.routes.row_id import RowId, row_id
from server.services.rounds import outlook, rounds, schedules
from server.services.rounds.round_settings import parse_assignments

router = APIRouter()

# Title, what it says, whether single batches are too noisy to be read unsmoothed. docs/metrics.md has the formulas.
CURVES: dict[str, list[tuple[str, str, str, bool]]] = {
    "preference": [
        ("loss", "Loss", "−log σ(score of chosen − score of rejected); 0.69 is a coin", True),
        ("accuracy", "Accuracy in training", "share of a batch told right before it is learnt", True),
    ],
    "policy": [
        ("score_mean", "Score", "of the preference model, mean of an iteration's replies", True),
        ("kl", "KL", "nats a reply from the initial policy", True),
        ("length_mean", "Reply length", "tokens", True),
        ("entropy", "Entropy", "nats a token; a fall to 0 is collapse", True),
    ],
}
STEP_WORDS = {
    "freeze": ("Freeze", "fix which comparisons it learns from"),
    "pm": ("Preference model", "learn to tell the better reply"),
    "pm_checks": ("Preference model checks", "better than chance, and honest about it?"),
    "policy": ("Policy", "PPO against the preference model"),
    "policy_checks": ("Policy checks", "better, not too far, and loadable?"),
    "register": ("Register", "copy both models with their hashes"),
    "deploy": ("Deploy", "let the new policy answer"),
}


@dataclass(frozen=True)
class RoundsPage(Page):
    """All rounds, what the next would learn from, and when it starts by itself."""

    template: ClassVar[str] = "rounds/list.html"
    rounds: list[dict[str, Any]]
    older: int | None
    next: outlook.Outlook
    schedules: list[Schedule]
    default_cron: str
    default_minimum: int
    error: str = ""
    schedule_error: str = ""
    typed: str = ""


@dataclass(frozen=True)
class RoundPage(Page):
    """One round: its steps, gates, curves and lineage."""

    template: ClassVar[str] = "rounds/show.html"
    round: dict[str, Any]
    words: dict[str, tuple[str, str]]
    charts: dict[str, list[Chart]]
    active: bool
    lineage: list[Snapshot]
    error: str = ""


def _list_page(
    request: Request, db: Session, who: Visitor, *, before: int | None = None, status: int = 200, **more: str
) -> Response:
    found = rounds.newest_rounds(db, before=before)
    page = RoundsPage(
        title="Rounds",
        rounds=[round_json(db, row) for row in found],
        older=found[-1].number if found and found[-1].number > 1 else None,
        next=outlook.outlook(db),
        schedules=schedules.all_schedules(db),
        default_cron=schedules.DEFAULT_CRON,
        default_minimum=schedules.DEFAULT_MINIMUM,
        **more,
    )
    return render(request, who, page, status=status)


@router.get("/rounds")
def rounds_page(request: Request, db: Db, who: AnyVisitor, person: Researcher, before: int | None = None) -> Response:
    return _list_page(request, db, who, before=before)


@router.post("/rounds")
def start(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    settings: Annotated[str, Form(max_length=5000)] = "",
) -> Response:
    try:
        with db.begin_nested():
            lines = [line for line in settings.splitlines() if line.strip()]
            row = rounds.start(db, trigger="person", person=person, settings=parse_assignments(lines))
    except (BadInput, Conflict) as refused:
        return _list_page(request, db, who, status=refused.status, error=refused.message, typed=settings)
    return _to_round(row)


@router.post("/rounds/schedule")
def save_schedule(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    cron: Annotated[str, Form(max_length=200)] = "",
    time_zone: Annotated[str, Form(max_length=100)] = "",
    minimum: Annotated[int, Form()] = 0,
    enabled: Annotated[str, Form(max_length=10)] = "",
    schedule_id: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    try:
        with db.begin_nested():
            schedules.save_schedule(
                db, person, cron=cron.strip(), time_zone=time_zone.strip(), minimum=minimum, enabled=bool(enabled),
                schedule_id=row_id(schedule_id),
            )  # fmt: skip
    except WhetstoneError as refused:
        return _list_page(request, db, who, status=refused.status, schedule_error=refused.message)
    return RedirectResponse("/rounds", status_code=HTTP_303_SEE_OTHER)


@router.get("/rounds/{round_id}")
def round_page(request: Request, db: Db, who: AnyVisitor, person: Researcher, round_id: RowId) -> Response:
    return _round_page(request, db, who, rounds.find_round(db, round_id))


@router.post("/rounds/{round_id}/retry")
def retry(request: Request, db: Db, who: AnyVisitor, person: Researcher, round_id: RowId) -> Response:
    row = rounds.find_round(db, round_id)
    try:
        with db.begin_nested():
            rounds.retry(db, row, person)
    except Conflict as refused:
        return _round_page(request, db, who, row, status=refused.status, error=refused.message)
    return _to_round(row)


@router.post("/rounds/{round_id}/release")
def release(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    round_id: RowId,
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    row = rounds.find_round(db, round_id)
    try:
        with db.begin_nested():
            rounds.release(db, row, person, reason)
    except (BadInput, Conflict) as refused:
        return _round_page(request, db, who, row, status=refused.status, error=refused.message)
    return _to_round(row)


@router.post("/rounds/{round_id}/cancel")
def cancel(request: Request, db: Db, who: AnyVisitor, person: Researcher, round_id: RowId) -> Response:
    row = rounds.find_round(db, round_id)
    try:
        with db.begin_nested():
            rounds.cancel(db, row, person)
    except Conflict as refused:
        return _round_page(request, db, who, row, status=refused.status, error=refused.message)
    return _to_round(row)


def _to_round(row: Round) -> Response:
    return RedirectResponse(f"/rounds/{row.id}", status_code=HTTP_303_SEE_OTHER)


def _round_page(
    request: Request, db: Session, who: Visitor, row: Round, *, status: int = 200, error: str = ""
) -> Response:
    db.expire_all()
    charts: dict[str, list[Chart]] = {}
    for step in row.steps:
        run = db.get(Run, step.run_id) if step.run_id else None
        if run is not None:
            charts[step.name] = _charts(run)
    made = [db.get_one(Snapshot, key) for key in (row.pm_snapshot_id, row.policy_snapshot_id) if key is not None]
    page = RoundPage(
        title=f"Round {row.number}",
        round=round_json(db, row),
        words=STEP_WORDS,
        charts=charts,
        active=row.status in ("queued", "running"),
        lineage=made,
        error=error,
    )
    return render(request, who, page, status=status)


def _charts(run: Run) -> list[Chart]:
    curves = run.progress.get("curves", {})
    drawn = [
        chart(title, about, curves.get(name, []), smooth=noisy) for name, title, about, noisy in CURVES.get(run.job, [])
    ]
    return [found for found in drawn if found is not None]
