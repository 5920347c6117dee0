"""The smallest valid rows. Each function adds one object (and what it must have) and flushes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from server.models import (
    Campaign,
    Candidate,
    Comparison,
    Conversation,
    Demonstration,
    Deployment,
    DeploymentShare,
    Edit,
    Instructions,
    LedgerEntry,
    Panel,
    Payroll,
    Person,
    Ranking,
    RankingPlace,
    Snapshot,
    Turn,
)
from server.services.panels import panel_settings

_number = itertools.count(1)


def _add(db: Session, row: Any) -> Any:
    db.add(row)
    db.flush()
    return row


def person(db: Session, name: str = "Someone", *roles: str, **more: Any) -> Person:
    """A person with an address of their own."""
    values = {
        "name": name,
        "email": f"{name.lower()}{next(_number)}@example.org",
        "roles": list(roles) or ["crowdworker"],
    }
    return _add(db, Person(**(values | more)))


def snapshot(db: Session, **more: Any) -> Snapshot:
    """A registered local policy."""
    values = {
        "name": f"policy-{next(_number)}",
        "kind": "policy",
        "origin": "initial",
        "path": "snapshots/none",
        "manifest": {},
    }
    return _add(db, Snapshot(**(values | more)))


def campaign(
    db: Session, *, served_by: Snapshot | None = None, instructions: str = "Pick the better reply.", **more: Any
) -> Campaign:
    """An open helpful campaign with instructions and one snapshot that serves it."""
    values = {"slug": f"campaign-{next(_number)}", "name": "A campaign", "mode": "helpful"}
    row = _add(db, Campaign(**(values | more)))
    _add(db, Instructions(campaign_id=row.id, version=1, markdown=instructions))
    deployment = _add(db, Deployment(campaign_id=row.id, reason="test"))
    _add(db, DeploymentShare(deployment_id=deployment.id, snapshot_id=(served_by or snapshot(db)).id, share=1.0))
    return row


def conversation(db: Session, campaign: Campaign, person: Person | None, **more: Any) -> Conversation:
    """An open chat, or an import when there is no person."""
    values = {"campaign_id": campaign.id, "person_id": person and person.id, "source": "chat" if person else "import"}
    return _add(db, Conversation(**(values | more)))


def turn(
    db: Session,
    conversation: Conversation,
    message: str = "How do I boil an egg?",
    replies: tuple[str, ...] = ("In water.", "No."),
    *,
    snapshot: Snapshot | None = None,
    **more: Any,
) -> Turn:
    """A turn that is ready: its candidates are done, in the order given."""
    position = more.pop("position", None) or 1 + db.query(Turn).filter_by(conversation_id=conversation.id).count()
    values = {"status": "ready", "idempotency_key": f"key-{next(_number)}"}
    row = _add(db, Turn(conversation_id=conversation.id, position=position, message=message, **(values | more)))
    for place, reply in enumerate(replies):
        _add(
            db,
            Candidate(
                turn_id=row.id,
                position=place,
                text=reply,
                status="done",
                seed=place,
                snapshot_id=snapshot and snapshot.id,
            ),
        )
    db.refresh(row)
    return row


def comparison(
    db: Session, turn: Turn, person: Person, *, picked: int = 0, strength: int | None = 3, **more: Any
) -> Comparison:
    """A comparison of a two-candidate turn; in red-team campaigns the picked candidate is the rejected one."""
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    instructions = db.query(Instructions).filter_by(campaign_id=campaign.id).one()
    pick, other = turn.candidates[picked], turn.candidates[1 - picked]
    chosen, rejected = (other, pick) if campaign.mode == "red_team" else (pick, other)
    values = {
        "campaign_id": campaign.id,
        "turn_id": turn.id,
        "person_id": person.id,
        "mode": campaign.mode,
        "picked_id": pick.id,
        "chosen_id": chosen.id,
        "rejected_id": rejected.id,
        "scale_position": None if strength is None else 5 - strength if picked == 0 else 4 + strength,
        "strength": strength,
        "milliseconds_to_decide": 5000,
        "instructions_id": instructions.id,
        "idempotency_key": f"key-{next(_number)}",
    }
    row = _add(db, Comparison(**(values | more)))
    turn.status, turn.continued_by_id = "compared", pick.id
    given = db.query(Comparison).filter_by(turn_id=turn.id).count()
    turn.queue_id = campaign.id if given < campaign.overlap else None
    db.flush()
    return row


def item(
    db: Session,
    campaign: Campaign,
    message: str = "How do I boil an egg?",
    replies: Sequence[str] = ("Nine.", "Four."),
    **more: Any,
) -> Turn:
    """A turn in the campaign's queue that is nobody's own, with its candidates done."""
    talk = _add(db, Conversation(campaign_id=campaign.id, source="item"))
    return turn(db, talk, message, tuple(replies), **({"queue_id": campaign.id} | more))


def ranking(db: Session, turn: Turn, person: Person, places: Sequence[int], **more: Any) -> Ranking:
    """A ranking of all candidates of a turn, in their order."""
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    values = _answer(db, campaign, turn, person) | {"mode": campaign.mode, "milliseconds_to_decide": 9000}
    row = Ranking(**(values | more))
    row.places = [
        RankingPlace(candidate_id=candidate.id, place=place)
        for candidate, place in zip(turn.candidates, places, strict=True)
    ]
    return _add(db, row)


def edit(db: Session, turn: Turn, person: Person, text: str, *, original: int = 0, **more: Any) -> Edit:
    """An improvement of one of a turn's candidates."""
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    values = _answer(db, campaign, turn, person) | {"mode": campaign.mode, "milliseconds": 9000}
    return _add(db, Edit(original_id=turn.candidates[original].id, text=text, **(values | more)))


def demonstration(
    db: Session, turn: Turn, person: Person, text: str = "For nine minutes.", **more: Any
) -> Demonstration:
    """A reply that a person wrote."""
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    values = _answer(db, campaign, turn, person) | {"milliseconds": 9000, "text": text}
    return _add(db, Demonstration(**(values | more)))


def entry(db: Session, person: Person, amount: str = "2.00", status: str = "pending", **more: Any) -> LedgerEntry:
    """A line of the ledger for ten minutes' work."""
    values: dict[str, Any] = {
        "person_id": person.id,
        "kind": "time",
        "minutes": Decimal(10),
        "rate_per_hour": Decimal(12),
        "amount": Decimal(amount),
        "currency": "USD",
        "status": status,
    }
    if status == "rejected":
        values["status_reason"] = "Nobody was there."
    return _add(db, LedgerEntry(**(values | more)))


def payroll(db: Session, **more: Any) -> Payroll:
    """A payroll of one entry."""
    return _add(db, Payroll(**({"currency": "USD", "entries": 1, "total": Decimal(2)} | more)))


def panel(
    db: Session, campaign: Campaign, kind: str = "prolific", form: dict[str, str] | None = None, **more: Any
) -> Panel:
    """A study of two answers, with a code for each outcome but one (nobody agrees on what a failed check is)."""
    typed = {"target": "2", "code_success": "C0DONE", "code_screened_out": "C0OUT", "code_nothing_left": "C0EMPTY"}
    generic = {"participant_parameter": "pid"} if kind == "generic" else {}
    values = {"slug": f"study-{next(_number)}", "name": "A study", "kind": kind, "campaign_id": campaign.id}
    settings = panel_settings.checked(kind, typed | generic | (form or {}))
    return _add(db, Panel(**(values | {"settings": settings, "webhook_secret": "s3cret-of-the-workspace"} | more)))


def _answer(db: Session, campaign: Campaign, turn: Turn, person: Person) -> dict[str, Any]:
    instructions = db.query(Instructions).filter_by(campaign_id=campaign.id).order_by(Instructions.id.desc()).first()
    assert instructions is not None
    return {
        "campaign_id": campaign.id,
        "turn_id": turn.id,
        "person_id": person.id,
        "instructions_id": instructions.id,
        "idempotency_key": f"key-{next(_number)}",
    }
