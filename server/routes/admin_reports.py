"""What people reported, for admins: one line each, with the way to the conversation, and a button when it is dealt with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, Db
from server.models import Campaign, Candidate, Person, Turn
from server.pages import Page, render
from server.services.ways import remarks

router = APIRouter()


@dataclass(frozen=True)
class Line:
    """One open report."""

    id: int
    at: datetime
    campaign: str
    person: str
    reason: str
    note: str
    conversation_id: int
    about: str  # the reply, or the message


@dataclass(frozen=True)
class ReportsPage(Page):
    """The open reports, the oldest first."""

    template: ClassVar[str] = "admin/reports.html"
    lines: list[Line]


@router.get("/admin/reports")
def reports_page(request: Request, db: Db, who: AnyVisitor, person: Admin) -> Response:
    lines = []
    for report in remarks.open_reports(db):
        turn = db.get_one(Turn, report.turn_id)
        reply = db.get(Candidate, report.candidate_id) if report.candidate_id is not None else None
        lines.append(
            Line(
                id=report.id,
                at=report.created_at,
                campaign=db.get_one(Campaign, report.campaign_id).name,
                person=db.get_one(Person, report.person_id).name,
                reason=remarks.REPORT_REASONS[report.reason],
                note=report.note or "",
                conversation_id=turn.conversation_id,
                about=(reply.text or "") if reply is not None else turn.message,
            )
        )
    return render(request, who, ReportsPage(title="Reports", lines=lines))


@router.post("/admin/reports/{report_id}/close")
def close_report(db: Db, person: Admin, report_id: int) -> Response:
    remarks.close_report(db, person, report_id)
    return RedirectResponse("/admin/reports", status_code=HTTP_303_SEE_OTHER)
