"""What admins see of how one person answers, on numbers counted by hand; and that nobody else sees it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from server.models import CheckResult, Report, Skip, Undone
from server.services.data import evidence
from server.services.intervals import Share
from server.services.ways import prompt_writing
from server.services.working.answers import Sent
from tests import factories


def test_counts_beside_everybodys(db: Session, cast) -> None:
    campaign = factories.campaign(db, slug="long", name="Long", overlap=2, ties=True, grades=4)
    talk = factories.conversation(db, campaign, cast.alice, status="finished")
    turns = [factories.turn(db, talk, f"Question {number}") for number in range(4)]
    tie = {"verdict": "tie", "picked_id": None, "chosen_id": None, "rejected_id": None, "scale_position": None}
    fast = {"milliseconds_to_decide": 1000, "signals": {"too_fast": True, "pasted_chars": 3}}
    factories.comparison(db, turns[0], cast.alice, picked=0, milliseconds_to_decide=3000)  # as Bob
    factories.comparison(db, turns[1], cast.alice, picked=0, milliseconds_to_decide=5000)  # not as Bob
    factories.comparison(db, turns[2], cast.alice, picked=1, **fast)
    factories.comparison(db, turns[3], cast.alice, strength=None, **tie, milliseconds_to_decide=9000)  # as Bob
    factories.comparison(db, turns[0], cast.bob, picked=0, milliseconds_to_decide=7000)
    factories.comparison(db, turns[1], cast.bob, picked=1, milliseconds_to_decide=7000)
    factories.comparison(db, turns[3], cast.bob, strength=None, **tie, milliseconds_to_decide=7000)
    of = {"campaign_id": campaign.id, "person_id": cast.alice.id, "turn_id": turns[0].id}
    for passed in (True, False):
        turn = turns[int(passed)]
        db.add(CheckResult(**(of | {"turn_id": turn.id}), kind="gold", passed=passed, expected={}, answered={}))
    db.add_all([Skip(**of, reason="other"), Report(**of, reason="other"), Undone(**of, kind="comparison", answer={})])
    db.flush()

    found = evidence.of(db, cast.alice)
    (pace,) = found.paces
    assert (pace.campaign, pace.kind, pace.answers) == ("Long", "comparison", 4)
    assert (pace.median_seconds, pace.everybody_seconds) == (4.0, 7.0)
    assert (pace.too_fast, pace.pasted) == (Share(1, 4), Share(1, 4))
    (choice,) = found.choices
    assert (choice.left, choice.neither, choice.everybody_neither) == (Share(2, 3), Share(1, 4), Share(2, 7))
    assert choice.agreement == choice.everybody_agreement == Share(2, 3)
    assert [(each.gold, each.attention) for each in found.checks] == [(Share(1, 2), Share(0, 0))]
    assert [(each.skips, each.reports, each.undone) for each in found.remarks] == [(1, 1, 1)]
    bobs = evidence.of(db, cast.bob)
    assert (bobs.choices[0].left, bobs.choices[0].agreement) == (Share(1, 2), Share(2, 3))
    assert bobs.checks == bobs.remarks == []


def test_written_prompts_are_part_of_it(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="prompts", name="Prompts", too_fast_seconds=2)
    prompt_writing.propose(
        db, cast.alice, campaign, "Why is it so?", Sent(1000, "key-of-one", None, {"pasted_chars": 9})
    )
    prompt_writing.propose(db, cast.alice, campaign, "How do kites fly?", Sent(5000, "key-of-two"))
    (pace,) = evidence.of(db, cast.alice).paces
    assert (pace.kind, pace.answers, pace.median_seconds) == ("prompt", 2, 3.0)
    assert (pace.too_fast, pace.pasted) == (Share(1, 2), Share(1, 2))


def test_agreement_is_of_pairs_with_this_person(db: Session, cast) -> None:
    campaign = factories.campaign(db, slug="long", overlap=3)
    talk = factories.conversation(db, campaign, cast.alice, status="finished")
    turn = factories.turn(db, talk)
    for person, picked in ((cast.alice, 0), (cast.bob, 1), (cast.mallory, 1)):
        factories.comparison(db, turn, person, picked=picked)
    (alices,), (bobs,) = evidence.of(db, cast.alice).choices, evidence.of(db, cast.bob).choices
    assert (alices.agreement, bobs.agreement) == (Share(0, 2), Share(1, 2))
    assert alices.everybody_agreement == bobs.everybody_agreement == Share(1, 3)


def test_the_page_is_for_admins(client, db: Session, cast, sign_in) -> None:
    address = f"/admin/people/{cast.alice.id}"
    for person, status in ((None, 401), (cast.alice, 403), (cast.rosa, 403), (cast.ada, 200)):
        sign_in(person)
        assert client.get(address, headers={"Accept": "application/json"}).status_code == status
    page = client.get(address).text
    assert "Alice" in page and "Nothing yet" in page
    assert client.get("/admin/people/999999999").status_code == 404
    assert f'href="{address}"' in client.get("/admin/people").text
