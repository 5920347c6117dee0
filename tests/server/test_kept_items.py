"""Items for named people: these alone get them, each once, and an item is done when they have answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Campaign, Lease, Person, Turn
from server.services.campaigns import overlap
from server.services.chat import queue
from server.services.door import members
from server.services.items import item_lines, items
from server.services.ways import swift
from tests import factories


def add(db: Session, campaign: Campaign, *people: list[Any]) -> list[Turn]:
    """An item for each list of people, [] for one that is everybody's."""
    lines = [
        {"prompt": f"Question {number}?", "a": "Yes.", "b": "No."} | ({"for": named} if named else {})
        for number, named in enumerate(people)
    ]
    items.add_items(db, campaign, item_lines.read(map(json.dumps, lines)))
    return db.query(Turn).filter_by(queue_id=campaign.id).order_by(Turn.id).all()


def works(db: Session, person: Person, campaign: Campaign) -> list[str]:
    """All items that a person gets, answered one after the other."""
    met = []
    while (turn := queue.offer(db, person, campaign)) is not None:
        met.append(turn.message)
        factories.comparison(db, turn, person)
        queue.answered(db, person, campaign, turn)
    return met


def test_a_set_is_split_without_overlap(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    add(db, campaign, [cast.alice.id], [cast.bob.email], [str(cast.alice.id), cast.bob.name], [])
    assert works(db, cast.mallory, campaign) == ["Question 3?"]
    assert works(db, cast.alice, campaign) == ["Question 0?", "Question 2?"]
    assert works(db, cast.bob, campaign) == ["Question 1?"]
    assert items.standing(db, campaign) == items.Standing(items=4, checks=0, answered=4, answers=4)


def test_an_item_for_fewer_than_are_wanted_is_done_with_them(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", overlap=3)
    one, both, _all = add(db, campaign, [cast.alice.id], [cast.alice.id, cast.bob.id], [])
    assert works(db, cast.alice, campaign) == ["Question 0?", "Question 1?", "Question 2?"]
    assert (one.queue_id, both.queue_id) == (None, campaign.id)
    assert works(db, cast.bob, campaign) == ["Question 1?", "Question 2?"]
    assert both.queue_id is None
    campaign.overlap = 5
    overlap.apply(db, campaign)
    assert (one.queue_id, both.queue_id) == (None, None)


def test_the_swift_way_gives_and_ends_them_alike(client, db: Session, cast, sign_in, monkeypatch) -> None:
    campaign = factories.campaign(db, way="pairs", overlap=2)
    turns = add(db, campaign, [cast.alice.id], [cast.bob.id], [cast.bob.id, cast.alice.id])
    stored: list[object] = []
    swiftly = swift.store

    def watched(*given: Any) -> Any:
        stored.append(swiftly(*given))
        return stored[-1]

    monkeypatch.setattr(swift, "store", watched)
    sign_in(cast.alice)
    assert queue.offer(db, cast.alice, campaign) is turns[0]
    for turn in (turns[0], turns[2]):
        body = {
            "scale_position": 1,
            "verdict": "picked",
            "milliseconds": 900,
            "idempotency_key": f"key-of-the-page-{turn.id}",
        }
        assert client.post(f"/api/turns/{turn.id}/comparison", json=body).status_code in {200, 201}
        lent = db.query(Lease).filter_by(person_id=cast.alice.id, released_at=None).all()
        assert [lease.turn_id for lease in lent] == ([turns[2].id] if turn is turns[0] else [])
    assert all(stored), "an answer went the long way"
    db.expire_all()
    assert [turn.queue_id for turn in turns] == [None, campaign.id, campaign.id]


def test_the_same_item_for_others_is_there_already(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    (turn,) = add(db, campaign, [cast.alice.id])
    assert add(db, campaign, [cast.bob.id]) == [turn]
    assert turn.kept_for == [cast.alice.id]


@pytest.mark.parametrize("named", [[], "alice", [True], [""], [1.5], [None], ["x"] * (items.MOST_NAMED + 1)])
def test_what_names_nobody_is_refused_with_its_line(named: Any) -> None:
    line = json.dumps({"prompt": "Q?", "a": "Yes.", "b": "No.", "for": named})
    with pytest.raises(BadInput, match='Line 1 "for" is a list of 1 to 100 people'):
        item_lines.read([line])


def test_people_who_could_not_answer_are_refused_and_nothing_is_added(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", access="members")
    with pytest.raises(BadInput, match=r"Nobody is called 'nobody@nowhere\.example'"):
        add(db, campaign, ["nobody@nowhere.example"])
    with pytest.raises(BadInput, match=r"is not in .*let them in on its door page"):
        add(db, campaign, [cast.alice.email])
    members.add(db, None, campaign, cast.alice.email)
    cast.alice.roles = ["researcher"]
    with pytest.raises(BadInput, match="is no crowdworker"):
        add(db, campaign, [cast.alice.email])
    assert db.query(Turn).filter_by(queue_id=campaign.id).count() == 0
    cast.alice.roles = ["crowdworker"]
    assert len(add(db, campaign, [cast.alice.email])) == 1
