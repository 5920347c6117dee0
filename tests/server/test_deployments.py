"""Deploying is atomic, rolls back, and draws by share."""

from random import Random
from threading import Barrier, Thread

import pytest
from sqlalchemy import select

from server.db import session_factory
from server.errors import BadInput, Conflict
from server.models import Campaign, Deployment
from server.services.snapshots import deployments, registry
from tests import factories


@pytest.fixture
def two(db):
    return factories.snapshot(db, name="old"), factories.snapshot(db, name="new")


@pytest.fixture
def campaign(db, two):
    return factories.campaign(db, served_by=two[0])


def names(deployment):
    return {part.snapshot.name: part.share for part in deployment.shares}


def test_a_deployment_replaces_the_current_one(db, campaign, two, cast):
    first = deployments.current(db, campaign)
    second = deployments.deploy(db, campaign, [(two[0], 1), (two[1], 3)], reason="try", person=cast.rosa)
    db.expire_all()
    assert deployments.current(db, campaign) is second
    assert first.replaced_at is not None
    assert names(second) == {"old": 1.0, "new": 3.0}
    assert [snapshot.name for snapshot in deployments.serving(db)] == ["old", "new"]


def test_rollback_brings_back_what_served_and_a_second_one_undoes_it(db, campaign, two, cast):
    with pytest.raises(Conflict, match="nothing to roll back"):
        deployments.rollback(db, campaign, cast.rosa)
    deployments.deploy(db, campaign, [(two[1], 1)], reason="new", person=cast.rosa)
    assert names(deployments.rollback(db, campaign, cast.rosa)) == {"old": 1.0}
    assert names(deployments.rollback(db, campaign, cast.rosa)) == {"new": 1.0}
    assert len(deployments.history(db, campaign)) == 4


def test_rollback_to_a_named_deployment_of_this_campaign_only(db, campaign, two, cast):
    first = deployments.current(db, campaign)
    deployments.deploy(db, campaign, [(two[1], 1)], reason="new")
    assert names(deployments.rollback(db, campaign, cast.ada, to=first)) == {"old": 1.0}
    elsewhere = deployments.current(db, factories.campaign(db))
    with pytest.raises(Conflict):
        deployments.rollback(db, campaign, cast.ada, to=elsewhere)


def test_what_cannot_serve_is_refused(db, campaign, two):
    pm = factories.snapshot(db, name="judge", kind="pm")
    retired = factories.snapshot(db, name="gone")
    registry.retire(db, retired)
    for shares, error, word in (
        ([], BadInput, "at least one"),
        ([(pm, 1)], BadInput, "preference model"),
        ([(retired, 1)], Conflict, "retired"),
        ([(two[0], 0)], BadInput, "above 0"),
        ([(two[0], float("nan"))], BadInput, "above 0"),
        ([(two[0], 1), (two[0], 2)], BadInput, "twice"),
    ):
        with pytest.raises(error, match=word):
            deployments.deploy(db, campaign, shares, reason="no")
    assert names(deployments.current(db, campaign)) == {"old": 1.0}


def test_snapshots_are_drawn_by_share_and_alone(db, campaign, two):
    deployments.deploy(db, campaign, [(two[0], 1), (two[1], 3)], reason="mix")
    drawn = [deployments.draw_snapshots(db, campaign, 2, Random(seed)) for seed in range(400)]
    new = sum(snapshot.name == "new" for pair in drawn for snapshot in pair)
    assert 550 < new < 650  # 800 draws at 3/4: 600, standard deviation 12
    mixed = sum(pair[0] is not pair[1] for pair in drawn)
    assert 110 < mixed < 190  # 400 pairs at 2·1/4·3/4: 150, standard deviation 10


def test_a_campaign_that_nothing_serves_says_so(db):
    bare = Campaign(slug="bare", name="Bare", mode="helpful")
    db.add(bare)
    db.flush()
    assert deployments.current(db, bare) is None
    with pytest.raises(Conflict, match="No model serves"):
        deployments.draw_snapshots(db, bare, 2, Random(1))


def test_two_at_once_leave_one_current(committed):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        old, new = factories.snapshot(db, name="old"), factories.snapshot(db, name="new")
        campaign_id = factories.campaign(db, served_by=old).id
    both, failures = Barrier(2), []

    def deploy(snapshot):
        both.wait()
        try:
            with sessions.begin() as db:
                deployments.deploy(db, db.get_one(Campaign, campaign_id), [(db.merge(snapshot), 1)], reason="race")
        except Exception as error:
            failures.append(error)
            raise

    threads = [Thread(target=deploy, args=(snapshot,)) for snapshot in (old, new)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sessions() as db:
        rows = db.scalars(select(Deployment).where(Deployment.campaign_id == campaign_id)).all()
    assert not failures
    assert len(rows) == 3
    assert sum(row.replaced_at is None for row in rows) == 1
