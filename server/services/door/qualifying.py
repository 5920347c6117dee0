"""The test of a campaign: its questions, and a person's tries at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict
from server.language import _
from server.models import Campaign, Person, Question, TestAttempt
from server.services.door import door
from server.services.working import answers, leases


@dataclass(frozen=True)
class Asked:
    """A question as one person sees it: (index as stored, text) of each option, in this person's order."""

    id: int
    markdown: str
    options: list[tuple[int, str]]


@dataclass(frozen=True)
class Review:
    """A question after a try: what was chosen, what is right, and why."""

    markdown: str
    chosen: str
    right: str
    correct: bool
    explanation: str


def questions(db: Session, campaign: Campaign) -> list[Question]:
    """Those that are asked now, in their order."""
    asked = select(Question).where(Question.campaign_id == campaign.id, Question.retired_at.is_(None))
    return list(db.scalars(asked.order_by(Question.position, Question.id)))


def tries(db: Session, person: Person, campaign: Campaign) -> list[TestAttempt]:
    """A person's tries, the newest first."""
    mine = select(TestAttempt).where(TestAttempt.person_id == person.id, TestAttempt.campaign_id == campaign.id)
    return list(db.scalars(mine.order_by(TestAttempt.id.desc())))


def asked_of(db: Session, person: Person, campaign: Campaign) -> list[Asked]:
    """The test as this person gets it: at each try in another order, at each reload in the same."""
    rng = Random(f"{person.id}:{campaign.id}:{len(tries(db, person, campaign))}")
    found = []
    for question in questions(db, campaign):
        options = list(enumerate(str(option) for option in question.options))
        rng.shuffle(options)
        found.append(Asked(question.id, question.markdown, options))
    rng.shuffle(found)
    return found


def take_test(
    db: Session, person: Person, campaign: Campaign, chosen: Mapping[int, int], idempotency_key: str
) -> TestAttempt:
    """Judge a try: question id -> index of the option; the same key again gives the first try.

    Enough right answers open the campaign; the last try without that closes it to this person.
    """
    key = answers.checked_key(idempotency_key)
    leases.lock(db, f"test:{person.id}:{campaign.id}")
    earlier = db.scalar(
        select(TestAttempt).where(TestAttempt.person_id == person.id, TestAttempt.idempotency_key == key)
    )
    if earlier is not None:
        return earlier
    if door.standing(db, person, campaign).step != door.TEST:
        raise Conflict(_("You are past this already. Reload the page to go on."))
    asked = questions(db, campaign)
    missing = [question for question in asked if chosen.get(question.id) not in range(len(question.options))]
    if missing:
        raise BadInput(_("Please answer every question."), field=f"question-{missing[0].id}")
    correct = sum(chosen[question.id] == question.answer for question in asked)
    right = correct >= _needed(campaign, len(asked))
    made = TestAttempt(
        campaign_id=campaign.id,
        person_id=person.id,
        answers={str(question.id): chosen[question.id] for question in asked},
        correct_count=correct,
        question_count=len(asked),
        passed=right,
        idempotency_key=key,
    )
    db.add(made)
    db.flush()
    if right:
        door.passed(db, person, campaign)
    elif len(tries(db, person, campaign)) >= campaign.test_attempts:
        door.screen_out(db, person, campaign, "test")
    return made


def _needed(campaign: Campaign, count: int) -> float:
    # A hair below, so that 0.7 of 10 is 7 though 0.7 * 10 is not.
    return (campaign.pass_mark or 0) * count - 1e-9


def review(db: Session, attempt: TestAttempt) -> list[Review]:
    """Each question of a try with what is right and why."""
    found = []
    for number, chosen in attempt.answers.items():
        question = db.get_one(Question, int(number))
        options = [str(option) for option in question.options]
        found.append(
            Review(
                question.markdown, options[chosen], options[question.answer], chosen == question.answer,
                question.explanation,
            )
        )  # fmt: skip
    return found


def results(db: Session, campaign: Campaign) -> dict[int, tuple[int, bool, int, int]]:
    """By person: tries, whether passed, and the right answers and questions of the best try."""
    rows = db.execute(
        select(TestAttempt.person_id, func.count(), func.bool_or(TestAttempt.passed),
               func.max(TestAttempt.correct_count), func.max(TestAttempt.question_count))
        .where(TestAttempt.campaign_id == campaign.id)
        .group_by(TestAttempt.person_id)
    )  # fmt: skip
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}


def plain(value: Any) -> int | None:
    """The number of a question or option as a form sends it."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
