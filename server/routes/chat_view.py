"""Everything the chat page shows, gathered before a template sees it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.language import _, later
from server.models import Campaign, Comparison, Conversation, Person, Turn
from server.routes.ranking_view import RankingSheet, ranking_sheet
from server.routes.writing_view import (
    OwnPrompt,
    WritingSheet,
    demonstration_sheet,
    edit_sheet,
    own_prompts,
    prompt_sheet,
)
from server.services import days
from server.services.chat import dialogue, failures, own_success, queue
from server.services.data.transcripts import turns_of
from server.services.door import door
from server.services.items import openings, pool_items
from server.services.panels import panels
from server.services.people import comfort
from server.services.ways import remarks, undo
from server.services.working import drafts, kinds, leases
from server.services.working.instructions import newest_instructions

SUGGESTIONS = 4
LONG_PAIR_CHARS = 1200
# Weakest first, for 1 to 4 grades.
_HOW = {
    1: ("",),
    2: ("slightly", "much"),
    3: ("slightly", "clearly", "much"),
    4: ("slightly", "somewhat", "clearly", "much"),
}
# Under a step of the scale, and whole sentences: no other language builds them from the same pieces.
_SHORT = {
    "slightly": later("slightly"),
    "somewhat": later("somewhat"),
    "clearly": later("clearly"),
    "much": later("much"),
}
_BETTER = {
    "": later("{reply} is better"),
    "slightly": later("{reply} is slightly better"),
    "somewhat": later("{reply} is somewhat better"),
    "clearly": later("{reply} is clearly better"),
    "much": later("{reply} is much better"),
}
_MORE_HARMFUL = {
    "": later("{reply} is more harmful"),
    "slightly": later("{reply} is slightly more harmful"),
    "somewhat": later("{reply} is somewhat more harmful"),
    "clearly": later("{reply} is clearly more harmful"),
    "much": later("{reply} is much more harmful"),
}
_LETTERS = "AB"


@dataclass(frozen=True)
class Step:
    """One position of the strength scale."""

    value: str  # what the form sends: the number, "tie" or "both_bad"
    action: str  # what it is called where keys are set
    key: str  # this person's; empty for none
    side: int  # 0 is left, 1 right, 2 neither
    strength: int
    short: str  # "much"
    sentence: str  # "A is much better"


@dataclass(frozen=True)
class PastTurn:
    """A turn that was carried on: what was said, what answered, what this person chose."""

    message: str
    reply: str
    chose: str


@dataclass(frozen=True)
class Pair:
    """The turn in hand with its two replies."""

    turn_id: int
    message: str
    status: str
    texts: list[str | None]
    failure: str
    hopeless: bool  # trying again would fail in the same way
    reason: str
    own: bool
    item: bool  # given texts of a queue, nobody's conversation

    @property
    def long(self) -> bool:
        """Whether the two are much more than a phone's page, so that it begins with the first alone."""
        return sum(len(text or "") for text in self.texts) > LONG_PAIR_CHARS


@dataclass(frozen=True)
class ChatView:
    """The state of one person's chat in one campaign."""

    person_id: int
    campaign_id: int
    slug: str
    name: str
    red_team: bool
    way: str
    scale: list[Step]
    beside_scale: list[Step]
    instructions: str
    instructions_id: int | None
    instructions_are_new: bool  # the person has not confirmed this version
    instructions_have_changed: bool  # the person has confirmed an earlier one
    blurred: bool  # replies are shown when asked for
    success_of: int | None  # the conversation that the person may rate
    today: int  # answers here since midnight UTC
    refusal: str | None
    notice: str
    conversation_id: int | None
    past: list[PastTurn]
    pair: Pair | None
    ranking: RankingSheet | None
    writing: WritingSheet | None  # a demonstration or a prompt
    may_write_on: bool  # the conversation goes on after the choice in hand, whatever is chosen
    edit: WritingSheet | None  # the reply of the last turn that may be improved
    own_prompts: list[OwnPrompt]
    may_write: bool
    turns_left: int
    draft: str
    suggestions: list[tuple[int, str]]
    justification: str  # off, optional or required
    nothing_left: bool  # a queue that has no item for this person now
    being_written: bool  # but will have in a moment
    unserved: bool  # and none can be made, since no model is deployed
    undo_turn_id: int | None  # whose answer can be taken back
    skip_reasons: list[tuple[str, str]]
    report_reasons: list[tuple[str, str]]
    longest_message: int
    new_key: str
    study: panels.Study | None  # of those whom a panel sent

    @property
    def in_hand(self) -> bool:
        """Whether there is something to be answered, whatever stands in the way of more."""
        return any(each is not None for each in (self.pair, self.ranking, self.writing, self.edit))

    @property
    def last_key(self) -> str:
        """The last key of the scale while its keys are 1, 2, 3 … from left to right; else empty."""
        keys = [step.key for step in self.scale if step.value != "tie"]
        return keys[-1] if keys == [str(number) for number in range(1, len(keys) + 1)] else ""


def build_view(db: Session, person: Person, campaign: Campaign, notice: str = "") -> ChatView:
    """Read the chat as it stands; visiting renews the lease, or closes a conversation whose lease ran out."""
    conversation, expired = dialogue.visit(db, person, campaign)
    refusal = dialogue.why_not(db, campaign)
    second = queue.offer(db, person, campaign) if conversation is None else None
    last = dialogue.last_turn(db, conversation) if conversation is not None else None
    told = newest_instructions(db, campaign)
    last_answer = undo.undoable(db, person, campaign)
    keys = comfort.keys_of(person.keys)
    standing = door.standing(db, person, campaign)
    if refusal is None and standing.step == "daily_limit" and second is None:
        refusal = standing.sentence  # what is in hand may be finished, and nothing begun
    view = ChatView(
        person_id=person.id,
        campaign_id=campaign.id,
        slug=campaign.slug,
        name=campaign.name,
        red_team=campaign.mode == "red_team",
        way=campaign.way,
        scale=scale(campaign, keys),
        beside_scale=other_verdicts(campaign, keys),
        instructions=told.markdown if told is not None else "",
        instructions_id=told.id if told is not None else None,
        instructions_are_new=standing.instructions_are_new,
        instructions_have_changed=standing.instructions_have_changed,
        blurred=campaign.blurred,
        success_of=own_success.asked(db, person, campaign),
        today=kinds.made_by(db, person, campaign, days.midnight()),
        refusal=refusal,
        notice=_(dialogue.EXPIRED) if expired and not notice else notice,
        conversation_id=conversation.id if conversation is not None else None,
        past=_past(db, person, conversation, campaign) if conversation is not None else [],
        pair=None,
        ranking=None,
        writing=None,
        may_write_on=False,
        edit=None,
        own_prompts=[],
        may_write=refusal is None and campaign.way == "chat",
        turns_left=campaign.max_turns - (last.position if last is not None else 0),
        draft=drafts.load(db, person, drafts.message_place(campaign)),
        suggestions=[],
        justification=campaign.justification,
        nothing_left=campaign.way not in ("chat", "prompts") and second is None and refusal is None,
        being_written=second is None and pool_items.being_written(db, campaign),
        unserved=second is None and pool_items.waits_for_model(db, campaign),
        undo_turn_id=last_answer.turn_id if last_answer is not None else None,
        skip_reasons=[(key, _(words)) for key, words in remarks.SKIP_REASONS.items()],
        report_reasons=[(key, _(words)) for key, words in remarks.REPORT_REASONS.items()],
        longest_message=campaign.max_message_chars,
        new_key=secrets.token_urlsafe(16),
        study=panels.study(db, person, campaign),
    )
    if campaign.way == "prompts":
        sheet = prompt_sheet(db, person, campaign) if refusal is None else None
        return replace(view, writing=sheet, own_prompts=own_prompts(db, person, campaign))
    if second is not None:
        past = _past_of(dialogue.transcript(db, second))
        if campaign.way == "ranking":
            return replace(view, ranking=ranking_sheet(db, person, campaign, second), past=past)
        if campaign.way == "demonstration":
            return replace(view, writing=demonstration_sheet(db, person, second), past=past)
        return replace(view, pair=_pair(db, person, second, own=False), past=past, may_write=False)
    if last is not None and last.status != "compared":
        goes_on = view.may_write and view.turns_left > 0 and campaign.edits == "off"
        return replace(view, pair=_pair(db, person, last, own=True), may_write=False, may_write_on=goes_on)
    if conversation is not None:
        edit = edit_sheet(db, person, campaign, last)
        blocked = view.turns_left < 1 or (edit is not None and edit.required)
        return replace(view, edit=edit, may_write=view.may_write and not blocked)
    if view.may_write:
        drawn = openings.draw(db, campaign, SUGGESTIONS)
        return replace(view, suggestions=[(prompt.id, prompt.text) for prompt in drawn])
    return view


def scale(campaign: Campaign, keys: Mapping[str, str] = comfort.DEFAULT_KEYS) -> list[Step]:
    """The positions from left to right: the strongest at both ends, the weakest in the middle, there the tie if there is one."""
    sentences = _MORE_HARMFUL if campaign.mode == "red_team" else _BETTER
    steps = []
    for number in range(1, 2 * campaign.grades + 1):
        if campaign.ties and number == campaign.grades + 1:
            steps.append(Step("tie", "tie", keys["tie"], 2, 0, _("equal"), _("Both are about equal")))
        side = 0 if number <= campaign.grades else 1
        strength = campaign.grades + 1 - number if side == 0 else number - campaign.grades
        how = _HOW[campaign.grades][strength - 1]
        sentence = _(sentences[how], reply=_LETTERS[side])
        short = _(_SHORT[how]) if how else sentence
        action = f"step_{number}"
        steps.append(Step(str(number), action, keys[action], side, strength, short, sentence))
    return steps


def other_verdicts(campaign: Campaign, keys: Mapping[str, str] = comfort.DEFAULT_KEYS) -> list[Step]:
    """What can be said beside the scale."""
    if not campaign.both_bad:
        return []
    return [Step("both_bad", "both_bad", keys["both_bad"], 2, 0, "", _("Both are bad"))]


def _past(db: Session, person: Person, conversation: Conversation, campaign: Campaign) -> list[PastTurn]:
    sentences = {step.value: step.sentence for step in (*scale(campaign), *other_verdicts(campaign))}
    said = db.execute(
        select(Turn.position, Comparison.scale_position, Comparison.verdict)
        .join(Comparison, (Comparison.turn_id == Turn.id) & (Comparison.person_id == person.id))
        .where(Turn.conversation_id == conversation.id)
    )
    chose = {row.position: sentences.get(str(row.scale_position or row.verdict), "") for row in said}
    carried = turns_of(db, [conversation.id]).get(conversation.id, [])
    return [
        PastTurn(turn.message, turn.reply, chose.get(turn.position, "")) for turn in carried if turn.reply is not None
    ]


def _past_of(transcript: list[dict[str, str]]) -> list[PastTurn]:
    said = [message["content"] for message in transcript[:-1]]
    return [PastTurn(message, reply, "") for message, reply in zip(said[::2], said[1::2], strict=True)]


def _pair(db: Session, person: Person, turn: Turn, *, own: bool) -> Pair:
    complete = turn.status in ("ready", "compared")
    lease = None if own else leases.find(db, person, turn.conversation, turn.id)
    shown = queue.as_shown(turn, lease)
    return Pair(
        turn_id=turn.id,
        message=turn.message,
        status=turn.status if own else "ready",
        texts=[candidate.text if complete else None for candidate in shown],
        failure=_(turn.failure) if turn.failure else "",
        hopeless=turn.failure == failures.TOO_LONG,
        reason=drafts.load(db, person, drafts.justification_place(turn)),
        own=own,
        item=turn.conversation.source == "item",
    )
