"""The door of a campaign: what stands between a person and the work, if anything, and how each of these is passed.

In this order: whether the campaign is for members only, or the person was sent for another; how the person stands in it (left, excluded, screened out); the
consent that it asks for; the test with its pass mark; the limit of a day. Whoever has work in hand may finish it: the door
is in front of new work, so that nothing typed is lost.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotAllowed
from server.language import _
from server.models import Campaign, Conversation, Instructions, Membership, Person, Skip, Turn
from server.services import days
from server.services.people import guests
from server.services.working import kinds, leases

READY = "ready"
CONSENT, TEST = "consent", "test"
# Steps at which there is nothing for the person to do here.
CLOSED = ("members_only", "excluded", "screened_out", "left", "daily_limit")


@dataclass(frozen=True)
class Standing:
    """Where a person stands before a campaign; `sentence` says what is in the way, and is empty when nothing is."""

    step: str
    sentence: str
    membership: Membership | None
    instructions_id: int | None  # the newest
    instructions_are_new: bool  # the person has not confirmed this version

    @property
    def instructions_have_changed(self) -> bool:
        """Whether the person has confirmed an earlier version, and not this one."""
        return self.instructions_are_new and self.membership is not None and self.membership.instructions_id is not None


def standing(db: Session, person: Person, campaign: Campaign) -> Standing:
    """How this person stands; one statement, and one more where a day has a limit."""
    newest = (
        select(Instructions.id)
        .where(Instructions.campaign_id == campaign.id)
        .order_by(Instructions.version.desc())
        .limit(1)
        .scalar_subquery()
    )
    of = (Membership.person_id == person.id) & (Membership.campaign_id == campaign.id)
    membership, told = db.execute(
        select(Membership, newest).select_from(Campaign).outerjoin(Membership, of).where(Campaign.id == campaign.id)
    ).one()
    step, sentence = _step(db, person, campaign, membership)
    new = told is not None and (membership is None or membership.instructions_id != told)
    return Standing(step, sentence, membership, told, new)


def _step(db: Session, person: Person, campaign: Campaign, membership: Membership | None) -> tuple[str, str]:
    status = membership.status if membership is not None else None
    if status is None and (campaign.access == "members" or guests.is_elsewhere(db, person, campaign.id)):
        return "members_only", _(
            "This campaign is for people whom its admins have chosen. If you think that you are one of them, please write to them."
        )
    if status in ("excluded", "screened_out", "left"):
        return status, _refusal(status, membership.reason if membership is not None else None)
    if campaign.consent and (membership is None or membership.consent_sha256 != consent_hash(campaign)):
        return CONSENT, _("Before you begin, please read what this work is and say whether you agree.")
    if campaign.pass_mark is not None and (membership is None or membership.passed_at is None):
        return TEST, _("Before you begin, there is a short test on the instructions.")
    if campaign.daily_limit is not None and today(db, person, campaign) >= campaign.daily_limit:
        return "daily_limit", _(
            "You have done what this campaign allows in a day ({most}). It goes on at midnight UTC. Thank you!",
            most=campaign.daily_limit,
        )
    return READY, ""


def _refusal(status: str, reason: str | None) -> str:
    if status == "left":
        return _("You left this campaign. You can come back whenever you like.")
    if status == "excluded":
        said = _(
            "The people who run this campaign have ended your work in it. What you did is kept, and is paid if it is paid work."
        )
        because = _("Their reason: {reason}", reason=reason) if reason else ""
        return f"{said} {because}".rstrip()
    if reason == "test":
        return _("You did not pass the test of this campaign, so you cannot work in it. Thank you for trying.")
    if reason == "consent":
        return _("You did not agree to the conditions of this campaign, so you cannot work in it.")
    return _(
        "Your first answers differed too often from those of experts, so you cannot go on in this campaign. What you did is paid if it is paid work."
    )


def check(db: Session, person: Person, campaign: Campaign) -> None:
    """NotAllowed, with what is in the way, unless this person may take new work here."""
    found = standing(db, person, campaign)
    if found.step != READY:
        raise NotAllowed(found.sentence)


def check_inside(db: Session, person: Person, campaign: Campaign) -> None:
    """NotAllowed for somebody who has left, or whose work here was ended: they hold nothing and take nothing back."""
    found = standing(db, person, campaign)
    if found.membership is not None and found.membership.status != "active":
        raise NotAllowed(found.sentence)


def today(db: Session, person: Person, campaign: Campaign) -> int:
    """What a person was exposed to in a campaign since midnight UTC: answers, skips, and replies that they left unanswered."""
    midnight = days.midnight()
    skipped = select(func.count()).where(
        Skip.person_id == person.id, Skip.campaign_id == campaign.id, Skip.created_at >= midnight
    )
    left = (
        select(func.count())
        .select_from(Turn)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Conversation.person_id == person.id,
            Conversation.campaign_id == campaign.id,
            Conversation.source == "chat",
            Conversation.status != "open",
            Turn.status == "ready",
            Turn.ready_at >= midnight,
            ~exists().where(Skip.turn_id == Turn.id, Skip.person_id == person.id),
        )
    )
    seen = select(skipped.scalar_subquery() + left.scalar_subquery())
    return kinds.made_by(db, person, campaign, midnight) + (db.scalar(seen) or 0)


def consent_hash(campaign: Campaign) -> str:
    """Which text was agreed to; a changed one asks again."""
    return hashlib.sha256((campaign.consent or "").encode()).hexdigest()


def _write(db: Session, person_id: int, campaign: Campaign, **values: Any) -> Membership:
    """Make or change a membership."""
    values["changed_at"] = func.now()
    statement = insert(Membership).values(person_id=person_id, campaign_id=campaign.id, **values)
    return db.scalars(
        statement.on_conflict_do_update(index_elements=["person_id", "campaign_id"], set_=values).returning(Membership),
        execution_options={"populate_existing": True},
    ).one()


def agree(db: Session, person: Person, campaign: Campaign, sha256: str) -> None:
    """Note the consent to the text with this hash; Conflict when the text is another one by now."""
    _expect(db, person, campaign, CONSENT)
    if sha256 != consent_hash(campaign):
        raise Conflict(_("The text has changed since you opened the page. Please read it again."))
    _write(db, person.id, campaign, consent_sha256=sha256, consented_at=func.now())


def decline(db: Session, person: Person, campaign: Campaign) -> None:
    """Somebody does not agree: they stay outside until they think otherwise (`come_back`)."""
    _expect(db, person, campaign, CONSENT)
    _write(db, person.id, campaign, status="screened_out", reason="consent")


def confirm_instructions(db: Session, person: Person, campaign: Campaign, instructions_id: int) -> None:
    """Note that the person has read this version of the instructions."""
    known = select(Instructions.id).where(Instructions.id == instructions_id, Instructions.campaign_id == campaign.id)
    if db.scalar(known) is None:
        raise BadInput(_("These are not instructions of this campaign. Reload the page."), field="instructions_id")
    if standing(db, person, campaign).step in ("members_only", "excluded", "screened_out"):
        raise NotAllowed(_("This campaign is not open to you."))
    _write(db, person.id, campaign, instructions_id=instructions_id)


def passed(db: Session, person: Person, campaign: Campaign) -> None:
    """The test is passed, once and for all."""
    _write(db, person.id, campaign, passed_at=func.now())


def screen_out(db: Session, person: Person, campaign: Campaign, reason: str) -> None:
    """Somebody did not pass the `test` or the `screening`; what they had in hand goes to others."""
    _write(db, person.id, campaign, status="screened_out", reason=reason)
    leases.give_up(db, person, campaign)


def screened(db: Session, person: Person, campaign: Campaign) -> None:
    """The first answers agree enough with the expert's."""
    _write(db, person.id, campaign, screened_at=func.now())


def leave(db: Session, person: Person, campaign: Campaign) -> None:
    """Stop working in a campaign, for as long as the person likes; what they had in hand goes to others."""
    found = standing(db, person, campaign)
    if found.step in ("members_only", "excluded", "screened_out", "left"):
        return
    _write(db, person.id, campaign, status="left", reason=None)
    leases.give_up(db, person, campaign)


def come_back(db: Session, person: Person, campaign: Campaign) -> None:
    """After leaving, or after not agreeing. Whoever was excluded or screened out cannot."""
    membership = db.get(Membership, (person.id, campaign.id))
    if membership is None or membership.status == "active":
        return
    if membership.status != "left" and membership.reason != "consent":
        raise NotAllowed(_("This campaign is not open to you."))
    _write(db, person.id, campaign, status="active", reason=None)


def _expect(db: Session, person: Person, campaign: Campaign, step: str) -> None:
    if standing(db, person, campaign).step != step:
        raise Conflict(_("You are past this already. Reload the page to go on."))
