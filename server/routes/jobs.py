"""Imports and exports, for admins: ask for one, follow it, fetch its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from sqlalchemy.orm import Session
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, AppSettings, Db
from server.errors import BadInput, NotFound, WhetstoneError
from server.models import Job
from server.pages import Page, render
from server.routes.admin_data import campaign_options, day_of
from server.routes.row_id import RowId, row_id
from server.services import audit, jobs
from server.settings import Settings

router = APIRouter()

PAGE = 30


@dataclass(frozen=True)
class JobsPage(Page):
    """The list, and the forms of an import and an export."""

    template: ClassVar[str] = "admin/jobs.html"
    listed: list[Job]
    older: int | None
    campaign_options: list[tuple[str, str]]
    export_formats: list[tuple[str, str]]
    files: list[tuple[str, str]]
    import_folder: str
    typed: dict[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class JobPage(Page):
    """One job with its settings, its progress and its manifest."""

    template: ClassVar[str] = "admin/job.html"
    job: Job
    busy: bool
    settings: list[tuple[str, str]]
    files: list[dict[str, Any]]
    counts: dict[str, dict[str, int]]


EXPORT_NAMES = {
    "hh": "hh-rlhf (two transcripts)",
    "trl": "TRL, implicit prompt",
    "trl-explicit": "TRL, explicit prompt",
    "trl-conversational": "TRL, conversational",
    "whetstone": "Whetstone (all that is known)",
    "parquet": "Parquet",
    "rankings": "Rankings",
    "edits": "Edits (edited over original)",
    "demonstrations": "Demonstrations",
}


def import_folder(settings: Settings) -> Path:
    """The only folder that a page may import from: an admin of the site need not be the owner of the machine."""
    return Path(settings.artifacts) / "imports"


def _list(db: Session, settings: Settings, before: int | None = None, **more: Any) -> JobsPage:
    listed = jobs.newest_jobs(db, before, PAGE + 1)
    folder = import_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return JobsPage(
        title="Jobs",
        listed=listed[:PAGE],
        older=listed[PAGE - 1].id if len(listed) > PAGE else None,
        campaign_options=campaign_options(db),
        export_formats=list(EXPORT_NAMES.items()),
        files=[(name, name) for name in files],
        import_folder=str(folder),
        **more,
    )


@router.get("/admin/jobs")
def jobs_page(
    request: Request, db: Db, who: AnyVisitor, person: Admin, settings: AppSettings, before: str = ""
) -> Response:
    return render(request, who, _list(db, settings, row_id(before)))


@router.post("/admin/jobs/import")
def ask_import(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    settings: AppSettings,
    file: Annotated[str, Form(max_length=500)] = "",
    campaign: Annotated[str, Form(max_length=100)] = "",
    mode: Annotated[str, Form(max_length=50)] = "",
    skip_bad: Annotated[str, Form(max_length=5)] = "",
    again: Annotated[str, Form(max_length=5)] = "",
) -> Response:
    try:
        with db.begin_nested():
            job = jobs.request_import(
                db,
                person,
                _in_folder(settings, file),
                campaign,
                mode=mode or None,
                skip_bad=bool(skip_bad),
                again=bool(again),
            )
    except WhetstoneError as error:
        page = _list(db, settings, typed={"file": file, "campaign": campaign, "mode": mode}, error=error.message)
        return render(request, who, page, status=error.status)
    return _to(job)


def _in_folder(settings: Settings, name: str) -> Path:
    folder = import_folder(settings).resolve()
    path = (folder / name).resolve() if name and "\0" not in name else folder
    if path.parent != folder or not path.is_file():
        raise BadInput(f"There is no file {name!r} in {folder}; put it there first.", field="file")
    return path


@router.post("/admin/jobs/export")
def ask_export(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    settings: AppSettings,
    format: Annotated[str, Form(max_length=50)] = "hh",  # noqa: A002 - the form's field
    campaign: Annotated[str, Form(max_length=100)] = "",
    mode: Annotated[str, Form(max_length=50)] = "",
    source: Annotated[str, Form(max_length=50)] = "",
    since: Annotated[str, Form(max_length=50)] = "",
    until: Annotated[str, Form(max_length=50)] = "",
    round_number: Annotated[str, Form(max_length=20)] = "",
    test_share: Annotated[str, Form(max_length=20)] = "0",
    compressed: Annotated[str, Form(max_length=5)] = "",
    simulated: Annotated[str, Form(max_length=5)] = "",
) -> Response:
    try:
        with db.begin_nested():
            job = jobs.request_export(
                db,
                person,
                format,
                campaign=campaign or None,
                mode=mode or None,
                round_number=row_id(round_number),
                since=day_of("since", since),
                until=day_of("until", until),
                source=source or None,
                simulated=bool(simulated),
                compressed=bool(compressed),
                test_share=_percent(test_share),
            )
    except WhetstoneError as error:
        typed = {
            "format": format,
            "export_campaign": campaign,
            "since": since,
            "until": until,
            "test_share": test_share,
        }
        return render(request, who, _list(db, settings, typed=typed, error=error.message), status=error.status)
    return _to(job)


def _percent(text: str) -> float:
    if not text.strip():
        return 0.0
    try:
        return float(text) / 100
    except ValueError as error:
        raise BadInput("The test share must be a percentage, such as 5.", field="test_share") from error


@router.get("/admin/jobs/{job_id}")
def job_page(request: Request, db: Db, who: AnyVisitor, person: Admin, job_id: RowId) -> Response:
    job = jobs.find_job(db, job_id)
    result = job.result or {}
    stated = {**job.settings.get("selection", {}), **{k: v for k, v in job.settings.items() if k != "selection"}}
    stated.pop("campaign_id", None)
    page = JobPage(
        title=f"{job.kind.capitalize()} {job.id}",
        job=job,
        busy=job.status in ("queued", "running"),
        settings=[(k.replace("_", " "), str(v)) for k, v in sorted(stated.items()) if v not in (None, False, "", 0)],
        files=result.get("files", []),
        counts=result.get("counts", {}),
    )
    return render(request, who, page)


@router.get("/admin/jobs/{job_id}/files/{name}")
def job_file(db: Db, person: Admin, settings: AppSettings, job_id: RowId, name: str) -> Response:
    """One file of a finished export, streamed; only names that its manifest has are looked up."""
    job = jobs.find_job(db, job_id)
    names = [file["name"] for file in (job.result or {}).get("files", [])] if job.kind == "export" else []
    if job.status != "done" or name not in (*names, "manifest.json") or not names:
        raise NotFound(f"Job {job_id} has no file {name!r}.")
    path = Path(settings.artifacts) / "exports" / str(job.id) / name
    if not path.is_file():
        raise NotFound(f"The file {name!r} of job {job_id} is no longer in the artifacts; export it again.")
    audit.record(db, person, "export.download", "job", job.id, file=name)
    return FileResponse(path, filename=f"whetstone-{job.id}-{name}", media_type="application/octet-stream")


def _to(job: Job) -> Response:
    return RedirectResponse(f"/admin/jobs/{job.id}", status_code=HTTP_303_SEE_OTHER)
