"""Frozen dataset versions: who is in, on which side, what they say, and that nothing changes them."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import DatasetMember, Job
from server.services.data import datasets
from server.services.data.dataset_selection import DatasetSelection, parse_selection
from server.services.data.dataset_split import SPLIT_SALT
from tests import factories


def python_says_test(key: str, share: float) -> bool:
    """The split as any other program would compute it from the documented hash."""
    digest = hashlib.sha256(f"{SPLIT_SALT}\n{key}".encode()).digest()
    return int.from_bytes(digest[:4]) < int(share * 2**32)


def members(db: Session, version_id: int) -> dict[int, str]:
    rows = db.query(DatasetMember).filter_by(dataset_version_id=version_id)
    return {row.comparison_id: row.split for row in rows}


def test_the_prompt_is_the_chat_so_far_with_what_carried_it_on(db: Session):
    campaign, person = factories.campaign(db, slug="eggs"), factories.person(db)
    chat = factories.conversation(db, campaign, person)
    factories.comparison(db, factories.turn(db, chat, "Eggs?", ("Boil.", "Fry.")), person, picked=1)
    last = factories.comparison(db, factories.turn(db, chat, "How long?", ("Nine.", "Four.")), person, strength=4)
    version = datasets.freeze(db, DatasetSelection())
    found = [member for member in datasets.members(db, version.id) if member.comparison_id == last.id]
    assert found[0].prompt == [
        {"role": "user", "content": "Eggs?"},
        {"role": "assistant", "content": "Fry."},
        {"role": "user", "content": "How long?"},
    ]
    assert (found[0].chosen, found[0].rejected, found[0].strength, found[0].mode) == ("Nine.", "Four.", 4, "helpful")
    assert found[0].person == f"person-{person.id}"
    assert version.counts["pairs"] == 2
    assert version.counts["campaign"] == {"eggs": 2}
    assert version.selection["up_to"] == last.id


def test_red_team_choices_teach_the_harmless_reply(db: Session):
    campaign, person = factories.campaign(db, mode="red_team"), factories.person(db)
    chat = factories.conversation(db, campaign, person)
    factories.comparison(db, factories.turn(db, chat, "Harm!", ("Sure.", "No.")), person, picked=0)
    version = datasets.freeze(db, DatasetSelection())
    member = next(datasets.members(db, version.id))
    assert (member.chosen, member.rejected) == ("No.", "Sure.")


def test_the_split_is_by_conversation_and_stays_when_more_comes(db: Session):
    campaign, person = factories.campaign(db), factories.person(db)
    made: dict[int, int] = {}

    def chat_with_two_turns() -> None:
        chat = factories.conversation(db, campaign, person, status="finished")
        for _ in range(2):
            made[factories.comparison(db, factories.turn(db, chat), person).id] = chat.id

    for _ in range(15):
        chat_with_two_turns()
    first = members(db, datasets.freeze(db, DatasetSelection(held_out=0.4)).id)
    for comparison, split in first.items():
        assert split == ("test" if python_says_test(f"conversation:{made[comparison]}", 0.4) else "train")
    assert set(first.values()) == {"train", "test"}
    for _ in range(5):
        chat_with_two_turns()
    second = members(db, datasets.freeze(db, DatasetSelection(held_out=0.4)).id)
    assert {key: second[key] for key in first} == first
    smaller = members(db, datasets.freeze(db, DatasetSelection(held_out=0.1)).id)
    assert {key for key, split in smaller.items() if split == "test"} <= {
        key for key, split in second.items() if split == "test"
    }


def test_imports_with_one_opening_stay_together(db: Session):
    campaign = factories.campaign(db)
    job = Job(kind="import", settings={})
    db.add(job)
    db.flush()
    person = factories.person(db)
    for _ in range(6):
        chat = factories.conversation(db, campaign, None)
        factories.comparison(db, factories.turn(db, chat, "Same opening"), person, import_id=job.id)
    version = datasets.freeze(db, DatasetSelection(held_out=0.5))
    side = "test" if python_says_test("opening:Same opening", 0.5) else "train"
    assert set(members(db, version.id).values()) == {side}
    with pytest.raises(BadInput, match="no comparison"):
        datasets.freeze(db, DatasetSelection(imports=False))


def test_the_hash_names_the_content(db: Session):
    campaign, person = factories.campaign(db), factories.person(db)
    chat = factories.conversation(db, campaign, person)
    factories.comparison(db, factories.turn(db, chat), person)
    first = datasets.freeze(db, DatasetSelection())
    again = datasets.freeze(db, DatasetSelection())
    assert first.sha256 == again.sha256
    digest = hashlib.sha256(b"".join(member.line() for member in datasets.members(db, first.id)))
    assert digest.hexdigest() == first.sha256
    factories.comparison(db, factories.turn(db, chat, "And then?"), person)
    assert datasets.freeze(db, DatasetSelection()).sha256 != first.sha256
    assert hashlib.sha256(b"".join(m.line() for m in datasets.members(db, first.id))).hexdigest() == first.sha256


def test_selections(db: Session):
    helpful, red = factories.campaign(db, slug="h"), factories.campaign(db, slug="r", mode="red_team")
    real, simulated = factories.person(db), factories.person(db, simulated=True)
    for campaign, person in ((helpful, real), (red, simulated)):
        chat = factories.conversation(db, campaign, person)
        factories.comparison(db, factories.turn(db, chat), person)

    def count(**wanted: object) -> int:
        return datasets.count_usable(db, parse_selection(dict(wanted)))

    assert (count(), count(campaigns=["h"]), count(modes=["red_team"]), count(simulated=False)) == (2, 1, 1, 1)
    assert count(weakest_strength=3) == 0


def test_a_scale_of_one_strength_has_no_weak_choices(db: Session):
    """Every choice there is stored with strength 1, which elsewhere is the weakest grade and left out."""
    person = factories.person(db)
    for slug, grades in (("one", 1), ("four", 4)):
        chat = factories.conversation(db, factories.campaign(db, slug=slug, grades=grades), person)
        factories.comparison(db, factories.turn(db, chat), person, strength=1, scale_position=1)
    assert datasets.count_usable(db, parse_selection({})) == 1
    version = datasets.freeze(db, DatasetSelection())
    strengths = {found.provenance["campaign"]: found.strength for found in datasets.members(db, version.id)}
    assert strengths == {"one": None, "four": 1}
