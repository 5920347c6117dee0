"""The ledger, for admins: what is owed, approving and rejecting, bonuses, appeals, and payrolls with their files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any, ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, Db
from server.errors import BadInput, WhetstoneError
from server.models import Campaign, Payroll
from server.pages import Page, render
from server.routes.admin_data import campaign_options
from server.routes.row_id import RowId, row_id
from server.services import audit
from server.services.campaigns import campaigns
from server.services.pay import ledger, payrolls
from server.services.people import roster

router = APIRouter()

_IN_MEMORY = 1_000_000  # bytes of a payroll's file before it goes to the disk
_PIECE = 65_536


@dataclass(frozen=True)
class Asked:
    """The filters as they stand in the address."""

    status: str = ""
    kind: str = ""
    by: str = ""  # a person's number or e-mail address
    campaign: str = ""

    def query(self, **more: object) -> str:
        """The address of the page with these filters."""
        given = {**vars(self), **more}
        return "/admin/pay?" + urlencode({name: value for name, value in given.items() if value})


@dataclass(frozen=True)
class PayPage(Page):
    """The entries that fit the filters, and everything that can be done with pay."""

    template: ClassVar[str] = "admin/pay.html"
    asked: Asked
    campaign_options: list[tuple[str, str]]
    sums: list[ledger.Sum]
    lines: list[ledger.Line]
    pending: int
    newest_id: int
    older: str | None
    appeals: list[ledger.Line]
    due: list[payrolls.Due]
    payrolls: list[Payroll]
    new_key: str
    done: str = ""
    error: str = ""
    error_field: str = ""
    typed: dict[str, str] = field(default_factory=dict)


NOTHING = Asked()


def _wanted(db: Db, asked: Asked) -> ledger.Wanted:
    for name, known in (("status", ledger.STATUSES), ("kind", ledger.KINDS)):
        if getattr(asked, name) not in ("", *known):
            raise BadInput(f"{name} must be one of {', '.join(known)}.", field=name)
    people = roster.named(db, asked.by)
    if len(people) > 1:
        raise BadInput("Name one person.", field="people")
    return ledger.Wanted(
        status=asked.status,
        kind=asked.kind,
        person=people[0].id if people else None,
        campaign=campaigns.find_campaign(db, asked.campaign).id if asked.campaign else None,
    )


def _page(db: Db, asked: Asked, before: int | None = None, **more: Any) -> PayPage:
    wanted = _wanted(db, asked)
    lines, following = ledger.lines(db, wanted, before)
    sums = ledger.sums(db, wanted)
    return PayPage(
        title="Pay",
        asked=asked,
        campaign_options=campaign_options(db),
        sums=sums,
        lines=lines,
        pending=sum(each.entries for each in sums if each.status == "pending"),
        newest_id=lines[0].entry.id if lines else 0,
        older=asked.query(before=following) if following else None,
        appeals=ledger.appeals_waiting(db),
        due=payrolls.due(db),
        payrolls=payrolls.newest(db),
        new_key=secrets.token_urlsafe(16),
        **more,
    )


def _refused(
    request: Request, db: Db, who: AnyVisitor, error: WhetstoneError, typed: dict[str, str], asked: Asked = NOTHING
) -> Response:
    page = _page(db, asked, error=error.message, error_field=error.field or "", typed=typed)
    return render(request, who, page, status=error.status)


def _to(address: str) -> Response:
    return RedirectResponse(address, status_code=HTTP_303_SEE_OTHER)


@router.get("/admin/pay")
def pay_page(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    status: str = "",
    kind: str = "",
    by: str = "",
    campaign: str = "",
    before: str = "",
    done: str = "",
) -> Response:
    asked = Asked(status, kind, by, campaign)
    try:
        return render(request, who, _page(db, asked, row_id(before), done=done[:200]))
    except BadInput as error:
        return _refused(request, db, who, error, {"by": by})


@router.post("/admin/pay/entries")
def decide(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    decision: Annotated[str, Form(max_length=20)] = "",
    entries: Annotated[list[str], Form(max_length=ledger.PAGE)] = [],  # noqa: B006 - FastAPI copies it
    scope: Annotated[str, Form(max_length=20)] = "ticked",
    newest_id: Annotated[str, Form(max_length=20)] = "",
    reason: Annotated[str, Form(max_length=10_000)] = "",
    status: Annotated[str, Form(max_length=20)] = "",
    kind: Annotated[str, Form(max_length=20)] = "",
    by: Annotated[str, Form(max_length=300)] = "",
    campaign: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Approve or reject the entries that are ticked, or all pending ones of the page's filters."""
    asked = Asked(status, kind, by, campaign)
    try:
        with db.begin_nested():
            if scope == "all":
                chosen = ledger.matching(db, _wanted(db, asked), row_id(newest_id) or 0)
            else:
                chosen = [number for each in entries if (number := row_id(each)) is not None]
            if not chosen:
                raise BadInput("No entry is ticked, or none is pending.", field="entries")
            if decision not in ("approve", "reject"):
                raise BadInput("Entries are approved or rejected.", field="decision")
            if decision == "approve":
                changed, left = ledger.approve(db, person, chosen)
            else:
                changed, left = ledger.reject(db, person, chosen, reason)
    except WhetstoneError as error:
        return _refused(request, db, who, error, {"reason": reason}, asked)
    words = {"approve": "approved", "reject": "rejected"}[decision]
    rest = f", {left} left as they were: their status does not allow it" if left else ""
    return _to(asked.query(done=f"{changed} {words}{rest}."))


@router.post("/admin/pay/added")
def add(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    people: Annotated[str, Form(max_length=100_000)] = "",
    kind: Annotated[str, Form(max_length=20)] = "bonus",
    amount: Annotated[str, Form(max_length=40)] = "",
    currency: Annotated[str, Form(max_length=10)] = "",
    campaign: Annotated[str, Form(max_length=100)] = "",
    reason: Annotated[str, Form(max_length=10_000)] = "",
    idempotency_key: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """A bonus or a correction for one person or many."""
    typed = {"people": people, "kind": kind, "amount": amount, "currency": currency, "for": campaign, "why": reason}
    try:
        with db.begin_nested():
            of: Campaign | None = campaigns.find_campaign(db, campaign) if campaign else None
            added = ledger.add(
                db, person, roster.named(db, people), kind, amount, currency, reason, idempotency_key, of
            )
    except WhetstoneError as error:
        return _refused(request, db, who, error, typed)
    return _to(Asked(kind=kind).query(done=f"{added} added."))


@router.post("/admin/pay/appeals/{appeal_id}")
def answer_appeal(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    appeal_id: RowId,
    outcome: Annotated[str, Form(max_length=20)] = "",
    answer: Annotated[str, Form(max_length=10_000)] = "",
) -> Response:
    try:
        with db.begin_nested():
            ledger.answer_appeal(db, person, appeal_id, outcome, answer)
    except WhetstoneError as error:
        return _refused(request, db, who, error, {f"answer-{appeal_id}": answer})
    return _to(Asked().query(done="The answer is stored, and the person is told."))


@router.post("/admin/pay/payrolls")
def make_payroll(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Admin,
    currency: Annotated[str, Form(max_length=10)] = "",
    since: Annotated[str, Form(max_length=40)] = "",
    until: Annotated[str, Form(max_length=40)] = "",
    idempotency_key: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Pay what is approved; the file is fetched afterwards, as often as it is needed."""
    try:
        with db.begin_nested():
            made = payrolls.make(db, person, currency, *payrolls.period(since, until), idempotency_key)
    except WhetstoneError as error:
        return _refused(request, db, who, error, {"pay_currency": currency, "since": since, "until": until})
    return _to(
        Asked().query(done=f"Payroll {made.id}: {made.entries} entries, {made.total} {made.currency}.") + "#payrolls"
    )


@router.get("/admin/pay/payrolls/{payroll_id}/file")
def payroll_file(db: Db, person: Admin, payroll_id: RowId) -> Response:
    """Whole or not at all: half a file of money would look like a whole one, so its length is known before it goes out."""
    found = payrolls.find(db, payroll_id)
    file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed when it is sent
    for line in payrolls.as_csv(db, found):
        file.write(line.encode("utf-8"))
    length = file.tell()
    file.seek(0)
    audit.record(db, person, "pay.download", "payroll", found.id)
    headers = {
        "Content-Disposition": f'attachment; filename="whetstone-payroll-{found.id}-{found.currency}.csv"',
        "Content-Length": str(length),
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_pieces(file), media_type="text/csv; charset=utf-8", headers=headers)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece
