"""What has come in: counts, times and shares over a selection of comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import ClassVar

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from server.edge import AnyVisitor, Db, Researcher
from server.errors import BadInput
from server.pages import Page, render
from server.services.campaigns import campaigns
from server.services.data import agreement, statistics
from server.services.data.selection import Selection
from server.services.intervals import Share

router = APIRouter()

TOP_PEOPLE = 25  # a page of thousands of people would tell nobody anything; the table says that it is cut


@dataclass(frozen=True)
class DataPage(Page):
    """Everything that is counted, for one selection."""

    template: ClassVar[str] = "admin/data.html"
    campaign_options: list[tuple[str, str]]
    asked: dict[str, str]
    filtered: bool
    totals: statistics.Totals
    others: dict[str, int]  # rankings, demonstrations and edits, as far as there are any
    agreement: agreement.Agreement
    days: list[tuple[date, int]]
    by_campaign: list[statistics.Group]
    by_mode: list[statistics.Group]
    by_source: list[statistics.Group]
    by_strength: list[statistics.Group]
    by_person: list[statistics.Group]
    by_snapshot: list[statistics.SnapshotRecord]
    picked_left: Share
    chosen_longer: Share


@router.get("/admin/data")
def data_page(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    campaign: str = "",
    mode: str = "",
    source: str = "",
    people: str = "",
    purpose: str = "",
    since: str = "",
    until: str = "",
) -> Response:
    asked = {
        "campaign": campaign, "mode": mode, "source": source, "people": people, "purpose": purpose,
        "since": since, "until": until,
    }  # fmt: skip
    selection = selection_of(db, asked)
    page = DataPage(
        title="Data",
        campaign_options=campaign_options(db),
        asked=asked,
        filtered=any(asked.values()),
        totals=statistics.totals(db, selection),
        others=statistics.others(db, selection),
        agreement=agreement.agreement(db, selection),
        days=statistics.by_day(db, selection),
        by_campaign=statistics.by_campaign(db, selection),
        by_mode=statistics.by_mode(db, selection),
        by_source=statistics.by_source(db, selection),
        by_strength=statistics.by_strength(db, selection),
        by_person=statistics.by_person(db, selection, TOP_PEOPLE),
        by_snapshot=statistics.by_snapshot(db, selection),
        picked_left=statistics.picked_left(db, selection),
        chosen_longer=statistics.chosen_longer(db, selection),
    )
    return render(request, who, page)


def selection_of(db: Session, asked: dict[str, str]) -> Selection:
    """The selection that a form's words mean; empty words filter nothing. BadInput or NotFound name the wrong one."""
    return Selection(
        campaign_id=campaigns.find_campaign(db, asked["campaign"]).id if asked["campaign"] else None,
        mode=asked["mode"] or None,
        source=asked["source"] or None,
        people=asked["people"] or "everyone",
        purpose=asked.get("purpose") or None,
        since=day_of("since", asked["since"]),
        until=day_of("until", asked["until"]),
    )


def day_of(field: str, text: str) -> date | None:
    """The day that a date field means; None when it is empty."""
    try:
        return date.fromisoformat(text.strip()) if text.strip() else None
    except ValueError as error:
        raise BadInput(f"{text!r} is no day; write it as 2026-11-21.", field=field) from error


def campaign_options(db: Session) -> list[tuple[str, str]]:
    """The choices of a form's campaign field: slug and name."""
    return [("", "All campaigns"), *((found.slug, found.name) for found in campaigns.all_campaigns(db))]
