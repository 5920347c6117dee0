"""Base, rs or online: what each origin counts as, which of a mixed pair holds, and that rows of a dataset say it."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.models import Snapshot
from server.services.data import dataset_rankings, datasets
from server.services.data.dataset_selection import DatasetSelection
from server.services.data.distributions import OF_ORIGIN, distribution
from server.services.snapshots import best_of
from tests import factories


@pytest.mark.parametrize(
    ("origins", "found"),
    [
        (("initial", "registered"), "base"),
        (("best_of", "initial"), "rs"),
        (("best_of", "best_of"), "rs"),
        (("round", "best_of"), "online"),
        (("initial", "round"), "online"),
        ((None, "best_of"), "rs"),  # a person's reply beside a model's
        ((None, None), None),
    ],
)
def test_the_latest_of_the_replies_holds(origins: tuple[str | None, ...], found: str | None) -> None:
    assert distribution(*origins) == found
    assert distribution(*reversed(origins)) == found


def test_every_origin_has_one() -> None:
    (known,) = (rule for rule in Snapshot.__table__.constraints if str(rule.name).endswith("origin_known"))
    assert all(f"'{origin}'" in str(known.sqltext) for origin in OF_ORIGIN)
    assert str(known.sqltext).count("'") == 2 * len(OF_ORIGIN)


def test_the_rows_of_a_dataset_say_it(db: Session) -> None:
    campaign, person = factories.campaign(db), factories.person(db)
    start = factories.snapshot(db, name="start")
    week = factories.snapshot(db, name="week-1", origin="round")
    pm = factories.snapshot(db, name="pm", kind="pm")
    best = best_of.register_best_of(db, name="best", policy=start, preference_model=pm, k=4)
    told = {}
    for one, other in ((start, start), (best, start), (week, start), (None, None)):
        turn = factories.turn(db, factories.conversation(db, campaign, person, status="finished"))
        for candidate, snapshot in zip(turn.candidates, (one, other), strict=True):
            candidate.snapshot_id = snapshot and snapshot.id
        told[factories.comparison(db, turn, person).id] = (one and one.name, other and other.name)
    edited = factories.turn(db, factories.conversation(db, campaign, person, status="finished"), snapshot=best)
    factories.edit(db, edited, person, "Better.")
    placed = factories.item(db, factories.campaign(db, way="ranking"), "Eggs?", ["Nine.", "Four.", "Never."])
    placed.candidates[0].snapshot_id, placed.candidates[1].snapshot_id = start.id, best.id
    factories.ranking(db, placed, person, [1, 2, 2])
    db.flush()
    version = datasets.freeze(db, DatasetSelection())
    found = {
        told.get(row.comparison_id or 0, "edit"): row.provenance["distribution"]
        for row in datasets.members(db, version.id)
    }
    assert found == {
        ("start", "start"): "base", ("best", "start"): "rs", ("week-1", "start"): "online", (None, None): None, "edit": "rs",
    }  # fmt: skip
    assert [row.provenance["distribution"] for row in dataset_rankings.members(db, version.id)] == ["rs"]
