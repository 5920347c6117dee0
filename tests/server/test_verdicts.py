"""Ties, "both are bad", reasons, signals and purpose: what a comparison may say beside which reply is better."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Comparison, Turn
from server.services.data import datasets
from server.services.data.dataset_selection import DatasetSelection
from server.services.ways import feedback
from tests import factories

KEY = "key-of-the-page"


def turn_of(db: Session, person: Any, **settings: Any) -> Turn:
    return factories.turn(db, factories.conversation(db, factories.campaign(db, **settings), person))


def say(db: Session, person: Any, turn: Turn, verdict: str, place: int | None = None, **more: Any) -> Comparison:
    values = {"justification": None, "key": KEY} | more
    return feedback.store_comparison(
        db, person, turn.id, place, 5000, values.pop("key"), values.pop("justification"), verdict=verdict, **values
    )[0]


def test_a_tie_picks_nothing_and_the_chat_goes_on(db: Session, cast) -> None:
    turn = turn_of(db, cast.alice, ties=True)
    stored = say(db, cast.alice, turn, "tie")
    assert (stored.verdict, stored.picked_id, stored.chosen_id, stored.strength) == ("tie", None, None, None)
    assert turn.continued_by_id in [each.id for each in turn.candidates]
    with pytest.raises(BadInput, match="no comparison to learn from"):
        datasets.freeze(db, DatasetSelection())


def test_both_bad_must_say_why(db: Session, cast) -> None:
    turn = turn_of(db, cast.alice, both_bad=True)
    with pytest.raises(BadInput, match="say why"):
        say(db, cast.alice, turn, "both_bad", justification="  ")
    stored = say(db, cast.alice, turn, "both_bad", justification="Both invent a town.")
    assert (stored.verdict, stored.justification) == ("both_bad", "Both invent a town.")


@pytest.mark.parametrize(
    ("asks", "verdict", "place"),
    [({}, "tie", None), ({}, "both_bad", None), ({"ties": True}, "tie", 3), ({}, "maybe", None), ({}, "picked", None)],
)
def test_what_the_campaign_does_not_offer_is_refused(db: Session, cast, asks, verdict, place) -> None:
    turn = turn_of(db, cast.alice, **asks)
    with pytest.raises(BadInput):
        say(db, cast.alice, turn, verdict, place, justification="Because.")
    assert turn.status == "ready"


def test_a_reason_is_asked_for_where_the_campaign_asks(db: Session, cast) -> None:
    turn = turn_of(db, cast.alice, justification="required")
    with pytest.raises(BadInput, match="say why"):
        say(db, cast.alice, turn, "picked", 1)
    assert say(db, cast.alice, turn, "picked", 1, justification="Shorter.").justification == "Shorter."


def test_signals_are_evidence_from_a_closed_list(db: Session, cast) -> None:
    turn = turn_of(db, cast.alice, too_fast_seconds=6)
    for wrong in ({"keys": 1}, {"active_ms": -1}, {"active_ms": "9"}, {"pasted_chars": True}):
        with pytest.raises(BadInput):
            say(db, cast.alice, turn, "picked", 1, noticed=wrong)
    stored = say(db, cast.alice, turn, "picked", 1, noticed={"visible_ms": 7000, "pasted_chars": 12})
    assert stored.signals == {"visible_ms": 7000, "pasted_chars": 12, "too_fast": True}


@pytest.mark.parametrize(
    ("asks", "held_out", "purpose"),
    [({}, False, "training"), ({"purpose": "evaluation"}, False, "evaluation"), ({}, True, "evaluation")],
)
def test_what_an_answer_is_for_is_stored_with_it(db: Session, cast, asks, held_out, purpose) -> None:
    cast.alice.held_out = held_out
    assert say(db, cast.alice, turn_of(db, cast.alice, **asks), "picked", 1).purpose == purpose


def test_the_form_without_a_script_says_it_too(client, db, cast, sign_in) -> None:
    turn = turn_of(db, cast.alice, slug="bare", ties=True, both_bad=True)
    db.commit()
    csrf = sign_in(cast.alice)
    page = client.get("/chat/bare").text
    assert 'value="tie"' in page
    assert 'value="both_bad"' in page
    form = {"turn_id": turn.id, "idempotency_key": KEY, "csrf_token": csrf, "scale_position": "both_bad"}
    refused = client.post("/chat/bare/comparison", data=form, headers={"accept": "text/html"})
    assert refused.status_code == 422
    assert "say why" in refused.text
    assert client.post("/chat/bare/comparison", data=form | {"justification": "Rude."}).status_code == 303
    assert db.query(Comparison).one().verdict == "both_bad"
    assert "Both are bad" in client.get("/chat/bare").text  # as what was said of the last turn
