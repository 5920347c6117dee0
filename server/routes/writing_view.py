"""What the pages show on which people write: a reply to a message, a prompt for the pool, or a better version of a reply."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from server.models import Campaign, Person, Turn
from server.services.chat import edits
from server.services.ways import demonstrations, prompt_writing
from server.services.working import drafts


@dataclass(frozen=True)
class WritingSheet:
    """A box to write in: a demonstration of `turn_id`'s message, an edit of a reply to it, or a prompt without any turn."""

    kind: str  # demonstration, edit or prompt
    turn_id: int | None
    message: str
    text: str  # what stands in the box
    original: str  # of an edit: the reply as the model wrote it
    required: bool
    draft_place: str
    longest: int
    carries_on: bool = True  # the chat goes on from the edited reply, and not from the other one


@dataclass(frozen=True)
class OwnPrompt:
    """A prompt that the person wrote, and how it stands."""

    id: int
    text: str
    status: str
    can_withdraw: bool


def demonstration_sheet(db: Session, person: Person, turn: Turn) -> WritingSheet:
    """The message that waits for this person's reply."""
    place = drafts.turn_place("demonstration", turn)
    return WritingSheet(
        kind="demonstration", turn_id=turn.id, message=turn.message, text=drafts.load(db, person, place), original="",
        required=True, draft_place=place, longest=demonstrations.MAX_CHARS,
    )  # fmt: skip


def prompt_sheet(db: Session, person: Person, campaign: Campaign) -> WritingSheet:
    """A box for a new prompt."""
    place = drafts.prompt_place(campaign)
    return WritingSheet(
        kind="prompt", turn_id=None, message="", text=drafts.load(db, person, place), original="", required=True,
        draft_place=place, longest=campaign.max_message_chars,
    )  # fmt: skip


def edit_sheet(db: Session, person: Person, campaign: Campaign, turn: Turn | None) -> WritingSheet | None:
    """The reply that the person chose and may improve, in the box where they do; None when there is none."""
    original = edits.wanted(db, campaign, turn) if turn is not None else None
    if original is None or turn is None:
        return None
    place = drafts.turn_place("edit", turn)
    return WritingSheet(
        kind="edit", turn_id=turn.id, message=turn.message, text=drafts.load(db, person, place) or original.text or "",
        original=original.text or "", required=campaign.edits == "required", draft_place=place, longest=edits.MAX_CHARS,
        carries_on=original.id == turn.continued_by_id,
    )  # fmt: skip


def own_prompts(db: Session, person: Person, campaign: Campaign) -> list[OwnPrompt]:
    """The person's newest prompts here."""
    return [
        OwnPrompt(each.id, each.text, each.status, prompt_writing.can_withdraw(campaign, each))
        for each in prompt_writing.own(db, person, campaign)
    ]
