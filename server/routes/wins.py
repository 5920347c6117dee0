"""Who wins, for researchers: a page, the same as JSON, and as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import select

from server.edge import AnyVisitor, Db, Researcher
from server.models import Campaign
from server.pages import Page, render
from server.services.campaigns import campaigns
from server.services.data import wins
from server.services.data.selection import PEOPLE, Selection
from server.services.data.wins import Standings

router = APIRouter()

PURPOSES = ("evaluation", "training", "all")


@dataclass(frozen=True)
class Bar:
    """A player's points and interval as places on a line from 0 to 100."""

    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Wanted:
    """What the filters say."""

    campaign: str
    people: str
    purpose: str
    leaks: str
    weakest: str


@dataclass(frozen=True)
class WinsPage(Page):
    """The standings of a selection."""

    template: ClassVar[str] = "wins/show.html"
    standings: Standings
    bars: list[Bar]
    campaigns: list[Campaign]
    wanted: Wanted
    query: str


def _wanted(
    campaign: str = "",
    people: str = "everyone",
    purpose: str = "evaluation",
    leaks: str = "with",
    weakest: str = "without",
) -> Wanted:
    return Wanted(
        campaign,
        people if people in PEOPLE else "everyone",
        purpose if purpose in PURPOSES else "evaluation",
        "without" if leaks == "without" else "with",
        "with" if weakest == "with" else "without",
    )


Filters = Annotated[Wanted, Depends(_wanted)]


def _standings(db: Db, wanted: Wanted) -> Standings:
    selection = Selection(
        campaign_id=campaigns.find_campaign(db, wanted.campaign).id if wanted.campaign else None,
        people=wanted.people,
        purpose=None if wanted.purpose == "all" else wanted.purpose,
        source="chat",
    )
    return wins.standings(db, selection, without_leaks=wanted.leaks == "without", with_weakest=wanted.weakest == "with")


def _bars(standings: Standings) -> list[Bar]:
    known = [each for each in standings.players if each.elo is not None]
    ends = [end for each in known for end in (*(each.interval or ()), each.elo or 0.0)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    width = max(high - low, 1.0)

    def place(points: float) -> float:
        return round(4 + 92 * (points - low) / width, 2)

    return [
        Bar(
            place(each.elo or 0.0),
            place(each.interval[0]) if each.interval else None,
            place(each.interval[1]) if each.interval else None,
        )
        for each in standings.players
    ]


@router.get("/wins")
def wins_page(request: Request, db: Db, who: AnyVisitor, person: Researcher, wanted: Filters) -> Response:
    found = _standings(db, wanted)
    compared = select(Campaign).where(Campaign.way.in_(("chat", "pairs"))).order_by(Campaign.name)
    page = WinsPage(
        title="Wins",
        standings=found,
        bars=_bars(found),
        campaigns=list(db.scalars(compared)),
        wanted=wanted,
        query=request.url.query,
    )
    return render(request, who, page)


@router.get("/api/wins")
def wins_json(db: Db, person: Researcher, wanted: Filters) -> dict[str, Any]:
    found = _standings(db, wanted)
    told = asdict(found)
    told["left"] = {"picked_left": found.left.part, "picked": found.left.whole, "ci95": found.left.ci95}
    return told


@router.get("/wins/meetings.csv")
def wins_csv(db: Db, person: Researcher, wanted: Filters) -> Response:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["first", "second", "won", "lost", "tied", "both_bad", "share", "low", "high"])
    for each in _standings(db, wanted).meetings:
        low, high = each.interval or ("", "")
        table.writerow([each.first, each.second, each.won, each.lost, each.tied, each.both_bad, each.share, low, high])
    headers = {"Content-Disposition": 'attachment; filename="meetings.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)
