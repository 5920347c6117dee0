"""Conversations and people stay whole, halves share nothing, and folds hold everybody out once."""

from dataclasses import dataclass

import pytest

from training.failure import JobFailed
from training.lines.splits import folded, half_of, parted


@dataclass(frozen=True)
class Said:
    prompt: tuple
    conversation: str | None
    person: str | None


MANY = [Said((), f"conversation {n // 3}", f"person {n % 20}") for n in range(3000)]


@pytest.mark.parametrize("share", [0.05, 0.35, 0.5])
def test_conversations_are_whole_and_the_share_is_met(share: float):
    train, test, in_group = parted(MANY, share)
    assert not in_group and len(train) + len(test) == 3000
    assert not {said.conversation for said in train} & {said.conversation for said in test}
    assert len(test) / 3000 == pytest.approx(share, abs=0.04)


def test_people_are_whole_and_some_conversations_of_the_others_measure_too():
    train, test, in_group = parted(MANY, 0.35, "person")
    people = [{said.person for said in part} for part in (train, test, in_group)]
    assert not people[0] & people[1] and people[2] == people[0]
    assert not {said.conversation for said in train} & {said.conversation for said in in_group}
    assert len(train) + len(test) + len(in_group) == 3000
    assert len(in_group) / (len(train) + len(in_group)) == pytest.approx(0.35, abs=0.05)


def test_each_person_is_held_out_in_one_fold():
    tests = [folded(MANY, fold, 5, 0.0, "person").test for fold in range(5)]
    assert sorted(len({said.person for said in test}) for test in tests) == [4] * 5
    assert sorted(map(id, (said for test in tests for said in test))) == sorted(map(id, MANY))
    train, test, _ = folded(MANY, 2, 5, 0.05, "person")
    assert not {said.person for said in train} & {said.person for said in test}
    assert folded(MANY[::-1], 2, 5, 0.05, "person").test == test[::-1]  # the order of the file decides nothing


def test_halves_are_disjoint_complete_and_independent_of_what_is_held_out():
    first, second = half_of(MANY, "a"), half_of(MANY, "b")
    assert len(first) + len(second) == 3000 and len(first) == pytest.approx(1500, abs=150)
    assert not {said.conversation for said in first} & {said.conversation for said in second}
    test = parted(MANY, 0.5).test
    assert len(half_of(test, "a")) / len(test) == pytest.approx(0.5, abs=0.08)


def test_what_cannot_be_split_is_refused():
    with pytest.raises(JobFailed, match="split_by is 'person' and a record names none"):
        parted([*MANY, Said((), "c", None)], 0.05, "person")
    with pytest.raises(JobFailed, match="25 folds need as many persons and there are 20"):
        folded(MANY, 0, 25, 0.05, "person")
    with pytest.raises(JobFailed, match="all fall on one side"):
        parted(MANY[:1], 0.5, "person")
