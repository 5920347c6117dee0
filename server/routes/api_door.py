"""The door of a campaign as JSON: for programs that work in the place of a person, as the simulated crowd does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.edge import Crowdworker, Db
from server.models import Person
from server.services.chat import dialogue
from server.services.door import door, qualifying

router = APIRouter(prefix="/api")


class ConsentBody(BaseModel):
    """Which text is agreed to."""

    sha256: str = Field(max_length=64)


class InstructionsBody(BaseModel):
    """Which version was read."""

    instructions_id: int = Field(ge=1, le=2**63 - 1)


class TestBody(BaseModel):
    """Question id -> index of the option."""

    __test__ = False  # not for pytest to collect
    answers: dict[int, int] = Field(max_length=1000)
    idempotency_key: str = Field(max_length=200)


def _describe(db: Db, person: Person, slug: str) -> dict[str, Any]:
    campaign = dialogue.find_campaign(db, slug)
    found = door.standing(db, person, campaign)
    asked = qualifying.asked_of(db, person, campaign) if found.step == door.TEST else []
    return {
        "step": found.step,
        "sentence": found.sentence,
        "instructions_id": found.instructions_id,
        "instructions_are_new": found.instructions_are_new,
        "consent": {"text": campaign.consent, "sha256": door.consent_hash(campaign)} if campaign.consent else None,
        "questions": [
            {"id": each.id, "markdown": each.markdown, "options": [{"index": at, "text": text} for at, text in each.options]}
            for each in asked
        ],
    }  # fmt: skip


@router.get("/campaigns/{slug}/door")
def show_door(db: Db, person: Crowdworker, slug: str) -> dict[str, Any]:
    return _describe(db, person, slug)


@router.post("/campaigns/{slug}/door/consent")
def agree(db: Db, person: Crowdworker, slug: str, body: ConsentBody) -> dict[str, Any]:
    door.agree(db, person, dialogue.find_campaign(db, slug), body.sha256)
    return _describe(db, person, slug)


@router.post("/campaigns/{slug}/door/instructions")
def confirm_instructions(db: Db, person: Crowdworker, slug: str, body: InstructionsBody) -> dict[str, Any]:
    door.confirm_instructions(db, person, dialogue.find_campaign(db, slug), body.instructions_id)
    return _describe(db, person, slug)


@router.post("/campaigns/{slug}/door/test")
def take_test(db: Db, person: Crowdworker, slug: str, body: TestBody) -> dict[str, Any]:
    made = qualifying.take_test(db, person, dialogue.find_campaign(db, slug), body.answers, body.idempotency_key)
    told = {"passed": made.passed, "correct": made.correct_count, "questions": made.question_count}
    return _describe(db, person, slug) | {"attempt": told}
