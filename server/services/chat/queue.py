"""Turns that want answers of several people: offering, lending, and knowing when one has them all.

A turn is in its campaign's queue while `queue_id` is set. Its answers and the live leases on it together never exceed the
campaign's overlap: the turn's row is locked, then both are counted anew, so two people cannot take the last place, and
nobody waits for anybody who works on another turn. A lease that ran out holds nothing; whether it did is asked of the
database's clock alone and under that lock, since two clocks would free a place that its holder can still use. Nobody is
offered their own conversation, nor a turn that they answered, skipped or gave back.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, exists, func, literal, or_, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from server.db import LOCK_TIMEOUT_MS
from server.errors import Conflict, NotFound
from server.language import _, later
from server.models import Campaign, Candidate, Comparison, Conversation, Demonstration, Lease, Person, Skip, Turn
from server.services.chat import dialogue
from server.services.door import door, screening
from server.services.items import pool_items
from server.services.working import leases
from server.services.working.kinds import ANSWERS, wanted
from server.transaction import ask_for

RAN_OUT = later("Your time for this item ran out. What you typed is kept; reload the page for another one.")
PATIENCE_MS = 500
LOCK_NOT_AVAILABLE = "55P03"  # a SQLSTATE of PostgreSQL
WAYS = ("chat", "pairs", "ranking", "demonstration")  # in these a turn may be lent


def draws_check(campaign: Any) -> bool:
    """Whether the next item is to be a check, as often as the campaign (a row with its settings is enough) says."""
    return bool(campaign.check_rate) and random.SystemRandom().random() < campaign.check_rate


def offer(
    db: Session, person: Person, campaign: Campaign, *, wait: bool = True, check: bool | None = None
) -> Turn | None:
    """The turn this person holds, or the oldest that still wants an answer of theirs, leased to them; None without one.

    `check` says whether a check is mixed in now; without it, it is drawn.

    A turn that somebody else is at in this very moment is passed over; where there is no other, it is waited for, since
    it may have a place yet. Who holds the row of a turn already says `wait=False`: two who waited for each other would
    wait for ever. They may get None too early, and ask again with their next request.
    """
    if campaign.way not in WAYS or (campaign.way == "chat" and campaign.overlap < 2):
        return None
    held = _renewed(db, person, campaign, wait=wait)
    if held is not None:  # may be finished, though the campaign be paused or have all its answers by now
        return held
    if dialogue.why_not(db, campaign) is not None:
        return None
    standing = door.standing(db, person, campaign)
    if standing.step != door.READY:
        return None
    if screening.goes_on(db, person, campaign, standing.membership):
        return _take(db, person, campaign, checks=True)  # and nothing else, though none be left: the door stays shut
    if draws_check(campaign) if check is None else check:
        found = _take(db, person, campaign, checks=True)
        if found is not None:
            return found
    found = _take(db, person, campaign, checks=False, wait=wait)
    if found is None and wait and pool_items.refill(db, campaign, None):
        found = _take(db, person, campaign, checks=False)
    return found


def holds(db: Session, person: Person, campaign: Campaign) -> bool:
    """Whether this person has work in hand: a chat under way, or an item that is lent to them."""
    if campaign.way in WAYS and db.scalar(_held(person, campaign)) is not None:
        return True
    return dialogue.open_conversation(db, person, campaign) is not None


def _renewed(db: Session, person: Person, campaign: Campaign, *, wait: bool) -> Turn | None:
    """The turn that this person was lent last, for a while longer; None when they hold none any more."""
    held = db.scalar(_held(person, campaign).with_for_update(of=Turn, key_share=True, skip_locked=not wait))
    if held is None:
        return None
    # Only now is the row ours: while we waited for it, the lease may have run out and its place have gone.
    lease = leases.find(db, person, held.conversation, held.id)
    if lease is None or not _still_lent(db, lease):
        return None
    leases.hold(db, person, campaign, held.conversation, held.id)
    return held


def _take(db: Session, person: Person, campaign: Campaign, *, checks: bool, wait: bool = False) -> Turn | None:
    """Lease the first fitting turn. One whose last place went while we looked is passed over."""
    passed: list[int] = []
    waiting = False
    while True:
        look = _wanting(person, campaign, passed, checks=checks, wait=waiting)
        turn = _waited_for(db, look) if waiting else db.scalar(look)
        if turn is None and wait and not waiting:
            waiting = True
            continue
        if turn is None:
            return None
        # The row is ours now, so what others did to it is committed: this count is the true one.
        if checks or places_taken(db, campaign, turn.id) < campaign.overlap:
            leases.hold(db, person, campaign, turn.conversation, turn.id, mirrored=random.SystemRandom().random() < 0.5)
            return turn
        passed.append(turn.id)


def _waited_for(db: Session, look: Select[Turn]) -> Turn | None:
    """The turn, once whoever is at it lets go; None after PATIENCE_MS.

    Forty people who all want the last item would else stand in a row behind it, each for as long as all before them.
    """
    try:
        with db.begin_nested():
            db.execute(text(f"SET LOCAL lock_timeout = {PATIENCE_MS}"))
            turn = db.scalar(look)
            db.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
            return turn
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        return None


def _held(person: Person, campaign: Campaign) -> Select[Turn]:
    return (
        select(Turn)
        .join(Lease, Lease.turn_id == Turn.id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Lease.person_id == person.id,
            Lease.released_at.is_(None),
            Lease.expires_at > func.clock_timestamp(),
            # Not by queue_id: while its own person has taken a choice back, a turn is in no queue, and is still lent.
            Conversation.campaign_id == campaign.id,
            ~_answered_by(person, campaign),
        )
        .order_by(Lease.expires_at.desc())  # after an answer was taken back there are two: first the one it was of
        .limit(1)
    )


def _answered_by(person: Person, campaign: Campaign) -> ColumnElement[bool]:
    answers = ANSWERS[campaign.way]
    return exists().where(answers.turn_id == Turn.id, answers.person_id == person.id)


def has_answered(db: Session, person: Person, campaign: Campaign, turn: Turn) -> bool:
    """Whether this person's answer to the turn is stored."""
    return db.scalar(select(Turn.id).where(Turn.id == turn.id, _answered_by(person, campaign))) is not None


def _wanting(person: Person, campaign: Campaign, passed: list[int], *, checks: bool, wait: bool) -> Select[Turn]:
    answers = ANSWERS[campaign.way]
    given = select(func.count()).where(answers.turn_id == Turn.id).scalar_subquery()
    lent = select(func.count()).where(leases.live_on(Turn.id)).scalar_subquery()
    had = or_(
        _answered_by(person, campaign),
        exists().where(Lease.turn_id == Turn.id, Lease.person_id == person.id, Lease.released_at.is_not(None)),
        exists().where(Skip.turn_id == Turn.id, Skip.person_id == person.id),
        exists().where(  # a reply that they wrote themselves
            Candidate.turn_id == Turn.id,
            Demonstration.id == Candidate.demonstration_id,
            Demonstration.person_id == person.id,
        ),
    )
    kept_for_them = or_(Turn.kept_for.is_(None), literal(person.id) == any_(Turn.kept_for))
    query = (
        select(Turn)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Turn.queue_id == campaign.id,
            Turn.status.in_(("ready", "compared")),
            Conversation.person_id.is_distinct_from(person.id),
            Turn.check_kind.is_not(None) if checks else Turn.check_kind.is_(None),
            ~had,
            kept_for_them,
            Turn.id.not_in(passed),
        )
        .limit(1)
        .with_for_update(of=Turn, key_share=True, skip_locked=not wait)
    )
    if checks:  # everybody may get each check once, whoever had it before
        return query.order_by(func.random())
    return query.where(given + lent < campaign.overlap).order_by(Turn.id)


def places_taken(db: Session, campaign: Campaign, turn_id: int) -> int:
    """Answers to a turn, and leases on it that still run."""
    answers = ANSWERS[campaign.way]
    given = select(func.count()).where(answers.turn_id == turn_id).scalar_subquery()
    lent = select(func.count()).where(leases.live_on(turn_id)).scalar_subquery()
    return db.scalar(select(given + lent)) or 0


def lock_turn(db: Session, turn_id: int) -> Turn:
    """The turn with its row locked until the end of the transaction; NotFound when there is none."""
    # Not FOR UPDATE: rows that refer to the turn may be written meanwhile.
    turn = db.scalar(
        select(Turn).where(Turn.id == turn_id).with_for_update(key_share=True).execution_options(populate_existing=True)
    )
    if turn is None:
        raise NotFound(_("There is no such turn for you to answer."))
    return turn


def _still_lent(db: Session, lease: Lease) -> bool:
    """By the clock that places are counted by: those of web servers differ from it and from each other."""
    return lease.released_at is None and bool(db.scalar(select(func.clock_timestamp() < lease.expires_at)))


def check_lent(db: Session, lease: Lease | None) -> None:
    """Conflict when the person's time for an item of the queue is over; the caller has locked its turn."""
    if lease is None or not _still_lent(db, lease):
        raise Conflict(_(RAN_OUT))


def enqueue(db: Session, campaign: Campaign, turn: Turn) -> None:
    """Put a turn of a chat, just compared, before others too, where the campaign wants several opinions."""
    db.flush()
    # Others may have answered already, when its own person took the first choice back.
    given = db.scalar(select(func.count()).where(Comparison.turn_id == turn.id)) or 0
    if given < campaign.overlap:
        turn.queue_id = campaign.id
        db.flush()


def answered(db: Session, person: Person, campaign: Campaign, turn: Turn) -> None:
    """After an answer was stored: give the lease back, and take the turn out of the queue when it has all its answers."""
    leases.release(db, person, turn.conversation, turn.id)
    if campaign.way in pool_items.WAYS:
        ask_for(db, "prepare_openings", campaign_id=campaign.id)
    if turn.check_kind is not None:
        return  # a check stays for everybody
    answers = ANSWERS[campaign.way]
    given = select(func.count()).where(answers.turn_id == turn.id).scalar_subquery()
    if db.scalar(select(given >= wanted(campaign)).where(Turn.id == turn.id)):
        turn.queue_id = None
        if turn.status == "ready":
            turn.status = "compared"
    db.flush()


def reopen(db: Session, campaign: Campaign, turn: Turn) -> None:
    """After an answer was taken back: the turn wants one more again.

    Not a turn of a chat whose own person has taken theirs back too: it comes back with their next choice (`enqueue`), and
    until then others could take the place that is theirs.
    """
    item = turn.conversation.source == "item"
    turn.queue_id = campaign.id if item or turn.continued_by_id is not None else None
    if item:
        turn.status = "ready"
    db.flush()


def as_shown(turn: Turn, lease: Lease | None) -> Sequence[Candidate]:
    """The candidates in the order in which this lease's person sees them: two on sides drawn, more in an order drawn."""
    if lease is None or lease.turn_id is None:
        return turn.candidates
    if len(turn.candidates) == 2:
        return turn.candidates[::-1] if lease.mirrored else turn.candidates
    # The lease's number is the seed: the same order at each reload, another for the next person.
    return random.Random(lease.id).sample(turn.candidates, len(turn.candidates))


def lent_or_own(db: Session, person: Person, turn_id: int) -> Turn:
    """A turn that this person may look at: of an own chat, or lent to them."""
    turn = db.get(Turn, turn_id)
    lent = turn is not None and leases.find(db, person, turn.conversation, turn_id) is not None
    return turn if turn is not None and lent else dialogue.own_turn(db, person, turn_id)
