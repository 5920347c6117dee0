"""The chat: a person's conversation in a campaign, its turns and the candidates that answer them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound, TooLarge
from server.language import _, later, ngettext
from server.models import Campaign, Conversation, Person, Turn
from server.services.chat import edits
from server.services.data.transcripts import prompt_before, turns_of
from server.services.door import door
from server.services.items import openings
from server.services.snapshots import candidates
from server.services.working import answers, drafts, kinds, leases
from server.transaction import ask_for

EXPIRED = later(
    "Your conversation expired because nothing happened in it for a while. What you typed is kept; start a new one."
)


def find_campaign(db: Session, slug: str) -> Campaign:
    """The campaign for a crowdworker, whatever its status; closed ones are as if they were not there."""
    campaign = db.scalar(select(Campaign).where(Campaign.slug == slug, Campaign.status != "closed"))
    if campaign is None:
        raise NotFound(_("There is no such campaign, or it has been closed. The start page lists those that are open."))
    return campaign


def why_not(db: Session, campaign: Campaign) -> str | None:
    """Why no new message is taken now, as a sentence; None when all is well."""
    if campaign.status == "paused":
        return _("This campaign is paused. Nothing you did is lost; please come back later.")
    if campaign.status == "closed":
        return _("This campaign is closed. Thank you for your work on it.")
    if campaign.quota is not None and kinds.made(db, campaign) >= campaign.quota:
        return _("This campaign has all the answers it asked for. Thank you for your work on it.")
    return None


def open_conversation(db: Session, person: Person, campaign: Campaign) -> Conversation | None:
    """The one chat in progress, expired or not."""
    return db.scalar(
        select(Conversation).where(
            Conversation.person_id == person.id,
            Conversation.campaign_id == campaign.id,
            Conversation.status == "open",
            Conversation.source == "chat",
        )
    )


def visit(db: Session, person: Person, campaign: Campaign) -> tuple[Conversation | None, bool]:
    """The chat in progress with its lease renewed; without one, whether the last one ended because it expired."""
    leases.lock(db, f"chat:{person.id}:{campaign.id}")
    conversation = open_conversation(db, person, campaign)
    if conversation is None:
        return None, _last_expired(db, person, campaign)
    if _is_stale(db, person, conversation):
        _close(db, conversation, "abandoned")
        return None, True
    leases.hold(db, person, campaign, conversation)
    return conversation, False


def _last_expired(db: Session, person: Person, campaign: Campaign) -> bool:
    """Whether this person's newest chat was closed for its lease, by the sweep or by an earlier visit."""
    newest = (
        select(Conversation.status)
        .where(
            Conversation.person_id == person.id,
            Conversation.campaign_id == campaign.id,
            Conversation.source == "chat",
        )
        .order_by(Conversation.id.desc())
        .limit(1)
    )
    return db.scalar(newest) == "abandoned"


def _is_stale(db: Session, person: Person, conversation: Conversation) -> bool:
    lease = leases.find(db, person, conversation)
    return lease is not None and not leases.is_live(lease)


def check_lease(db: Session, person: Person, conversation: Conversation) -> None:
    """Conflict unless the person's own conversation is open and its lease live."""
    if conversation.status == "abandoned" or (conversation.status == "open" and _is_stale(db, person, conversation)):
        raise Conflict(_(EXPIRED))


def send_message(
    db: Session,
    person: Person,
    campaign: Campaign,
    text: str,
    idempotency_key: str,
    prompt_id: int | None = None,
    conversation_id: int | None = None,
) -> Turn:
    """Store a message with its two queued candidates and ask for the replies; the same key gives the same turn.

    With `conversation_id` the message is for that conversation and no other: Conflict when it is over.
    """
    key = answers.checked_key(idempotency_key)
    # One message at a time of a person in a campaign: a second tab or a double click waits here, then finds the first.
    leases.lock(db, f"chat:{person.id}:{campaign.id}")
    earlier = db.scalar(
        select(Turn)
        .join(Conversation)
        .where(
            Turn.idempotency_key == key,
            Conversation.person_id == person.id,
            Conversation.campaign_id == campaign.id,
            Conversation.source == "chat",
        )
    )
    if earlier is not None:
        return earlier
    text = _checked_message(campaign, text)
    refusal = why_not(db, campaign)
    if refusal is not None:
        raise Conflict(refusal)
    door.check(db, person, campaign)
    conversation = open_conversation(db, person, campaign)
    if conversation_id is not None and (conversation is None or conversation.id != conversation_id):
        raise Conflict(_(EXPIRED))
    if conversation is None:
        turn = _open_with(db, person, campaign, text, prompt_id, key)
    else:
        check_lease(db, person, conversation)
        turn = _add_turn(db, campaign, conversation, text, key)
    leases.hold(db, person, campaign, turn.conversation)
    drafts.clear(db, person, drafts.message_place(campaign))
    return turn


def _checked_message(campaign: Campaign, text: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise BadInput(_("The message is empty. Type something first."), field="text")
    if len(text) > campaign.max_message_chars:
        sentence = _(
            "The message has {length} characters; at most {most} can be sent here.",
            length=len(text),
            most=campaign.max_message_chars,
        )
        raise TooLarge(sentence, field="text")
    if "\0" in text:
        sentence = _("The message holds a character (U+0000) that cannot be stored. Please remove it.")
        raise BadInput(sentence, field="text")
    return text


def _open_with(db: Session, person: Person, campaign: Campaign, text: str, prompt_id: int | None, key: str) -> Turn:
    """The first turn of a new chat: from the store when a suggestion was taken whose replies are there."""
    prompt = openings.of_pool(db, campaign, prompt_id)
    if prompt is not None and prompt.text.strip() != text:
        prompt = None  # it counts as used only when it was sent as it stands
    turn = openings.claim(db, person, campaign, prompt, text, key) if prompt is not None else None
    if turn is not None:
        return turn
    conversation = Conversation(
        campaign_id=campaign.id, person_id=person.id, prompt_id=prompt.id if prompt is not None else None
    )
    db.add(conversation)
    db.flush()
    return _add_turn(db, campaign, conversation, text, key)


def _add_turn(db: Session, campaign: Campaign, conversation: Conversation, text: str, key: str) -> Turn:
    last = last_turn(db, conversation)
    if last is not None and last.status == "failed":
        raise Conflict(_("The last message got no reply. Try it again, or start a new conversation."))
    if last is not None and last.status != "compared":
        raise Conflict(_("First choose between the two replies to your last message."))
    if last is not None and campaign.edits == "required" and edits.wanted(db, campaign, last) is not None:
        raise Conflict(_("First improve the reply that you chose."))
    position = last.position + 1 if last is not None else 1
    if position > campaign.max_turns:
        raise Conflict(
            ngettext(
                "This conversation has reached its one turn. Start a new one.",
                "This conversation has reached its {n} turns. Start a new one.",
                campaign.max_turns,
            )
        )
    turn = Turn(conversation_id=conversation.id, position=position, message=text, idempotency_key=key)
    db.add(turn)
    db.flush()
    candidates.add(db, campaign, turn, candidates.PAIR)
    ask_for(db, "reply", turn_id=turn.id)
    return turn


def last_turn(db: Session, conversation: Conversation) -> Turn | None:
    """The newest turn of a conversation."""
    return db.scalar(
        select(Turn).where(Turn.conversation_id == conversation.id).order_by(Turn.position.desc()).limit(1)
    )


def transcript(db: Session, turn: Turn) -> list[dict[str, str]]:
    """What a model is given: the earlier turns with the replies that carried them on, then this turn's message."""
    earlier = turns_of(db, [turn.conversation_id])[turn.conversation_id] if turn.position > 1 else []
    return prompt_before(turn, earlier)


def own_turn(db: Session, person: Person, turn_id: int) -> Turn:
    """A turn of one of this person's chats; NotFound for anybody else's, as if it did not exist."""
    turn = db.scalar(
        select(Turn)
        .join(Conversation)
        .where(Turn.id == turn_id, Conversation.person_id == person.id, Conversation.source == "chat")
    )
    if turn is None:
        raise NotFound(_("There is no such turn among your conversations."))
    return turn


def retry_turn(db: Session, person: Person, turn_id: int) -> tuple[Turn, bool]:
    """Ask again for the replies of a failed turn: the turn, and whether it had failed. Any other stays as it is."""
    turn = own_turn(db, person, turn_id)
    db.refresh(turn, with_for_update=True)
    if turn.status != "failed":
        return turn, False
    check_lease(db, person, turn.conversation)
    if turn.conversation.status != "open":
        raise Conflict(_("This conversation is over. Start a new one."))
    candidates.ask_again(db, turn)
    return turn, True


def finish(db: Session, person: Person, campaign: Campaign) -> Conversation | None:
    """End the chat in progress, so that the next message starts another; None when there is none."""
    leases.lock(db, f"chat:{person.id}:{campaign.id}")
    conversation = open_conversation(db, person, campaign)
    if conversation is not None:
        last = last_turn(db, conversation)
        place = drafts.message_place(campaign)
        # a message that was never answered is theirs to mend
        if last is not None and last.status == "failed" and not drafts.load(db, person, place):
            drafts.save(db, person, place, last.message)
        _close(db, conversation, "finished")
        leases.release(db, person, conversation)
    return conversation


def _close(db: Session, conversation: Conversation, status: str) -> None:
    conversation.status, conversation.finished_at = status, datetime.now(UTC)
    db.flush()
