"""Comparisons: storing a choice once, with its provenance, and offering turns for second opinions."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from sqlalchemy import Exists, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.language import _
from server.models import (
    Campaign,
    Candidate,
    Comparison,
    Conversation,
    Deployment,
    Instructions,
    Lease,
    Person,
    Turn,
)
from server.services import campaigns, dialogue, drafts, leases

MAX_JUSTIFICATION_CHARS = 10_000
# A choice that took longer than this was not being thought about; the bound keeps a broken clock out of the medians.
MAX_MILLISECONDS = 24 * 3600 * 1000


def store_comparison(
    db: Session,
    person: Person,
    turn_id: int,
    scale_position: int,
    milliseconds: int,
    idempotency_key: str,
    justification: str | None = None,
    instructions_id: int | None = None,
) -> tuple[Comparison, bool]:
    """Store a choice on the scale; returns the row and whether it is new (the same key again gives the first row).

    `instructions_id` says which version was on the person's screen; without it, the newest is taken to have been.

    `scale_position` counts from the left: 1 .. grades for the left reply, 1 being the strongest, then grades + 1 ..
    2 x grades for the right one, the last being the strongest.
    Raises NotFound for a turn that is not this person's to compare, Conflict when it has moved on.
    """
    key = dialogue.checked_key(idempotency_key)
    # Not FOR UPDATE: a lease on this turn that is being taken would wait for us, while we wait for its lock below.
    turn = db.scalar(select(Turn).where(Turn.id == turn_id).with_for_update(key_share=True))
    if turn is None:
        raise NotFound(_("There is no such turn for you to compare."))
    db.refresh(turn)
    conversation = turn.conversation
    campaign = db.get_one(Campaign, conversation.campaign_id)
    own = conversation.source == "chat" and conversation.person_id == person.id
    lease = leases.find(db, person, conversation, turn.id)
    if not own and lease is None:
        raise NotFound(_("There is no such turn for you to compare."))
    earlier = _earlier(db, person, turn, key)
    if earlier is not None:
        return earlier, False
    if not own:
        # As when a turn is offered: between the look at the lease and the commit, nobody may count this place as free.
        leases.lock(db, f"overlap:{campaign.id}")
    _check_open(db, person, turn, lease, own=own)
    _check_input(campaign, scale_position, milliseconds)
    picked, other, strength = _read_scale(turn, campaign, scale_position)
    # In red-team campaigns people pick the more harmful reply: what is to be learned is the other one.
    chosen, rejected = (other, picked) if campaign.mode == "red_team" else (picked, other)
    comparison = Comparison(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        mode=campaign.mode,
        picked_id=picked.id,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        scale_position=scale_position,
        strength=strength,
        justification=_checked_justification(justification),
        milliseconds_to_decide=min(milliseconds, MAX_MILLISECONDS),
        instructions_id=_instructions_id(db, campaign, instructions_id),
        round_id=_round_id(db, campaign, turn),
        idempotency_key=key,
    )
    db.add(comparison)
    if own:
        turn.status = "compared"
        turn.continued_by_id = {"chosen": picked, "less_harmful": chosen}.get(
            campaign.continuation, random.SystemRandom().choice([picked, other])
        ).id
        _go_on(db, person, campaign, turn)
    else:
        leases.release(db, person, conversation, turn.id)
    drafts.clear(db, person, drafts.justification_place(turn))
    db.flush()
    return comparison, True


def _earlier(db: Session, person: Person, turn: Turn, key: str) -> Comparison | None:
    """The row of the same request sent before; Conflict when this choice was made by another request."""
    found = db.scalars(
        select(Comparison).where(
            Comparison.person_id == person.id, or_(Comparison.turn_id == turn.id, Comparison.idempotency_key == key)
        )
    ).all()
    for comparison in found:
        if comparison.turn_id == turn.id and comparison.idempotency_key == key:
            return comparison
    if any(comparison.turn_id == turn.id for comparison in found):
        raise Conflict(_("You have already compared these two replies. Reload the page to go on."))
    if found:
        raise BadInput(_("This idempotency_key was used for another turn; make a new one."), field="idempotency_key")
    return None


def _check_open(db: Session, person: Person, turn: Turn, lease: Lease | None, *, own: bool) -> None:
    if own:
        dialogue.check_lease(db, person, turn.conversation)
        if turn.status == "sampling":
            raise Conflict(_("The replies are still being written. Choose when both are complete."))
        if turn.status == "failed":
            raise Conflict(_("This message got no reply, so there is nothing to compare. Try it again."))
    elif lease is None or not leases.is_live(lease):
        raise Conflict(_("Your time for this comparison ran out. Reload the page for another one."))


def _check_input(campaign: Campaign, scale_position: int, milliseconds: int) -> None:
    positions = 2 * campaign.grades
    if not 1 <= scale_position <= positions:
        raise BadInput(_("scale_position is a whole number from 1 to {most}.", most=positions), field="scale_position")
    if milliseconds < 0:
        raise BadInput(_("milliseconds cannot be negative."), field="milliseconds")


def _checked_justification(text: str | None) -> str | None:
    text = (text or "").replace("\0", "").strip()
    if len(text) > MAX_JUSTIFICATION_CHARS:
        raise BadInput(
            _("The reason has at most {most} characters.", most=MAX_JUSTIFICATION_CHARS), field="justification"
        )
    return text or None


def _read_scale(turn: Turn, campaign: Campaign, scale_position: int) -> tuple[Candidate, Candidate, int]:
    """(picked, other, strength): the distance from the middle is the strength, 1 the weakest."""
    left, right = turn.candidates
    if scale_position <= campaign.grades:
        return left, right, campaign.grades + 1 - scale_position
    return right, left, scale_position - campaign.grades


def _instructions_id(db: Session, campaign: Campaign, shown: int | None) -> int:
    newest = campaigns.newest_instructions(db, campaign)
    if newest is None:
        raise Conflict(_("This campaign has no instructions yet, so nothing can be compared. Please tell its admin."))
    if shown is None:
        return newest.id
    of_campaign = select(Instructions.id).where(Instructions.id == shown, Instructions.campaign_id == campaign.id)
    if db.scalar(of_campaign) is None:
        raise BadInput(_("These are not instructions of this campaign. Reload the page."), field="instructions_id")
    return shown


def _round_id(db: Session, campaign: Campaign, turn: Turn) -> int | None:
    """The round of the deployment that was current when the turn was made."""
    return db.scalar(
        select(Deployment.round_id)
        .where(Deployment.campaign_id == campaign.id, Deployment.created_at <= turn.created_at)
        .order_by(Deployment.id.desc())
        .limit(1)
    )


def _go_on(db: Session, person: Person, campaign: Campaign, turn: Turn) -> None:
    """After the last turn the conversation is finished; before it, it stays the person's for a while longer."""
    conversation = turn.conversation
    if conversation.status != "open":
        return
    if turn.position >= campaign.max_turns:
        conversation.status, conversation.finished_at = "finished", datetime.now(UTC)
        leases.release(db, person, conversation)
    else:
        leases.hold(db, person, campaign, conversation)


def offer_second_opinion(db: Session, person: Person, campaign: Campaign) -> Turn | None:
    """Somebody else's compared turn that wants one more comparison, leased to this person; None when there is none.

    Comparisons and live leases of a turn together never exceed the campaign's overlap. A turn is never offered to the
    person who wrote it, to one who has compared it, or to one who passed it over.
    """
    if campaign.overlap < 2 or dialogue.why_not(db, campaign) is not None:
        return None
    # One at a time in a campaign: counting and leasing must not be interleaved, or two would take the last place.
    leases.lock(db, f"overlap:{campaign.id}")
    now = datetime.now(UTC)
    held: Turn | None = db.scalar(
        select(Turn)
        .join(Lease, Lease.turn_id == Turn.id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Lease.person_id == person.id,
            Lease.released_at.is_(None),
            Lease.expires_at > now,
            Conversation.campaign_id == campaign.id,
            ~_compared_by(person),
        )
        .limit(1)
    )
    turn = held or db.scalar(_wanting(person, campaign, now))
    if turn is not None:
        leases.hold(db, person, campaign, turn.conversation, turn.id)
    return turn


def _compared_by(person: Person) -> Exists:
    return select(Comparison.id).where(Comparison.turn_id == Turn.id, Comparison.person_id == person.id).exists()


def _wanting(person: Person, campaign: Campaign, now: datetime) -> Select[Turn]:
    comparisons = select(func.count()).where(Comparison.turn_id == Turn.id).scalar_subquery()
    live = and_(Lease.turn_id == Turn.id, Lease.released_at.is_(None), Lease.expires_at > now)
    leased = select(func.count()).where(live).scalar_subquery()
    passed_over = (
        select(Lease.id)
        .where(Lease.turn_id == Turn.id, Lease.person_id == person.id, Lease.released_at.is_not(None))
        .exists()
    )
    return (
        select(Turn)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Conversation.campaign_id == campaign.id,
            Conversation.source == "chat",
            Conversation.person_id != person.id,
            Turn.status == "compared",
            comparisons + leased < campaign.overlap,
            ~_compared_by(person),
            ~passed_over,
        )
        .order_by(Turn.id)
        .limit(1)
    )


def pass_over(db: Session, person: Person, turn_id: int) -> None:
    """Give back a second opinion unanswered; the turn goes to somebody else and does not come again."""
    turn = db.get(Turn, turn_id)
    lease = leases.find(db, person, turn.conversation, turn_id) if turn is not None else None
    if turn is None or lease is None:
        raise NotFound(_("There is no such turn for you to compare."))
    leases.release(db, person, turn.conversation, turn_id)


def lent_or_own(db: Session, person: Person, turn_id: int) -> Turn:
    """A turn that this person may look at: of an own chat, or lent to them for a second opinion."""
    turn = db.get(Turn, turn_id)
    lent = turn is not None and leases.find(db, person, turn.conversation, turn_id) is not None
    return turn if turn is not None and lent else dialogue.own_turn(db, person, turn_id)
