"""The start page: what Whetstone is, or what there is to do for the person who is signed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter, Request, Response

from server.edge import AnyVisitor, Crowdworker, Db
from server.language import _
from server.pages import Page, render
from server.services import overview
from server.services.overview import CampaignCard, Numbers

router = APIRouter()


@dataclass(frozen=True)
class HomePage(Page):
    """The start; `cards` for those who compare, `numbers` for those who look after it."""

    template: ClassVar[str] = "home/home.html"
    cards: list[CampaignCard] | None
    numbers: Numbers | None
    admin: bool


@router.get("/")
def home_page(request: Request, db: Db, who: AnyVisitor) -> Response:
    roles = set(who.person.roles) if who.person is not None else set()
    page = HomePage(
        title=_("Start"),
        cards=overview.campaign_cards(db, who.person) if who.person is not None and "crowdworker" in roles else None,
        numbers=overview.numbers(db) if roles & {"researcher", "admin"} else None,
        admin="admin" in roles,
    )
    return render(request, who, page)


@router.get("/chat")
def campaigns_page(request: Request, db: Db, who: AnyVisitor, person: Crowdworker) -> Response:
    page = HomePage(title=_("Chat"), cards=overview.campaign_cards(db, person), numbers=None, admin=False)
    return render(request, who, page)
