"""Comparisons: read from the scale, stored once, by those who may; and overlap that is exact."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, Comparison, Deployment, Instructions, Lease, Person, Round
from server.services.chat import queue
from server.services.ways import feedback, remarks
from tests import factories

KEY = "key-of-the-page"


@pytest.mark.parametrize(
    ("grades", "place", "picked", "strength"),
    [(4, 1, 0, 4), (4, 4, 0, 1), (4, 5, 1, 1), (4, 8, 1, 4), (1, 1, 0, 1), (1, 2, 1, 1), (2, 3, 1, 1), (3, 2, 0, 2)],
)
def test_the_scale_is_read_from_the_middle(db: Session, cast, grades, place, picked, strength) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db, grades=grades), cast.alice))
    stored, new = feedback.store_comparison(db, cast.alice, turn.id, place, 1200, KEY, " because ")
    assert new
    assert stored.picked_id == stored.chosen_id == turn.candidates[picked].id
    assert (stored.strength, stored.scale_position, stored.justification) == (strength, place, "because")
    assert (turn.status, turn.continued_by_id) == ("compared", stored.picked_id)


@pytest.mark.parametrize(("continuation", "goes_on"), [("chosen", 1), ("less_harmful", 0)])
def test_in_red_teaming_the_picked_reply_is_the_rejected_one(db: Session, cast, continuation, goes_on) -> None:
    campaign = factories.campaign(db, mode="red_team", continuation=continuation)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    stored, _ = feedback.store_comparison(db, cast.alice, turn.id, 8, 1200, KEY)
    left, right = turn.candidates
    assert (stored.picked_id, stored.rejected_id, stored.chosen_id) == (right.id, right.id, left.id)
    assert turn.continued_by_id == turn.candidates[goes_on].id


def test_random_continuation_takes_both_ways(db: Session, cast) -> None:
    campaign = factories.campaign(db, continuation="random", max_turns=100)
    conversation = factories.conversation(db, campaign, cast.alice)
    places = set()
    for number in range(24):  # one of 2^23 honest runs sees only one side
        turn = factories.turn(db, conversation)
        feedback.store_comparison(db, cast.alice, turn.id, 1, 1, f"{KEY}-{number}")
        places.add([each.id for each in turn.candidates].index(turn.continued_by_id))
    assert places == {0, 1}


def test_provenance_is_that_of_the_moment(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    db.add(Instructions(campaign_id=campaign.id, version=2, markdown="Newer."))
    old = db.query(Deployment).filter_by(campaign_id=campaign.id).one()
    old.replaced_at = datetime.now(UTC)
    round_ = Round(number=7, trigger="command", initial_snapshot_id=factories.snapshot(db).id, status="done")
    db.add(round_)
    db.flush()
    db.add(Deployment(campaign_id=campaign.id, reason="round", round_id=round_.id))
    db.flush()
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    stored, _ = feedback.store_comparison(db, cast.alice, turn.id, 1, 1200, KEY)
    assert stored.round_id == round_.id
    assert db.get_one(Instructions, stored.instructions_id).version == 2
    assert stored.milliseconds_to_decide == 1200


def test_the_instructions_noted_are_those_that_were_shown(db: Session, cast) -> None:
    campaign, other = factories.campaign(db), factories.campaign(db)
    shown = db.query(Instructions).filter_by(campaign_id=campaign.id).one()
    of_another = db.query(Instructions).filter_by(campaign_id=other.id).one()
    db.add(Instructions(campaign_id=campaign.id, version=2, markdown="Came while the page was open."))
    db.flush()
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    with pytest.raises(BadInput, match="not instructions of this campaign"):
        feedback.store_comparison(db, cast.alice, turn.id, 1, 1200, KEY, instructions_id=of_another.id)
    stored, _ = feedback.store_comparison(db, cast.alice, turn.id, 1, 1200, KEY, instructions_id=shown.id)
    assert stored.instructions_id == shown.id


def test_a_late_second_opinion_takes_its_place_though_the_lease_ends_meanwhile(committed: str) -> None:
    """Bob sends in his lease's last instant: until his row is there, his place must not be offered again."""
    new_session = session_factory(committed)
    with new_session.begin() as db:
        alice, bob, mallory = (factories.person(db, name) for name in ("Alice", "Bob", "Mallory"))
        campaign = factories.campaign(db, overlap=2)
        turn = factories.turn(db, factories.conversation(db, campaign, alice, status="finished"))
        factories.comparison(db, turn, alice)
        queue.offer(db, bob, campaign)
        ids = bob.id, mallory.id, campaign.id, turn.id
    offered: list[int | None] = []

    def offer() -> None:
        with new_session.begin() as db:
            found = queue.offer(db, db.get_one(Person, ids[1]), db.get_one(Campaign, ids[2]))
            offered.append(found and found.id)

    other = threading.Thread(target=offer)
    with new_session.begin() as db:
        feedback.store_comparison(db, db.get_one(Person, ids[0]), ids[3], 8, 1, KEY)
        db.query(Lease).filter_by(person_id=ids[0]).one().expires_at = datetime.now(UTC) - timedelta(seconds=1)
        db.flush()
        other.start()
        other.join(10)  # it waits for nobody
    assert offered == [None]
    offer()
    assert offered == [None, None]


def test_the_same_key_gives_the_first_row(db: Session, cast) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db), cast.alice))
    first, _ = feedback.store_comparison(db, cast.alice, turn.id, 1, 1200, KEY)
    assert feedback.store_comparison(db, cast.alice, turn.id, 1, 1200, KEY) == (first, False)
    with pytest.raises(Conflict, match="already answered"):
        feedback.store_comparison(db, cast.alice, turn.id, 8, 1200, "another-key")


@pytest.mark.parametrize(("place", "milliseconds"), [(0, 1), (9, 1), (-1, 1), (1, -1)])
def test_what_is_not_on_the_scale_is_refused(db: Session, cast, place, milliseconds) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db), cast.alice))
    with pytest.raises(BadInput):
        feedback.store_comparison(db, cast.alice, turn.id, place, milliseconds, KEY)


@pytest.mark.parametrize("status", ["sampling", "failed"])
def test_nothing_is_compared_before_both_replies_are_there(db: Session, cast, status) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db), cast.alice), status=status)
    with pytest.raises(Conflict):
        feedback.store_comparison(db, cast.alice, turn.id, 1, 1, KEY)


def test_another_persons_turn_is_not_found(db: Session, cast) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db), cast.alice))
    with pytest.raises(NotFound):
        feedback.store_comparison(db, cast.mallory, turn.id, 1, 1, KEY)
    with pytest.raises(NotFound):
        queue.lent_or_own(db, cast.mallory, turn.id)


def test_many_at_once_store_one(committed: str) -> None:
    new_session = session_factory(committed)
    with new_session.begin() as db:
        alice = factories.person(db, "Alice")
        turn = factories.turn(db, factories.conversation(db, factories.campaign(db), alice))
        ids = alice.id, turn.id
    found: list[tuple[int, bool]] = []
    gate = threading.Barrier(6)

    def store() -> None:
        gate.wait()
        with new_session.begin() as db:
            row, new = feedback.store_comparison(db, db.get_one(Person, ids[0]), ids[1], 7, 900, KEY)
            found.append((row.id, new))

    _all_at_once([store] * 6)
    assert len({row_id for row_id, _ in found}) == 1
    assert sorted(new for _, new in found) == [False] * 5 + [True]


def test_overlap_is_exact_when_everybody_comes_at_once(committed: str) -> None:
    new_session = session_factory(committed)
    with new_session.begin() as db:
        alice, campaign = factories.person(db, "Alice"), factories.campaign(db, overlap=3)
        turn = factories.turn(db, factories.conversation(db, campaign, alice, status="finished"))
        factories.comparison(db, turn, alice)
        others = [factories.person(db, f"Other{number}").id for number in range(8)]
        campaign_id = campaign.id
    offered: list[int] = []
    gate = threading.Barrier(8)

    def ask(person_id: int) -> None:
        gate.wait()
        with new_session.begin() as db:
            person, where = db.get_one(Person, person_id), db.get_one(Campaign, campaign_id)
            turn = queue.offer(db, person, where)
            if turn is not None:
                offered.append(person_id)

    _all_at_once([lambda person_id=each: ask(person_id) for each in others])
    assert len(offered) == 2


def _all_at_once(acts: list) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def compared_turn(db: Session, cast, **settings) -> tuple[Campaign, object]:
    campaign = factories.campaign(db, **({"overlap": 2} | settings))
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice, status="finished"))
    factories.comparison(db, turn, cast.alice)
    return campaign, turn


def test_a_second_opinion_does_not_move_the_first_persons_conversation(db: Session, cast) -> None:
    campaign, turn = compared_turn(db, cast)
    before = turn.continued_by_id
    assert queue.offer(db, cast.bob, campaign) is turn
    assert queue.offer(db, cast.bob, campaign) is turn  # a reload finds it again
    assert queue.offer(db, cast.mallory, campaign) is None
    feedback.store_comparison(db, cast.bob, turn.id, 8, 1, KEY)
    assert turn.continued_by_id == before
    assert queue.offer(db, cast.bob, campaign) is None
    assert db.query(Comparison).filter_by(turn_id=turn.id).count() == 2


def test_who_left_blocks_nobody_and_comes_too_late(db: Session, cast) -> None:
    campaign, turn = compared_turn(db, cast)
    queue.offer(db, cast.bob, campaign)
    db.query(Lease).filter_by(person_id=cast.bob.id).one().expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.flush()
    assert queue.offer(db, cast.mallory, campaign) is turn
    with pytest.raises(Conflict, match="ran out"):
        feedback.store_comparison(db, cast.bob, turn.id, 1, 1, KEY)


def test_ones_own_turn_and_one_passed_over_are_not_offered(db: Session, cast) -> None:
    campaign, turn = compared_turn(db, cast)
    assert queue.offer(db, cast.alice, campaign) is None
    assert queue.offer(db, cast.bob, campaign) is turn
    remarks.skip(db, cast.bob, turn.id)
    assert queue.offer(db, cast.bob, campaign) is None
    assert queue.offer(db, cast.mallory, campaign) is turn


def test_without_overlap_nothing_is_offered(db: Session, cast) -> None:
    campaign, _ = compared_turn(db, cast, overlap=1)
    assert queue.offer(db, cast.bob, campaign) is None
