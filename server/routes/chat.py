"""The chat page, its part that the page's script fetches anew, and the forms that work without any script."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, AppSettings, Crowdworker, Db
from server.errors import NotAllowed, NotFound, WhetstoneError
from server.language import _, later
from server.models import Campaign, Person, Turn
from server.pages import Page, render
from server.routes.chat_view import ChatView, build_view
from server.routes.row_id import row_id
from server.services.chat import dialogue, own_success, queue, reply_stream
from server.services.door import door
from server.services.ways import feedback, remarks, undo
from server.services.working import drafts, leases, work_time

router = APIRouter(prefix="/chat")

COMPLETE = later("That conversation is complete. Thank you! Begin another one whenever you like.")
REPORTED = later("Your report is with the people who run this campaign. Thank you.")


def _notice(complete: int, reported: int) -> str:
    return _(COMPLETE) if complete else _(REPORTED) if reported else ""


@dataclass(frozen=True)
class ChatPage(Page):
    """A person's chat in a campaign."""

    template: ClassVar[str] = "chat/page.html"
    chat: ChatView
    paid: str  # today's time and pay, where there is any


@dataclass(frozen=True)
class ConversationPart(Page):
    """The part of the page that changes while one works."""

    template: ClassVar[str] = "chat/_conversation.html"
    chat: ChatView


def _closed(db: Db, person: Person, campaign: Campaign) -> bool:
    """Whether the door stands between this person and the page; what they have in hand, they may finish."""
    found = door.standing(db, person, campaign)
    if found.step == door.READY:
        return False
    return found.step != "daily_limit" or not _something_left(db, person, campaign)


def _something_left(db: Db, person: Person, campaign: Campaign) -> bool:
    """Work in hand, an answer that can be taken back, or a conversation to be rated."""
    return (
        queue.holds(db, person, campaign)
        or undo.undoable(db, person, campaign) is not None
        or own_success.asked(db, person, campaign) is not None
    )


def _view(db: Db, person: Person, campaign: Campaign, notice: str) -> ChatView:
    """What a visit shows; it is a sign of work where there is something to do."""
    view = build_view(db, person, campaign, notice)
    if (view.refusal is None and not view.nothing_left) or view.in_hand:
        work_time.seen(db, person, campaign)
    return view


def _page(db: Db, person: Person, campaign: Campaign, view: ChatView) -> ChatPage:
    return ChatPage(title=campaign.name, chat=view, paid=work_time.line(db, person, campaign))


def _go_to(slug: str, query: str = "") -> Response:
    return RedirectResponse(f"/chat/{slug}{query}", status_code=HTTP_303_SEE_OTHER)


@router.get("/{slug}")
def chat_page(
    request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str, complete: int = 0, reported: int = 0
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    if _closed(db, person, campaign):
        return _go_to(slug, "/begin")
    view = _view(db, person, campaign, _notice(complete, reported))
    return render(request, who, _page(db, person, campaign, view))


@router.get("/{slug}/conversation")
def conversation_part(
    request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str, complete: int = 0, reported: int = 0
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    if _closed(db, person, campaign):  # the script then loads the whole page, which goes to the door
        raise NotAllowed(door.standing(db, person, campaign).sentence)
    view = _view(db, person, campaign, _notice(complete, reported))
    return render(request, who, ConversationPart(title=campaign.name, chat=view))


def refused(
    request: Request, db: Db, who: AnyVisitor, person: Person, campaign: Campaign, error: WhetstoneError
) -> Response:
    """The page again, with what went wrong at its top and what was typed still in its box."""
    view = build_view(db, person, campaign, error.message)
    return render(request, who, _page(db, person, campaign, view), status=error.status)


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
        return refused(request, db, who, person, campaign, error)
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
    scale_position: Annotated[str, Form(max_length=20)] = "",
    milliseconds: Annotated[str, Form()] = "",
    justification: Annotated[str, Form()] = "",
    instructions_id: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    campaign, turn = turn_here(db, person, slug, turn_id)
    verdict = scale_position if scale_position in feedback.VERDICTS else "picked"
    place = int(scale_position) if scale_position.isascii() and scale_position.isdigit() else None
    # Without a script nobody measured: the time since the replies were there is the nearest that is known.
    measured = number(milliseconds)
    taken = since_seen(db, person, turn) if measured is None else measured
    try:
        with db.begin_nested():
            _stored, new = feedback.store_comparison(
                db,
                person,
                turn_id,
                place,
                taken,
                idempotency_key,
                justification,
                row_id(instructions_id),
                verdict=verdict,
            )
    except WhetstoneError as error:
        message = _("Choose one of the steps between the two replies first.") if not scale_position else error.message
        error.message = message
        drafts.save(db, person, drafts.justification_place(turn), justification[: drafts.MAX_CHARS])
        return refused(request, db, who, person, campaign, error)
    work_time.seen(db, person, campaign, answers=int(new))
    own = turn.conversation.person_id == person.id
    return _go_to(slug, "?complete=1" if own and turn.conversation.status == "finished" else "")


def turn_here(db: Db, person: Person, slug: str, turn_id: int) -> tuple[Campaign, Turn]:
    """The campaign of this address and a turn in it that the person may look at; NotFound for a turn of another campaign."""
    campaign = dialogue.find_campaign(db, slug)
    turn = queue.lent_or_own(db, person, turn_id)
    if turn.conversation.campaign_id != campaign.id:  # its time would be paid by the wrong one
        raise NotFound(_("There is no such turn for you to answer."))
    return campaign, turn


def number(text: str) -> int | None:
    """What a field of a form says, if it is a number of sensible length."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def since_seen(db: Db, person: Person, turn: Turn) -> int:
    """Milliseconds since this person could answer the turn: the nearest that is known where no script measured."""
    # An opening from the store was ready before anybody saw it, and an item of a queue long before it was lent.
    lease = leases.find(db, person, turn.conversation, turn.id)
    lent = lease.created_at if lease is not None else turn.conversation.started_at
    seen = max(turn.ready_at or turn.created_at, turn.conversation.started_at, lent)
    return int((datetime.now(UTC) - seen).total_seconds() * 1000)


@router.post("/{slug}/finish")
def finish_conversation(db: Db, person: Crowdworker, slug: str) -> Response:
    dialogue.finish(db, person, dialogue.find_campaign(db, slug))
    return _go_to(slug)


@router.post("/{slug}/turns/{turn_id}/retry")
def retry_turn(db: Db, settings: AppSettings, person: Crowdworker, slug: str, turn_id: int) -> Response:
    turn_here(db, person, slug, turn_id)
    _turn, failed_before = dialogue.retry_turn(db, person, turn_id)
    assert settings.redis_url is not None
    if failed_before:
        reply_stream.forget(settings.redis_url, turn_id)
    return _go_to(slug)


@router.post("/{slug}/turns/{turn_id}/skip")
def skip_turn(
    db: Db, person: Crowdworker, slug: str, turn_id: int, reason: Annotated[str, Form(max_length=40)] = "cannot_tell"
) -> Response:
    turn_here(db, person, slug, turn_id)
    remarks.skip(db, person, turn_id, reason)
    return _go_to(slug)


@router.post("/{slug}/turns/{turn_id}/report")
def report_turn(
    db: Db,
    person: Crowdworker,
    slug: str,
    turn_id: int,
    reason: Annotated[str, Form(max_length=40)],
    note: Annotated[str, Form(max_length=10_000)] = "",
    position: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    turn_here(db, person, slug, turn_id)
    remarks.report(db, person, turn_id, reason, note, number(position))
    return _go_to(slug, "?reported=1")


@router.post("/{slug}/undo")
def undo_last(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    turn_id: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    campaign = dialogue.find_campaign(db, slug)
    try:
        with db.begin_nested():
            undo.undo(db, person, campaign, row_id(turn_id))
    except WhetstoneError as error:
        return refused(request, db, who, person, campaign, error)
    return _go_to(slug)
