"""Items for named people: these alone get them, each once, and an item is done when they have answered."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.orm import Session

from server import cli
from server.db import session_factory
from server.errors import BadInput
from server.models import AuditEntry, Campaign, Lease, Person, Turn
from server.services.chat import queue
from server.services.door import members
from server.services.items import item_lines, items, kept
from server.services.ways import remarks, swift
from server.services.working import overlap
from server.settings import Settings
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


# -- handing over -----------------------------------------------------------------------------------------------------
def test_what_waits_for_somebody_who_cannot_come_goes_to_another(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    mine, both, others, free = add(db, campaign, [cast.alice.id], [cast.alice.id, cast.bob.id], [cast.mallory.id], [])
    cast.alice.disabled_at = datetime.now(UTC)
    db.flush()
    told = [(line.person.id, line.items, line.passed, line.away) for line in kept.waiting(db, campaign)]
    assert told[0] == (cast.alice.id, 2, 0, "cannot sign in: the account is disabled")
    assert sorted(told[1:]) == sorted([(cast.bob.id, 1, 0, ""), (cast.mallory.id, 1, 0, "")])
    assert kept.hand_over(db, campaign, cast.alice, str(cast.bob.id), cast.ada) == 2
    assert (mine.kept_for, both.kept_for, others.kept_for, free.kept_for) == (
        [cast.bob.id], [cast.bob.id], [cast.mallory.id], None,
    )  # fmt: skip
    assert works(db, cast.bob, campaign) == ["Question 0?", "Question 1?", "Question 3?"]
    entry = db.query(AuditEntry).filter_by(action="campaign.hand_over").one()
    assert (entry.person_id, entry.details["items"], entry.details["of"], entry.details["to"]) == (
        cast.ada.id, 2, cast.alice.id, cast.bob.id,
    )  # fmt: skip


def test_everybody_may_have_it_and_what_is_answered_is_nobodys(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", overlap=2)
    one, two = add(db, campaign, [cast.alice.id, cast.bob.id], [cast.alice.id, cast.bob.id])
    factories.comparison(db, one, cast.alice)
    queue.answered(db, cast.alice, campaign, one)
    assert kept.hand_over(db, campaign, cast.alice, "Everybody") == 1  # she has answered the first
    assert (one.kept_for, two.kept_for) == ([cast.alice.id, cast.bob.id], None)
    # Bob's place of the first goes to Alice, who has answered it: there is nobody left to wait for
    assert kept.hand_over(db, campaign, cast.bob, str(cast.alice.id)) == 1
    assert (one.kept_for, one.queue_id, two.queue_id) == ([cast.alice.id], None, campaign.id)
    assert works(db, cast.mallory, campaign) == ["Question 1?"]


def test_what_is_in_hand_stays_and_what_was_passed_over_is_told(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    first, second, third = add(db, campaign, [cast.alice.id], [cast.alice.id], [cast.alice.id])
    assert queue.offer(db, cast.alice, campaign) is first
    remarks.skip(db, cast.alice, first.id)
    assert queue.offer(db, cast.alice, campaign) is second
    (line,) = kept.waiting(db, campaign)
    assert (line.items, line.passed, line.away) == (3, 1, "")
    assert kept.hand_over(db, campaign, cast.alice, cast.bob.email) == 2
    assert [turn.kept_for for turn in (first, second, third)] == [[cast.bob.id], [cast.alice.id], [cast.bob.id]]


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("", "Say who is to have them"),
        ("nobody@nowhere.example", "Nobody is called"),
        ("researcher", "is no crowdworker"),
        ("alice", "has them already"),
        ("excluded", "was taken out of the campaign"),
    ],
)
def test_only_somebody_who_could_answer_is_given_them(db: Session, cast, to: str, why: str) -> None:
    campaign = factories.campaign(db, way="pairs")
    (turn,) = add(db, campaign, [cast.alice.id])
    members.exclude(db, None, campaign, cast.bob.id, "Too fast.")
    named = {"researcher": cast.rosa.email, "alice": str(cast.alice.id), "excluded": str(cast.bob.id)}
    with pytest.raises(BadInput, match=why) as told:
        kept.hand_over(db, campaign, cast.alice, named.get(to, to))
    assert told.value.field == "to"
    assert turn.kept_for == [cast.alice.id]


def test_an_admin_sees_who_keeps_items_waiting_and_hands_them_over(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, way="pairs")
    (turn,) = add(db, campaign, [cast.alice.id])
    sign_in(cast.ada)
    page = client.get(f"/admin/campaigns/{campaign.slug}").text
    assert "Kept for" in page and f'name="of" value="{cast.alice.id}"' in page
    address = f"/admin/campaigns/{campaign.slug}/items/hand-over"
    refused = client.post(address, data={"of": str(cast.alice.id), "to": "nobody <b>"})
    assert (
        refused.status_code == 422 and "Nobody is called" in refused.text and 'value="nobody &lt;b&gt;"' in refused.text
    )
    assert client.post(address, data={"of": "x", "to": "everybody"}).status_code == 422
    done = client.post(address, data={"of": str(cast.alice.id), "to": "everybody"})
    assert done.status_code == 303 and turn.kept_for is None
    assert "Kept for" not in client.get(f"/admin/campaigns/{campaign.slug}").text


def test_the_command_hands_over_too(
    committed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    with session_factory(committed).begin() as db:
        campaign = factories.campaign(db, slug="kept", way="pairs")
        ann, ben = factories.person(db, "Ann"), factories.person(db, "Ben")
        add(db, campaign, [ann.id])
        number, email = ann.id, ben.email
    assert cli.run(["items", "show", "kept", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kept_for"] == [{"person": number, "name": "Ann", "items": 1, "passed": 0, "away": ""}]
    assert cli.run(["items", "hand-over", "kept", "--from", str(number), "--to", email]) == 0
    assert "1 items of Ann in kept are handed over" in capsys.readouterr().out
    assert cli.run(["items", "show", "kept"]) == 0
    assert "1 wait for Ben." in capsys.readouterr().out
    assert cli.run(["items", "hand-over", "kept", "--from", "Ben", "--to", "no one"]) != 0
    assert "Nobody is called" in capsys.readouterr().err
