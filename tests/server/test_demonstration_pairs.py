"""Demonstrations against the model: once a deployment, blind, with what was said before, and counted as `people`."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.models import Turn
from server.services.chat import dialogue, queue
from server.services.data import wins
from server.services.data.selection import Selection
from server.services.items import demonstration_pairs
from server.services.snapshots import deployments
from server.services.ways import feedback
from server.services.working import leases
from tests import factories


def written(db: Session, person, count: int = 3):
    source = factories.campaign(db, way="demonstration")
    for number in range(count):
        turn = factories.item(db, source, f"Question {number}?", replies=())
        factories.demonstration(db, turn, person, f"Answer {number}.")
    return source


def test_each_is_paired_once_a_deployment(db: Session, cast) -> None:
    source = written(db, cast.alice)
    campaign = factories.campaign(db, way="pairs", purpose="evaluation")
    assert demonstration_pairs.make(db, campaign, source, count=2) == 2
    assert demonstration_pairs.make(db, campaign, source) == 1
    assert demonstration_pairs.make(db, campaign, source) == 0
    turns = db.query(Turn).filter_by(queue_id=campaign.id).order_by(Turn.id).all()
    assert [turn.message for turn in turns] == ["Question 0?", "Question 1?", "Question 2?"]
    for number, turn in enumerate(turns):
        people = next(each for each in turn.candidates if each.demonstration_id is not None)
        model = next(each for each in turn.candidates if each.snapshot_id is not None)
        assert (people.text, people.status, model.status) == (f"Answer {number}.", "done", "queued")
        assert {people.position, model.position} == {0, 1}
    assert {task for task, _ids in db.info["tasks"]} == {"reply"}
    assert queue.offer(db, cast.bob, campaign) is None  # not before the model has answered
    deployments.deploy(db, campaign, [(factories.snapshot(db), 1.0)], reason="newer")
    assert demonstration_pairs.make(db, campaign, source) == 3


def test_a_reply_that_failed_is_asked_for_again(db: Session, cast) -> None:
    source, campaign = written(db, cast.alice, 1), factories.campaign(db, way="pairs", purpose="evaluation")
    demonstration_pairs.make(db, campaign, source)
    turn = db.query(Turn).filter_by(queue_id=campaign.id).one()
    model = next(each for each in turn.candidates if each.snapshot_id is not None)
    turn.status, turn.failure, model.status, model.failure = "failed", "away", "failed", "away"
    db.flush()
    assert demonstration_pairs.make(db, campaign, source) == 1
    assert (turn.status, model.status, db.query(Turn).filter_by(queue_id=campaign.id).count()) == (
        "sampling",
        "queued",
        1,
    )
    assert demonstration_pairs.make(db, campaign, source) == 0


def test_what_was_said_before_comes_along_and_people_win(db: Session, cast) -> None:
    source = factories.campaign(db, way="demonstration")
    talk = factories.conversation(db, source, None, source="item")
    first = factories.turn(db, talk, "Tea?", ("Green?",), status="compared")
    first.continued_by_id = first.candidates[0].id
    asked = factories.turn(db, talk, "Black.", (), queue_id=source.id)
    factories.demonstration(db, asked, cast.alice, "Boil it for three minutes.")
    campaign = factories.campaign(db, way="pairs", purpose="evaluation")
    demonstration_pairs.make(db, campaign, source)
    turn = db.query(Turn).filter_by(queue_id=campaign.id).one()
    assert [each["content"] for each in dialogue.transcript(db, turn)] == ["Tea?", "Green?", "Black."]
    model = next(each for each in turn.candidates if each.snapshot_id is not None)
    model.status, model.text, turn.status = "done", "No.", "ready"
    db.flush()
    assert queue.offer(db, cast.bob, campaign) is turn
    shown = queue.as_shown(turn, leases.find(db, cast.bob, turn.conversation, turn.id))
    left = shown[0].demonstration_id is not None
    feedback.store_comparison(db, cast.bob, turn.id, 1 if left else 8, 4000, "key-of-the-page")
    found = wins.standings(db, Selection(purpose="evaluation"))
    assert {player.name: player.won for player in found.players} == {
        "people": 1,
        model.snapshot_id and found.reference: 0,
    }


def test_nobody_compares_what_they_wrote(client, db: Session, cast, sign_in) -> None:
    source = written(db, cast.alice, count=2)
    campaign = factories.campaign(db, way="pairs", purpose="evaluation")
    own = factories.item(db, campaign, "First?")
    demonstration_pairs.make(db, campaign, source)
    for turn in db.query(Turn).filter_by(queue_id=campaign.id, status="sampling"):
        for candidate in turn.candidates:
            candidate.status, candidate.text = "done", candidate.text or "No."
        turn.status = "ready"
    db.flush()
    assert queue.offer(db, cast.alice, campaign) is own
    db.commit()
    sign_in(cast.alice)  # and not by the swift way either
    body = {"scale_position": 1, "milliseconds": 3000, "idempotency_key": "key-of-the-page"}
    assert client.post(f"/api/turns/{own.id}/comparison", json=body).json()["next"] is None
    assert queue.offer(db, cast.alice, campaign) is None
    assert queue.offer(db, cast.bob, campaign) is not None


@pytest.mark.parametrize("changes", [{"way": "chat"}, {"purpose": "training"}])
def test_only_where_nothing_is_trained_on(db: Session, cast, changes: dict[str, str]) -> None:
    campaign = factories.campaign(db, **({"way": "pairs", "purpose": "evaluation"} | changes))
    with pytest.raises(Conflict, match="for evaluation"):
        demonstration_pairs.make(db, campaign, written(db, cast.alice))


def test_an_admin_makes_them_on_the_page(client, db: Session, cast, sign_in) -> None:
    source = written(db, cast.alice)
    campaign = factories.campaign(db, slug="blind", way="pairs", purpose="evaluation")
    sign_in(cast.ada)
    assert client.post("/admin/campaigns/blind/demonstrations", data={"source": "none"}).status_code == 404
    assert client.post("/admin/campaigns/blind/demonstrations", data={"source": source.slug}).status_code == 303
    assert db.query(Turn).filter_by(queue_id=campaign.id).count() == 3
