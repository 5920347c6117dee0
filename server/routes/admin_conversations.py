"""Every conversation, readable: a list to filter, and each one whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from server.edge import AnyVisitor, Db, Researcher
from server.pages import Page, render
from server.routes.admin_data import campaign_options
from server.routes.row_id import RowId, row_id
from server.services.campaigns import campaigns
from server.services.data import conversations

router = APIRouter()


@dataclass(frozen=True)
class ConversationsPage(Page):
    """The list."""

    template: ClassVar[str] = "admin/conversations.html"
    campaign_options: list[tuple[str, str]]
    asked: dict[str, str]
    lines: list[conversations.Line]
    first_page: bool
    older: str | None


@dataclass(frozen=True)
class ConversationPage(Page):
    """One conversation."""

    template: ClassVar[str] = "admin/conversation.html"
    record: conversations.ConversationRecord


@router.get("/admin/conversations")
def conversations_page(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Researcher,
    campaign: str = "",
    mode: str = "",
    source: str = "",
    status: str = "",
    by: str = "",
    compared: str = "",
    before: str = "",
) -> Response:
    asked = {
        "campaign": campaign, "mode": mode, "source": source, "status": status, "by": by, "compared": compared,
    }  # fmt: skip
    wanted = conversations.Filter(
        campaign_id=campaigns.find_campaign(db, campaign).id if campaign else None,
        mode=mode or None,
        source=source or None,
        status=status or None,
        person_id=row_id(by),
        answered=compared == "yes",
    )
    lines, following = conversations.list_conversations(db, wanted, row_id(before))
    query = urlencode({**{name: word for name, word in asked.items() if word}, "before": following or ""})
    page = ConversationsPage(
        title="Conversations",
        campaign_options=campaign_options(db),
        asked=asked,
        lines=lines,
        first_page=not before,
        older=f"/admin/conversations?{query}" if following else None,
    )
    return render(request, who, page)


@router.get("/admin/conversations/{conversation_id}")
def conversation_page(
    request: Request, db: Db, who: AnyVisitor, person: Researcher, conversation_id: RowId
) -> Response:
    record = conversations.read_conversation(db, conversation_id)
    return render(request, who, ConversationPage(title=f"Conversation {conversation_id}", record=record))
