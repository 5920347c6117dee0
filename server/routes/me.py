"""A person's own page: what they did and what it comes to, their pay line by line, notices, checks and reports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, Crowdworker, Db
from server.errors import WhetstoneError
from server.language import _, later
from server.models import Notice, Person
from server.pages import Page, render
from server.routes.row_id import RowId, row_id
from server.services import me, notices
from server.services.pay import appeals, ledger
from server.services.ways import remarks

router = APIRouter(prefix="/me")

KIND_WORDS = {
    "comparison": later("Comparisons"),
    "ranking": later("Rankings"),
    "demonstration": later("Replies written"),
    "edit": later("Replies improved"),
    "prompt": later("Openings written"),
    "skip": later("Skipped"),
}
STATUS_WORDS = {
    "pending": (later("Being checked"), "live"),
    "approved": (later("Approved"), "good"),
    "rejected": (later("Rejected"), "bad"),
    "paid": (later("Paid"), "good"),
}


@dataclass(frozen=True)
class Owed:
    """A sum of the ledger, in the words of the person."""

    status: str
    amount: Decimal
    currency: str
    entries: int


@dataclass(frozen=True)
class PayLine:
    """One line of the ledger."""

    line: ledger.Line
    status: str
    kind_of_badge: str
    may_appeal: bool


@dataclass(frozen=True)
class OwnReport:
    """Something this person reported, and whether somebody looked at it."""

    at: datetime
    campaign: str
    reason: str
    note: str
    closed_at: datetime | None


@dataclass(frozen=True)
class MePage(Page):
    """Everything of one's own."""

    template: ClassVar[str] = "me/page.html"
    paces: list[me.Pace]
    days: list[me.Day]
    kinds: list[tuple[str, str]]  # those of which there is any, with their words
    owed: list[Owed]
    lines: list[PayLine]
    older: int | None
    notices: list[Notice]
    unread: int
    checks: list[me.Checks]
    reports: list[OwnReport]
    longest_appeal: int
    error: str = ""
    appealed: int | None = None  # the entry whose form was refused
    typed: str = ""


@dataclass(frozen=True)
class LeaderboardPage(Page):
    """The people of a campaign by their answers."""

    template: ClassVar[str] = "me/leaderboard.html"
    campaign: str
    places: list[me.Place]
    days: int


def _page(
    db: Db, person: Person, before: int | None = None, *, error: str = "", appealed: int | None = None, typed: str = ""
) -> MePage:
    days = me.days(db, person)
    lines, older = ledger.lines(db, ledger.Wanted(person=person.id), before, limit=25)
    return MePage(
        title=_("My work"),
        paces=me.paces(db, person, days),
        days=days,
        kinds=[(kind, _(words)) for kind, words in KIND_WORDS.items() if any(day.counts[kind] for day in days)],
        owed=[
            Owed(_(STATUS_WORDS[each.status][0]), each.amount, each.currency, each.entries)
            for each in ledger.sums(db, ledger.Wanted(person=person.id))
        ],
        lines=[_pay_line(line) for line in lines],
        older=older,
        notices=notices.newest(db, person),
        unread=person.unread_notices,
        checks=me.checks(db, person),
        reports=[
            OwnReport(
                report.created_at,
                campaign,
                _(remarks.REPORT_REASONS[report.reason]),
                report.note or "",
                report.closed_at,
            )
            for report, campaign in me.reports(db, person)
        ],
        longest_appeal=appeals.MAX_CHARS,
        error=error,
        appealed=appealed,
        typed=typed,
    )


def _pay_line(line: ledger.Line) -> PayLine:
    words, badge = STATUS_WORDS[line.entry.status]
    return PayLine(line, _(words), badge, line.entry.status == "rejected" and line.appeal is None)


def _back(part: str) -> Response:
    return RedirectResponse(f"/me#{part}", status_code=HTTP_303_SEE_OTHER)


@router.get("")
def me_page(request: Request, db: Db, who: AnyVisitor, person: Crowdworker, before: str = "") -> Response:
    return render(request, who, _page(db, person, row_id(before)))


@router.get("/leaderboard/{slug}")
def leaderboard_page(request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str) -> Response:
    campaign, places = me.leaderboard(db, person, slug)
    page = LeaderboardPage(title=_("Leaderboard"), campaign=campaign.name, places=places, days=me.DAYS)
    return render(request, who, page)


@router.post("/notices/read")
def read_all(db: Db, person: Crowdworker) -> Response:
    notices.mark_read(db, person)
    return _back("notices")


@router.post("/notices/{notice_id}/read")
def read_one(db: Db, person: Crowdworker, notice_id: RowId) -> Response:
    notices.mark_read(db, person, notice_id)
    return _back("notices")


@router.post("/entries/{entry_id}/appeal")
def appeal(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    entry_id: RowId,
    text: Annotated[str, Form(max_length=100_000)] = "",
) -> Response:
    """Object to a rejected line of one's own pay."""
    try:
        with db.begin_nested():
            appeals.appeal(db, person, entry_id, text)
    except WhetstoneError as error:
        page = _page(db, person, error=error.message, appealed=entry_id, typed=text)
        return render(request, who, page, status=error.status)
    return _back("pay")
