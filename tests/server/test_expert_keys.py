"""Experts' keys as pairs: what orders something and what does not, which way round, of which campaigns."""

from __future__ import annotations

from sqlalchemy.orm import Session

from server.services.data import datasets, expert_keys
from server.services.data.dataset_selection import DatasetSelection
from tests import factories


def keyed(db: Session, **selection: object) -> list[tuple[str, str, str]]:
    found = expert_keys.keyed_pairs(db, DatasetSelection(**selection))  # type: ignore[arg-type]
    return [(pair.prompt[-1]["content"], pair.chosen, pair.rejected) for pair in found]


def test_only_keys_that_order_give_pairs(db: Session, cast) -> None:
    campaign = factories.campaign(db, slug="plain", way="pairs", ties=True)
    first = factories.item(db, campaign, "One?", check_kind="gold", expected={"picked": 1, "strength": 3})
    factories.item(db, campaign, "Two?", check_kind="gold", expected={"verdict": "tie"})
    factories.item(db, campaign, "Three?", check_kind="attention", expected={"picked": 0})
    factories.item(db, campaign, "Four?", ("Same.", "Same."), check_kind="gold", expected={"picked": 0})
    factories.item(db, campaign, "Five?")
    factories.comparison(db, first, cast.alice, picked=0)  # what people answer changes nothing
    assert keyed(db) == [("One?", "Four.", "Nine.")]
    (pair,) = expert_keys.keyed_pairs(db, DatasetSelection())
    assert (pair.mode, pair.person, pair.provenance) == ("helpful", None, {"item": first.id, "campaign": "plain"})


def test_an_order_of_several_and_the_more_harmful_reply(db: Session) -> None:
    order = factories.campaign(db, slug="order", way="ranking")
    harm = factories.campaign(db, slug="harm", way="pairs", mode="red_team")
    factories.item(db, order, "A?", ["x", "y", "z"], check_kind="gold", expected={"above": [[2, 0], [2, 1]]})
    factories.item(db, harm, "B?", ["kind", "cruel"], check_kind="gold", expected={"picked": 1})
    assert keyed(db) == [("A?", "z", "x"), ("A?", "z", "y"), ("B?", "kind", "cruel")]
    assert keyed(db, campaigns=("harm",)) == keyed(db, modes=("red_team",)) == [("B?", "kind", "cruel")]
    assert keyed(db, campaigns=("none",)) == []


def test_what_was_said_before_comes_along_and_nothing_is_learnt_of_it(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    talk = factories.conversation(db, campaign, None, source="item")
    earlier = factories.turn(db, talk, "Tea?", ("Green?",), status="compared")
    earlier.continued_by_id = earlier.candidates[0].id
    gold = factories.turn(db, talk, "Yes.", ("Three minutes.", "No."), check_kind="gold", expected={"picked": 0})
    db.flush()
    (pair,) = expert_keys.keyed_pairs(db, DatasetSelection())
    assert [message["content"] for message in pair.prompt] == ["Tea?", "Green?", "Yes."]
    factories.comparison(db, gold, cast.alice)
    factories.comparison(db, factories.item(db, campaign), cast.alice)
    version = datasets.freeze(db, DatasetSelection())
    assert version.counts["pairs"] == 1
