"""Numbers counted by hand on a handful of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Campaign, Comparison, Snapshot
from server.services.data import statistics
from server.services.data.selection import Selection
from server.services.intervals import Share
from tests import factories
from tests.conftest import Cast


class Rows:
    """Four comparisons:

    day  campaign  person  pick   strength  seconds  left      right
    10   chat      Alice   left   4         2        old       new
    10   chat      Alice   right  1         4        old       new
    12   chat      Bob     left   4         9        new       old
    12   red       Alice   left   2         100      new       new     (red team: right is chosen)
    """

    def __init__(self, db: Session, cast: Cast) -> None:
        self.old: Snapshot = factories.snapshot(db, name="old")
        self.new: Snapshot = factories.snapshot(db, name="new")
        self.chat: Campaign = factories.campaign(db, slug="chat", name="Chat")
        self.red: Campaign = factories.campaign(db, slug="red", name="Red", mode="red_team")
        for day, campaign, person, picked, strength, seconds, left, right in (
            (10, self.chat, cast.alice, 0, 4, 2, self.old, self.new),
            (10, self.chat, cast.alice, 1, 1, 4, self.old, self.new),
            (12, self.chat, cast.bob, 0, 4, 9, self.new, self.old),
            (12, self.red, cast.alice, 0, 2, 100, self.new, self.new),
        ):
            # the left reply is the longer one
            turn = factories.turn(
                db, factories.conversation(db, campaign, person, status="finished"), "Q", ("long", "no")
            )
            turn.candidates[0].snapshot_id, turn.candidates[1].snapshot_id = left.id, right.id
            factories.comparison(
                db, turn, person, picked=picked, strength=strength, milliseconds_to_decide=seconds * 1000,
                created_at=datetime(2026, 3, day, 23, 59, tzinfo=UTC),
            )  # fmt: skip


@pytest.fixture
def rows(db: Session, cast: Cast) -> Rows:
    return Rows(db, cast)


def test_totals(db: Session, rows: Rows) -> None:
    found = statistics.totals(db, Selection())
    assert (found.comparisons, found.conversations, found.people, found.today, found.imported) == (4, 4, 2, 0, 0)
    assert found.median_seconds == 6.5  # of 2, 4, 9, 100


def test_groups(db: Session, rows: Rows, cast: Cast) -> None:
    every = Selection()
    plain = lambda groups: [(group.label, group.count, group.median_seconds) for group in groups]
    assert plain(statistics.by_campaign(db, every)) == [("Chat", 3, 4.0), ("Red", 1, 100.0)]
    assert plain(statistics.by_mode(db, every)) == [("helpful", 3, 4.0), ("red_team", 1, 100.0)]
    assert plain(statistics.by_strength(db, every)) == [("1", 1, 4.0), ("2", 1, 100.0), ("4", 2, 5.5)]
    assert plain(statistics.by_person(db, every)) == [("Alice", 3, 4.0), ("Bob", 1, 9.0)]
    assert plain(statistics.by_source(db, every)) == [("compared here", 4, 6.5)]


def test_a_scale_of_one_strength_is_no_weakest_grade(db: Session) -> None:
    campaign, person = factories.campaign(db, grades=1), factories.person(db)
    factories.comparison(db, factories.turn(db, factories.conversation(db, campaign, person)), person, strength=1)
    assert [group.label for group in statistics.by_strength(db, Selection())] == ["none asked or given"]


def test_days_without_comparisons_are_there(db: Session, rows: Rows) -> None:
    selection = Selection(since=date(2026, 3, 9), until=date(2026, 3, 12))
    days = [(9, 0), (10, 2), (11, 0), (12, 2)]
    assert statistics.by_day(db, selection) == [(date(2026, 3, day), count) for day, count in days]
    assert len(statistics.by_day(db, Selection(until=date(2026, 3, 12)))) == 30


def test_wins_are_only_against_other_snapshots(db: Session, rows: Rows) -> None:
    old, new = statistics.by_snapshot(db, Selection())
    assert (old.name, old.replies, old.wins.part, old.wins.whole) == ("old", 3, 1, 3)
    assert (new.name, new.replies, new.wins.part, new.wins.whole) == ("new", 5, 2, 3)


def test_what_picks_nothing_is_met_but_neither_won_nor_lost(db: Session, rows: Rows, cast: Cast) -> None:
    for verdict, left, right in (
        ("tie", rows.old, rows.new), ("both_bad", rows.new, rows.old), ("both_bad", rows.old, rows.new),
        ("tie", rows.new, rows.new),
    ):  # fmt: skip
        turn = factories.turn(db, factories.conversation(db, rows.chat, cast.bob, status="finished"), "Q", ("a", "b"))
        turn.candidates[0].snapshot_id, turn.candidates[1].snapshot_id = left.id, right.id
        nothing = {"picked_id": None, "chosen_id": None, "rejected_id": None, "strength": None}
        factories.comparison(db, turn, cast.bob, verdict=verdict, **nothing)
    old, new = statistics.by_snapshot(db, Selection())
    assert (old.replies, old.wins, old.ties, old.both_bad) == (3 + 3, Share(1, 3), 1, 2)
    assert (new.replies, new.wins, new.ties, new.both_bad) == (5 + 3 + 2, Share(2, 3), 1, 2)


def test_evaluations_can_be_looked_at_apart(db: Session, rows: Rows) -> None:
    db.query(Comparison).filter_by(campaign_id=rows.red.id).update({Comparison.purpose: "evaluation"})
    assert statistics.totals(db, Selection(purpose="evaluation")).comparisons == 1
    assert statistics.totals(db, Selection(purpose="training")).comparisons == 3


def test_biases(db: Session, rows: Rows) -> None:
    assert statistics.picked_left(db, Selection()) == Share(3, 4)
    # the left reply is longer; it is chosen twice, in the red team the right one is
    assert statistics.chosen_longer(db, Selection()) == Share(2, 4)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"mode": "red_team"}, 1),
        ({"source": "chat"}, 4),
        ({"source": "import"}, 0),
        ({"people": "simulated"}, 0),
        ({"people": "real"}, 4),
        ({"since": date(2026, 3, 11)}, 2),
        ({"until": date(2026, 3, 10)}, 2),
        ({"since": date(2026, 3, 10), "until": date(2026, 3, 10)}, 2),
        ({"round_number": 1}, 0),
    ],
)
def test_filters(db: Session, rows: Rows, filters: dict[str, object], count: int) -> None:
    assert statistics.totals(db, Selection(**filters)).comparisons == count  # type: ignore[arg-type]
    assert statistics.totals(db, Selection(campaign_id=rows.red.id)).comparisons == 1


def test_filters_are_a_closed_list() -> None:
    for wrong in ({"mode": "x"}, {"source": "x"}, {"people": "x"}):
        with pytest.raises(BadInput):
            Selection(**wrong)
    with pytest.raises(BadInput):
        Selection(since=date(2026, 2, 2), until=date(2026, 2, 1))


def test_wilson_interval_against_published_values() -> None:
    # Newcombe 1998, table I: 81/263 gives 0.2553 to 0.3662; 0/20 gives 0 to 0.1611
    low, high = Share(81, 263).ci95 or (0, 0)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = Share(0, 20).ci95 or (1, 1)
    assert (low, round(high, 4)) == (0, 0.1611)
    assert Share(0, 0).value is None and Share(0, 0).ci95 is None
