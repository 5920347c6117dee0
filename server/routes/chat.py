"""The chat page, its part that the page's script fetches anew, and the forms that work without any script."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, AppSettings, Crowdworker, Db
from server.errors import WhetstoneError
from server.language import _, later
from server.models import Campaign, Person, Turn
from server.pages import Page, render
from server.routes.chat_view import ChatView, build_view
from server.routes.row_id import row_id
from server.services import dialogue, drafts, feedback, reply_stream

router = APIRouter(prefix="/chat")

COMPLETE = later("That conversation is complete. Thank you! Begin another one whenever you like.")


@dataclass(frozen=True)
class ChatPage(Page):
    """A person's chat in a campaign."""

    template: ClassVar[str] = "chat/page.html"
    chat: ChatView


@dataclass(frozen=True)
class ConversationPart(Page):
    """The part of the page that changes while one works."""

    template: ClassVar[str] = "chat/_conversation.html"
    chat: ChatView


def _go_to(slug: str, query: str = "") -> Response:
    return RedirectResponse(f"/chat/{slug}{query}", status_code=HTTP_303_SEE_OTHER)


@router.get("/{slug}")
def chat_page(request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str, complete: int = 0) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    view = build_view(db, person, campaign, _(COMPLETE) if complete else "")
    return render(request, who, ChatPage(title=campaign.name, chat=view))


@router.get("/{slug}/conversation")
def conversation_part(
    request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str, complete: int = 0
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    view = build_view(db, person, campaign, _(COMPLETE) if complete else "")
    return render(request, who, ConversationPart(title=campaign.name, chat=view))


def _refused(
    request: Request, db: Db, who: AnyVisitor, person: Person, campaign: Campaign, error: WhetstoneError
) -> Response:
    """The page again, with what went wrong at its top and what was typed still in its box."""
    view = build_view(db, person, campaign, error.message)
    return render(request, who, ChatPage(title=campaign.name, chat=view), status=error.status)


@router.post("/{slug}/message")
def send_message(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    idempotency_key: Annotated[str, Form()],
    text: Annotated[str, Form()] = "",
    prompt_id: Annotated[int | None, Form()] = None,
    conversation_id: Annotated[int | None, Form()] = None,
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    try:
        with db.begin_nested():
            dialogue.send_message(db, person, campaign, text, idempotency_key, prompt_id, conversation_id)
    except WhetstoneError as error:
        drafts.save(db, person, drafts.message_place(campaign), text[: drafts.MAX_CHARS])
        return _refused(request, db, who, person, campaign, error)
    return _go_to(slug)


@router.post("/{slug}/comparison")
def store_comparison(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    turn_id: Annotated[int, Form()],
    idempotency_key: Annotated[str, Form()],
    scale_position: Annotated[int, Form()] = 0,
    milliseconds: Annotated[str, Form()] = "",
    justification: Annotated[str, Form()] = "",
    instructions_id: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    turn = feedback.lent_or_own(db, person, turn_id)
    # Without a script nobody measured: the time since the replies were there is the nearest that is known.
    taken = int(milliseconds) if milliseconds.isascii() and milliseconds.isdigit() else _since_ready(turn)
    try:
        with db.begin_nested():
            feedback.store_comparison(
                db, person, turn_id, scale_position, taken, idempotency_key, justification, row_id(instructions_id)
            )
    except WhetstoneError as error:
        message = _("Choose one of the steps between the two replies first.") if scale_position == 0 else error.message
        error.message = message
        return _refused(request, db, who, person, campaign, error)
    own = turn.conversation.person_id == person.id
    return _go_to(slug, "?complete=1" if own and turn.conversation.status == "finished" else "")


def _since_ready(turn: Turn) -> int:
    return int((datetime.now(UTC) - (turn.ready_at or turn.created_at)).total_seconds() * 1000)


@router.post("/{slug}/finish")
def finish_conversation(db: Db, person: Crowdworker, slug: str) -> Response:
    dialogue.finish(db, person, dialogue.find_campaign(db, slug))
    return _go_to(slug)


@router.post("/{slug}/turns/{turn_id}/retry")
def retry_turn(db: Db, settings: AppSettings, person: Crowdworker, slug: str, turn_id: int) -> Response:
    _, failed_before = dialogue.retry_turn(db, person, turn_id)
    assert settings.redis_url is not None
    if failed_before:
        reply_stream.forget(settings.redis_url, turn_id)
    return _go_to(slug)


@router.post("/{slug}/turns/{turn_id}/pass")
def pass_over(db: Db, person: Crowdworker, slug: str, turn_id: int) -> Response:
    feedback.pass_over(db, person, turn_id)
    return _go_to(slug)
