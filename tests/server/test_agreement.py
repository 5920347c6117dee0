"""Agreement on turns compared by several, by hand."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.services.data.agreement import agreement, ordinal_alpha
from server.services.data.selection import Selection
from server.services.intervals import Share
from tests import factories
from tests.conftest import Cast


def judge(db: Session, cast: Cast, *turns: tuple[tuple[int, int], ...]) -> None:
    """Each turn is compared by Alice, Bob, Mallory in this order with (picked, strength)."""
    campaign = factories.campaign(db)
    for picks in turns:
        turn = factories.turn(db, factories.conversation(db, campaign, cast.rosa, status="finished"))
        for person, (picked, strength) in zip((cast.alice, cast.bob, cast.mallory), picks, strict=False):
            factories.comparison(db, turn, person, picked=picked, strength=strength)


def test_nothing_compared_twice_is_no_agreement(db: Session, cast: Cast) -> None:
    judge(db, cast, ((0, 1),), ((1, 4),))
    found = agreement(db, Selection())
    assert (found.turns, found.pairs, found.alpha) == (0, Share(0, 0), None)


def test_pairs_of_people(db: Session, cast: Cast) -> None:
    # three people: left left right is 1 of 3 pairs; two people: both right is 1 of 1; one alone counts nothing
    judge(db, cast, ((0, 4), (0, 1), (1, 2)), ((1, 3), (1, 3)), ((0, 1),))
    found = agreement(db, Selection())
    assert (found.turns, found.pairs) == (2, Share(2, 4))


def test_alpha_of_two_people_by_hand(db: Session, cast: Cast) -> None:
    """Values -1, -1 / 1, 1 / -1, 1: o(-1,-1) = 2, o(1,1) = 2, o(-1,1) = o(1,-1) = 1, n = 6, n(-1) = n(1) = 3.

    delta^2(-1, 1) = (3/2 + 3/2)^2 = 9; observed 2 * 9 = 18, expected 2 * 9 * 9 = 162; alpha = 1 - 5 * 18 / 162 = 4/9.
    """
    judge(db, cast, ((0, 1), (0, 1)), ((1, 1), (1, 1)), ((0, 1), (1, 1)))
    assert agreement(db, Selection()).alpha == pytest.approx(4 / 9)


def test_alpha_is_one_for_the_same_answers_and_weighs_how_far_others_are(db: Session, cast: Cast) -> None:
    judge(db, cast, ((0, 4), (0, 4)), ((1, 2), (1, 2)))
    assert agreement(db, Selection()).alpha == 1
    near = {(-1, -1): 4.0, (1, 1): 4.0, (4, 4): 4.0, (-1, 1): 1.0, (1, -1): 1.0}
    far = {(-1, -1): 4.0, (1, 1): 4.0, (4, 4): 4.0, (-1, 4): 1.0, (4, -1): 1.0}
    assert (ordinal_alpha(near) or 0) > (ordinal_alpha(far) or 0)
    assert ordinal_alpha({(1, 1): 4.0}) is None  # everybody always the same: there is nothing to be right about
