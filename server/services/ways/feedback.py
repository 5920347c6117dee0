"""Comparisons: storing a choice once, with its provenance; and what may be done instead of or beside one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.language import _
from server.models import Campaign, Candidate, Comparison, Lease, Person, Turn
from server.services.chat import dialogue, edits, queue
from server.services.door import checks, door
from server.services.snapshots import candidates
from server.services.working import answers, drafts, leases
from server.services.working.answers import Sent

Reply = TypeVar("Reply")
VERDICTS = ("picked", "tie", "both_bad")


def store_comparison(
    db: Session,
    person: Person,
    turn_id: int,
    scale_position: int | None,
    milliseconds: int,
    idempotency_key: str,
    justification: str | None = None,
    instructions_id: int | None = None,
    *,
    verdict: str = "picked",
    noticed: Mapping[str, Any] | None = None,
) -> tuple[Comparison, bool]:
    """Store a choice; returns the row and whether it is new (the same key again gives the first row).

    `scale_position` counts from the left as the replies were shown: 1 .. grades for the left one, 1 being the strongest,
    then grades + 1 .. 2 x grades for the right one, the last being the strongest. A `tie` and `both_bad` have none; the
    campaign must allow them, and `both_bad` needs a justification. `instructions_id` says which version was on the
    person's screen, `noticed` are the browser's signals.
    Raises NotFound for a turn that is not this person's to compare, Conflict when it has moved on.
    """
    key = answers.checked_key(idempotency_key)
    turn = queue.lock_turn(db, turn_id)
    conversation = turn.conversation
    campaign = db.get_one(Campaign, conversation.campaign_id)
    own = conversation.source == "chat" and conversation.person_id == person.id
    lease = leases.find(db, person, conversation, turn.id)
    if not own and lease is None:
        raise NotFound(_("There is no such turn for you to answer."))
    earlier: Comparison | None = answers.earlier(db, Comparison, person, turn, key)
    if earlier is not None:
        return earlier, False
    _check_open(db, person, campaign, turn, lease, own=own)
    check_verdict(campaign, verdict, scale_position)
    mirrored = not own and lease is not None and lease.mirrored
    shown = turn.candidates if own else queue.as_shown(turn, lease)
    picked, other, strength = read_scale(shown, campaign.grades, scale_position)
    chosen, rejected = learned(campaign.mode, picked, other)
    sent = Sent(milliseconds, key, instructions_id, noticed)
    comparison = Comparison(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        mode=campaign.mode,
        purpose=answers.purpose_of(person, campaign),
        verdict=verdict,
        picked_id=picked and picked.id,
        chosen_id=chosen and chosen.id,
        rejected_id=rejected and rejected.id,
        scale_position=scale_position,
        strength=strength,
        mirrored=mirrored,
        justification=answers.checked_justification(campaign, justification, required=verdict == "both_bad"),
        **answers.columns_of(db, person, campaign, sent, "milliseconds_to_decide"),
        round_id=answers.round_of(db, campaign, turn),
    )
    db.add(comparison)
    if own:
        turn.status = "compared"
        turn.continued_by_id = _continues(campaign, turn, picked, chosen).id
        _go_on(db, person, campaign, turn)
        queue.enqueue(db, campaign, turn)
    else:
        db.flush()
        checks.record_comparison(db, person, campaign, turn, comparison)
        queue.answered(db, person, campaign, turn)
    drafts.clear(db, person, drafts.justification_place(turn))
    db.flush()
    return comparison, True


def _check_open(db: Session, person: Person, campaign: Campaign, turn: Turn, lease: Lease | None, *, own: bool) -> None:
    if campaign.way not in ("chat", "pairs") or len(turn.candidates) != candidates.PAIR:
        raise Conflict(_("There are no two replies to compare here. Reload the page to go on."))
    if own:
        door.check_inside(db, person, campaign)
        dialogue.check_lease(db, person, turn.conversation)
        if turn.status == "sampling":
            raise Conflict(_("The replies are still being written. Choose when both are complete."))
        if turn.status == "failed":
            raise Conflict(_("This message got no reply, so there is nothing to compare. Try it again."))
    else:
        queue.check_lent(db, lease)


def check_verdict(campaign: Any, verdict: str, scale_position: int | None) -> None:
    """BadInput when the campaign (a row with its settings is enough) does not offer such an answer."""
    allowed = {"picked": True, "tie": campaign.ties, "both_bad": campaign.both_bad}
    if verdict not in allowed:
        raise BadInput(_("verdict is picked, tie or both_bad."), field="verdict")
    if not allowed[verdict]:
        raise BadInput(_("This campaign asks for one of the two replies. Choose a step of the scale."), field="verdict")
    positions = 2 * campaign.grades
    if verdict == "picked" and not 1 <= (scale_position or 0) <= positions:
        raise BadInput(_("scale_position is a whole number from 1 to {most}.", most=positions), field="scale_position")
    if verdict != "picked" and scale_position is not None:
        raise BadInput(_("A tie and “both are bad” have no place on the scale."), field="scale_position")


def read_scale(
    shown: Sequence[Reply], grades: int, scale_position: int | None
) -> tuple[Reply | None, Reply | None, int | None]:
    """(picked, other, strength) of two replies as they were shown, left and right.

    The distance from the middle is the strength, 1 the weakest; without a place there is nothing.
    """
    if scale_position is None:
        return None, None, None
    left, right = shown
    if scale_position <= grades:
        return left, right, grades + 1 - scale_position
    return right, left, scale_position - grades


def learned(mode: str, picked: Reply | None, other: Reply | None) -> tuple[Reply | None, Reply | None]:
    """(chosen, rejected): in red-team campaigns people pick the more harmful reply, and what is to be learned is the other."""
    return (other, picked) if mode == "red_team" else (picked, other)


def _continues(campaign: Campaign, turn: Turn, picked: Candidate | None, chosen: Candidate | None) -> Candidate:
    """The reply that carries the chat on; after a tie, or where both are bad, one of the two at random."""
    by_setting = {"chosen": picked, "less_harmful": chosen}.get(campaign.continuation)
    return by_setting or random.SystemRandom().choice(turn.candidates)


def _go_on(db: Session, person: Person, campaign: Campaign, turn: Turn) -> None:
    """After the last turn the conversation is finished; before it, it stays the person's for a while longer."""
    conversation = turn.conversation
    if conversation.status != "open":
        return
    if turn.position >= campaign.max_turns and edits.wanted(db, campaign, turn) is None:
        conversation.status, conversation.finished_at = "finished", datetime.now(UTC)
        leases.release(db, person, conversation)
    else:
        leases.hold(db, person, campaign, conversation)
