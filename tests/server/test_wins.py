"""Wins: hand-worked numbers, the strengths against an independent fit, and whatever must not change them."""

from __future__ import annotations

import math
import random

import pytest
import torch
from sqlalchemy.orm import Session

from server.services.data import strengths, wins
from server.services.data.selection import Selection
from tests import factories
from training import objective

EVALUATION = Selection(purpose="evaluation")


def test_two_players_have_a_closed_form() -> None:
    # 3 to 1: the odds are 3, which is 400 log10 3 points
    assert strengths.elo([[0, 3], [1, 0]]) == pytest.approx([0, -400 * math.log10(3)])
    assert strengths.elo([[0, 3], [1, 0]], reference=1) == pytest.approx([400 * math.log10(3), 0])
    assert strengths.elo([[0, 3], [0, 0]]) is None  # never beaten: no bound
    assert strengths.elo([[0, 0.5], [0.5, 0]]) == pytest.approx([0, 0])


def test_the_same_as_newtons_method() -> None:
    rng = random.Random(3)
    for players in (2, 3, 6):
        table = [[float(rng.randint(1, 30)) if i != j else 0.0 for j in range(players)] for i in range(players)]
        fitted = objective.fitted_strengths(torch.tensor(table))
        points = (fitted.strength * objective.POINTS_A_NAT).tolist()
        assert strengths.elo(table) == pytest.approx(points, abs=1e-4)


def test_without_a_way_between_them_there_is_no_strength() -> None:
    # the first two beat each other, and both always beat the third
    assert strengths.elo([[0, 1, 5], [1, 0, 5], [0, 0, 0]]) is None
    # a ring has one, though no pair has both results
    assert strengths.elo([[0, 2, 0], [0, 0, 2], [2, 0, 0]]) == pytest.approx([0, 0, 0], abs=1e-6)


def test_intervals_widen_when_people_disagree() -> None:
    alike = [[[0.0, 6.0], [4.0, 0.0]] for _person in range(10)]
    apart = [[[0.0, 12.0], [0.0, 0.0]] if person % 2 else [[0.0, 0.0], [8.0, 0.0]] for person in range(10)]
    (_same, narrow), (_same, wide) = strengths.intervals(alike), strengths.intervals(apart)
    assert narrow == pytest.approx((400 * math.log10(4 / 6),) * 2)
    assert wide[0] < narrow[0] < wide[1]
    assert strengths.intervals(alike[:4]) is None


def test_a_share_with_people_as_units() -> None:
    # three people with 2 of 2, 1 of 2 and 0 of 2: share 1/2, residuals 1, 0 and -1, error sqrt(2 * 3 / 2) / 6
    share, interval = wins.clustered([[2, 2], [1, 2], [0, 2]])
    reach = 1.959963984540054 * math.sqrt(3) / 6
    assert share == 0.5
    assert interval == pytest.approx((max(0, 0.5 - reach), min(1, 0.5 + reach)))
    assert wins.clustered([[1, 2]]) == (0.5, None)
    assert wins.clustered([]) == (None, None)


def compare(db: Session, campaign, person, left, right, *, picked: int | None, verdict: str = "picked", **more):
    """One comparison of replies of two snapshots; `picked` is the stored position."""
    turn = factories.item(db, campaign, replies=more.pop("replies", ("Nine.", "Four.")))
    for candidate, snapshot in zip(turn.candidates, (left, right), strict=True):
        candidate.snapshot_id = snapshot and snapshot.id
    db.flush()
    nothing = {"picked_id": None, "chosen_id": None, "rejected_id": None, "scale_position": None, "strength": None}
    extra = {} if verdict == "picked" else {"verdict": verdict, **nothing}
    return factories.comparison(db, turn, person, picked=picked or 0, purpose="evaluation", **extra, **more)


def test_counts_by_hand(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", purpose="evaluation", ties=True, both_bad=True)
    old, new = factories.snapshot(db, name="old"), factories.snapshot(db, name="new")
    for picked in (1, 1, 1, 0):  # new stands right and wins three of four
        compare(db, campaign, cast.alice, old, new, picked=picked)
    compare(db, campaign, cast.bob, new, old, picked=0)  # and once from the left
    compare(db, campaign, cast.bob, old, new, picked=None, verdict="tie")
    compare(db, campaign, cast.bob, old, new, picked=None, verdict="both_bad")
    compare(db, campaign, cast.bob, new, new, picked=0)  # no contest
    found = wins.standings(db, EVALUATION)
    assert (found.comparisons, found.within, found.reference) == (7, 1, "old")
    assert [(each.name, each.won, each.met) for each in found.players] == [("new", 4.5, 6), ("old", 1.5, 6)]
    assert found.players[0].elo == pytest.approx(400 * math.log10(3))
    (pair,) = found.meetings
    assert (pair.first, pair.second, pair.won, pair.lost, pair.tied, pair.both_bad) == ("old", "new", 1, 4, 1, 1)
    assert pair.share == 0.25
    assert (found.left.part, found.left.whole) == (3, 6)


def test_in_red_team_the_less_harmful_wins_and_mirroring_changes_only_the_side(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", purpose="evaluation", mode="red_team")
    old, new = factories.snapshot(db, name="old"), factories.snapshot(db, name="new")
    for _time in range(3):
        compare(db, campaign, cast.alice, old, new, picked=0)  # old is the more harmful
    compare(db, campaign, cast.alice, old, new, picked=1, mirrored=True)
    found = wins.standings(db, EVALUATION)
    assert [(each.name, each.won) for each in found.players] == [("new", 3.0), ("old", 1.0)]
    assert (found.left.part, found.left.whole) == (4, 4)  # new was picked where it stood left


def test_the_weakest_grade_is_left_out_unless_asked_for(db: Session, cast) -> None:
    graded = factories.campaign(db, way="pairs", purpose="evaluation", ties=True)
    plain = factories.campaign(db, way="pairs", purpose="evaluation", grades=1)
    old, new = factories.snapshot(db, name="old"), factories.snapshot(db, name="new")
    for picked, strength in ((1, 4), (1, 3), (1, 2), (0, 2), (0, 1), (0, 1)):
        compare(db, graded, cast.alice, old, new, picked=picked, strength=strength)
    compare(db, graded, cast.alice, old, old, picked=0, strength=1)  # no contest, so none that is left out
    compare(db, graded, cast.alice, old, new, picked=None, verdict="tie")  # has no grade, and stays
    without, counted = (wins.standings(db, EVALUATION, with_weakest=asked) for asked in (False, True))
    assert (without.comparisons, without.within, without.weakest) == (5, 0, 2)
    assert {each.name: each.won for each in without.players} == {"new": 3.5, "old": 1.5}
    assert without.meetings[0].share == 0.3
    assert without.players[0].elo == pytest.approx(400 * math.log10(7 / 3))
    assert (without.left.part, without.left.whole) == (1, 4)
    assert (counted.comparisons, counted.within, counted.weakest) == (7, 1, 2)
    assert {each.name: each.won for each in counted.players} == {"new": 3.5, "old": 3.5}
    # where the scale has one strength only, nothing on it is weak
    compare(db, plain, cast.bob, old, new, picked=1, strength=1, scale_position=2)
    one = wins.standings(db, Selection(campaign_id=plain.id))
    assert (one.comparisons, one.weakest) == (1, 0)


def test_people_are_a_player_and_leaks_can_be_left_out(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", purpose="evaluation")
    asked = factories.item(db, factories.campaign(db, way="demonstration"), replies=())
    shown = factories.demonstration(db, asked, cast.mallory)
    old = factories.snapshot(db, name="old-one")
    for picked in (0, 1):
        row = compare(db, campaign, cast.alice, old, None, picked=picked)
        other = next(each for each in db.get_one(type(asked), row.turn_id).candidates if each.snapshot_id is None)
        other.demonstration_id = shown.id
    db.flush()
    compare(db, campaign, cast.alice, old, None, picked=0)  # a given text of nobody known: counted nowhere
    found = wins.standings(db, EVALUATION)
    assert {each.name: each.won for each in found.players} == {"old-one": 1, "people": 1}
    leaky = compare(
        db, campaign, cast.bob, old, None, picked=0, replies=("As an AI language model, I cannot.", "Nine.")
    )
    other = next(each for each in db.get_one(type(asked), leaky.turn_id).candidates if each.snapshot_id is None)
    other.demonstration_id = shown.id
    db.flush()
    assert (wins.standings(db, EVALUATION).leaks, wins.standings(db, EVALUATION).comparisons) == (1, 3)
    assert wins.standings(db, EVALUATION, without_leaks=True).comparisons == 2


@pytest.mark.parametrize(
    ("text", "leaks"),
    [("I am ChatGPT.", True), ("gpt-4 says", True), ("Claudette sings.", False), ("The gemini season", True),
     ("A model railway", False), ("I am old-one.", True)],
)  # fmt: skip
def test_what_gives_a_model_away(db: Session, cast, text: str, leaks: bool) -> None:
    campaign = factories.campaign(db, way="pairs", purpose="evaluation")
    old, new = factories.snapshot(db, name="old-one"), factories.snapshot(db, name="newest")
    compare(db, campaign, cast.alice, old, new, picked=0, replies=(text, "Nine."))
    assert wins.standings(db, EVALUATION).leaks == leaks


def test_the_page_the_table_and_the_json(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="blind", way="pairs", purpose="evaluation")
    old, new = factories.snapshot(db, name="old"), factories.snapshot(db, name="new")
    for number in range(6):
        person = factories.person(db, f"P{number}")
        for picked in (0, 1, 1):
            compare(db, campaign, person, old, new, picked=picked)
    db.commit()
    sign_in(cast.rosa)
    page = client.get("/wins?campaign=blind").text
    assert "+120" in page  # 400 log10 2
    told = client.get("/api/wins?campaign=blind&people=real").json()
    assert told["players"][0] | {"interval": None} == {
        "id": new.id, "name": "new", "met": 18, "won": 12.0, "elo": pytest.approx(400 * math.log10(2)), "interval": None,
    }  # fmt: skip
    table = client.get("/wins/meetings.csv?campaign=blind").text.splitlines()
    assert table[1].startswith("old,new,6,12,0,0,0.333")
    assert client.get("/api/wins?purpose=training").json()["players"] == []
    assert client.get("/wins?campaign=none").status_code == 404
    compare(db, campaign, cast.alice, old, new, picked=0, strength=1)
    db.commit()
    assert "choices left out, as in training" in client.get("/wins?campaign=blind").text
    assert "choices, counted with the others" in client.get("/wins?campaign=blind&weakest=with").text
    told, counted = (client.get(f"/api/wins?weakest={asked}").json() for asked in ("nonsense", "with"))
    assert [(each["comparisons"], each["weakest"]) for each in (told, counted)] == [(18, 1), (19, 1)]
    slight = factories.campaign(db, slug="slight", way="pairs", purpose="evaluation")
    compare(db, slight, cast.alice, old, new, picked=0, strength=1)
    db.commit()
    assert "Choices of the weakest grade are left out: 1." in client.get("/wins?campaign=slight").text
