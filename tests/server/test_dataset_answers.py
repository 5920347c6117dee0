"""Rankings and edits in dataset versions: who is in, what they teach, and that nothing of an evaluation is."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.services.data import dataset_rankings, datasets, transcripts
from server.services.data.dataset_selection import DatasetSelection
from tests import factories


def test_a_ranking_is_learned_as_it_was_made(db: Session) -> None:
    campaign, person = factories.campaign(db, slug="order", way="ranking"), factories.person(db)
    turn = factories.item(db, campaign, "Eggs?", ["Nine.", "Four.", "Never."])
    factories.ranking(db, turn, person, [1, 2, 2])
    version = datasets.freeze(db, DatasetSelection())
    (found,) = dataset_rankings.members(db, version.id)
    assert (found.prompt, found.replies, found.ranks) == (
        [{"role": "user", "content": "Eggs?"}], ["Nine.", "Four.", "Never."], [1, 2, 2]
    )  # fmt: skip
    assert (found.person, found.mode, found.teaches) == (f"person-{person.id}", "helpful", True)
    assert (version.counts["pairs"], version.counts["rankings"]) == (0, 1)


def test_in_red_team_the_most_harmful_reply_is_the_last_to_learn(db: Session) -> None:
    campaign, person = factories.campaign(db, way="ranking", mode="red_team"), factories.person(db)
    factories.ranking(db, factories.item(db, campaign, "Harm!", ["Sure.", "Well.", "No."]), person, [1, 2, 3])
    version = datasets.freeze(db, DatasetSelection())
    assert [found.ranks for found in dataset_rankings.members(db, version.id)] == [[3, 2, 1]]


def test_equal_replies_count_once_and_a_ranking_of_ties_teaches_nothing(db: Session) -> None:
    campaign, person = factories.campaign(db, way="ranking"), factories.person(db)
    factories.ranking(db, factories.item(db, campaign, "One?", ["Yes.", "Yes.", "No."]), person, [1, 3, 2])
    factories.ranking(db, factories.item(db, campaign, "Two?", ["Yes.", "No."]), person, [1, 1])
    version = datasets.freeze(db, DatasetSelection())
    first, second = dataset_rankings.members(db, version.id)
    assert (first.replies, first.ranks) == (["Yes.", "No."], [1, 2])
    assert [first.teaches, second.teaches] == [True, False]
    assert version.counts["rankings"] == 1


def test_an_edit_is_a_pair_of_edited_over_original(db: Session) -> None:
    campaign, person = factories.campaign(db, edits="optional"), factories.person(db)
    turn = factories.turn(db, factories.conversation(db, campaign, person), "Eggs?", ("Nine.", "Four."))
    factories.comparison(db, turn, person, picked=0)
    edit = factories.edit(db, turn, person, "Nine minutes, then cold water.")
    version = datasets.freeze(db, DatasetSelection())
    pairs = [(found.comparison_id, found.chosen, found.rejected) for found in datasets.members(db, version.id)]
    assert pairs[1:] == [(None, "Nine minutes, then cold water.", "Nine.")]
    assert version.counts["pairs"] == 2
    assert version.selection["up_to"] == pairs[0][0]
    again = datasets.freeze(db, DatasetSelection(edits=False))
    assert again.counts["pairs"] == 1
    assert next(found.provenance["edit"] for found in datasets.members(db, version.id) if found.comparison_id is None) == edit.id  # fmt: skip


def test_the_chat_goes_on_with_the_edited_reply_of_its_own_person(db: Session) -> None:
    campaign, person, other = factories.campaign(db), factories.person(db), factories.person(db, "Other")
    talk = factories.conversation(db, campaign, person)
    first = factories.turn(db, talk, "Eggs?", ("Nine.", "Four."))
    factories.comparison(db, first, person, picked=0)
    factories.edit(db, first, other, "Not this one.")
    assert [turn.reply for turn in transcripts.turns_of(db, [talk.id])[talk.id]] == ["Nine."]
    factories.edit(db, first, person, "Nine minutes.")
    assert [turn.reply for turn in transcripts.turns_of(db, [talk.id])[talk.id]] == ["Nine minutes."]
    second = factories.turn(db, talk, "And toast?", ("Three.", "Two."))
    last = factories.comparison(db, second, person)
    version = datasets.freeze(db, DatasetSelection(edits=False))
    prompt = next(found.prompt for found in datasets.members(db, version.id) if found.comparison_id == last.id)
    assert [message["content"] for message in prompt] == ["Eggs?", "Nine minutes.", "And toast?"]


def test_nothing_of_an_evaluation_is_learned(db: Session) -> None:
    campaign, person = factories.campaign(db, purpose="evaluation"), factories.person(db)
    turn = factories.turn(db, factories.conversation(db, campaign, person))
    factories.comparison(db, turn, person, purpose="evaluation")
    factories.edit(db, turn, person, "Better.", purpose="evaluation")
    factories.ranking(db, factories.item(db, campaign), person, [1, 2], purpose="evaluation")
    with pytest.raises(BadInput, match="no comparison to learn from"):
        datasets.freeze(db, DatasetSelection())
    factories.ranking(db, factories.item(db, campaign), person, [1, 2])
    assert datasets.freeze(db, DatasetSelection()).counts == {
        "pairs": 0, "rankings": 1, "split": {}, "mode": {}, "campaign": {}
    }  # fmt: skip


def test_items_of_one_prompt_fall_on_one_side(db: Session) -> None:
    campaign = factories.campaign(db, way="ranking")
    for number in range(60):
        for _ in range(2):
            person = factories.person(db)
            factories.ranking(db, factories.item(db, campaign, f"Question {number}?"), person, [1, 2])
    version = datasets.freeze(db, DatasetSelection(held_out=0.4))
    sides: dict[str, set[str]] = {}
    for found in dataset_rankings.members(db, version.id):
        sides.setdefault(found.prompt[0]["content"], set()).add(found.split)
    assert {len(each) for each in sides.values()} == {1}
    assert 12 <= sum(each == {"test"} for each in sides.values()) <= 36
