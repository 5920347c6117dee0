"""Studies at panels, for admins: make one, its address and codes, its submissions, its secret, closing it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, AppSettings, Db
from server.errors import WhetstoneError
from server.models import AuditEntry, Campaign, Panel, WebhookEvent
from server.pages import Page, render
from server.routes.admin_data import campaign_options
from server.routes.row_id import row_id
from server.services import audit
from server.services.panels import panel_roster, panel_settings
from server.services.panels.panel_settings import Listed
from server.settings import Settings

router = APIRouter()

FIELDS = (
    "slug", "name", "kind", "campaign", "target", "study", "captured", "redirect", "participant_parameter",
    "submission_parameter", "study_parameter", *(f"code_{outcome}" for outcome in panel_settings.OUTCOMES),
)  # fmt: skip


@dataclass(frozen=True)
class PanelsPage(Page):
    """The list, and the form of a new study."""

    template: ClassVar[str] = "admin/panels.html"
    listed: list[Listed]
    campaign_options: list[tuple[str, str]]
    outcomes: dict[str, str]
    typed: dict[str, str] = field(default_factory=dict)
    error: str = ""
    error_field: str = ""


@dataclass(frozen=True)
class PanelPage(Page):
    """One study with everything that the admin needs at the panel, and its submissions."""

    template: ClassVar[str] = "admin/panel.html"
    panel: Panel
    campaign: Campaign
    entry: str
    webhook: str
    outcomes: dict[str, str]
    values: dict[str, str]
    counts: dict[str, int]
    lines: list[panel_roster.Line]
    status: str
    older: int | None
    events: list[WebhookEvent]
    history: list[AuditEntry]
    secret: str = ""  # shown once, where it was made here
    saved: str = ""
    error: str = ""
    error_field: str = ""


def _list(db: Db, **more: Any) -> PanelsPage:
    return PanelsPage(
        title="Panels",
        listed=panel_settings.listed(db),
        campaign_options=campaign_options(db)[1:],
        outcomes=panel_settings.OUTCOMES,
        **more,
    )


def entry_address(panel: Panel, public_url: str) -> str:
    """What is pasted into the panel as the study's address, with the panel's own places in it."""
    names: dict[str, str] = panel.settings["parameters"]
    # Prolific fills in {{%NAME%}}; other panels have ways of their own, so theirs says what goes where.
    mark = "{{%%%s%%}}" if panel.kind == "prolific" else "{%s}"
    queries = [
        f"{names[of]}={mark % (names[of] if panel.kind == 'prolific' else of)}"
        for of in ("participant", "study", "submission")
        if of in names
    ]
    queries += [f"{name}={mark % name}" for name in panel.settings["captured"]]
    return f"{public_url}/panel/{panel.slug}?" + "&".join(queries)


def _values(panel: Panel) -> dict[str, str]:
    """The settings as the form has them."""
    settings = panel.settings
    return {
        "name": panel.name,
        "target": str(settings["target"]),
        "study": settings.get("study", ""),
        "captured": " ".join(settings["captured"]),
        "redirect": settings["redirect"],
        **{f"{of}_parameter": name for of, name in settings["parameters"].items()},
        **{f"code_{outcome}": code for outcome, code in settings["codes"].items()},
    }


def _one(
    db: Db,
    settings: Settings,
    panel: Panel,
    status: str = "",
    before: str = "",
    typed: dict[str, str] | None = None,
    **more: Any,
) -> PanelPage:
    lines, older = panel_roster.lines(db, panel, status, row_id(before))
    return PanelPage(
        title=panel.name,
        panel=panel,
        campaign=db.get_one(Campaign, panel.campaign_id),
        entry=entry_address(panel, settings.public_url),
        webhook=f"{settings.public_url}/panel/{panel.slug}/webhook",
        outcomes=panel_settings.OUTCOMES,
        values=typed if typed is not None else _values(panel),
        counts=panel_roster.counts(db, panel),
        lines=lines,
        status=status,
        older=older,
        events=panel_roster.newest_events(db, panel),
        history=audit.history(db, "panel", panel.id),
        **more,
    )


async def _typed(request: Request) -> dict[str, str]:
    """The fields of a study that the form sends."""
    return {key: value for key, value in (await request.form()).items() if key in FIELDS and isinstance(value, str)}


Typed = Annotated[dict[str, str], Depends(_typed)]


@router.get("/admin/panels")
def panels_page(request: Request, db: Db, who: AnyVisitor, person: Admin) -> Response:
    return render(request, who, _list(db))


@router.post("/admin/panels")
def create(request: Request, db: Db, who: AnyVisitor, person: Admin, typed: Typed) -> Response:
    try:
        with db.begin_nested():
            made = panel_settings.create(db, person, typed)
    except WhetstoneError as error:
        page = _list(db, typed=typed, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(made, "made")


@router.get("/admin/panels/{slug}")
def panel_page(
    request: Request,
    db: Db,
    settings: AppSettings,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    saved: str = "",
    status: str = "",
    before: str = "",
) -> Response:
    page = _one(db, settings, panel_settings.find(db, slug), status, before, saved=saved)
    return render(request, who, page)


@router.post("/admin/panels/{slug}")
def change(
    request: Request, db: Db, settings: AppSettings, who: AnyVisitor, person: Admin, slug: str, typed: Typed
) -> Response:
    panel = panel_settings.find(db, slug)
    try:
        with db.begin_nested():
            panel_settings.change(db, person, panel, typed)
    except WhetstoneError as error:
        db.refresh(panel)
        page = _one(db, settings, panel, typed=typed, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    return _to(panel, "saved")


@router.post("/admin/panels/{slug}/secret")
def set_secret(
    request: Request,
    db: Db,
    settings: AppSettings,
    who: AnyVisitor,
    person: Admin,
    slug: str,
    secret: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """A new secret: pasted from the panel, or made here and shown once."""
    panel = panel_settings.find(db, slug)
    try:
        with db.begin_nested():
            made = panel_settings.set_secret(db, person, panel, secret)
    except WhetstoneError as error:
        page = _one(db, settings, panel, error=error.message, error_field=error.field or "")
        return render(request, who, page, status=error.status)
    if secret.strip():
        return _to(panel, "secret")
    return render(request, who, _one(db, settings, panel, secret=made))


@router.post("/admin/panels/{slug}/close")
def close(db: Db, person: Admin, slug: str) -> Response:
    panel = panel_settings.find(db, slug)
    panel_settings.close(db, person, panel, closed=True)
    return _to(panel, "closed")


@router.post("/admin/panels/{slug}/open")
def reopen(db: Db, person: Admin, slug: str) -> Response:
    panel = panel_settings.find(db, slug)
    panel_settings.close(db, person, panel, closed=False)
    return _to(panel, "open")


def _to(panel: Panel, saved: str) -> Response:
    return RedirectResponse(f"/admin/panels/{panel.slug}?saved={saved}", status_code=HTTP_303_SEE_OTHER)
