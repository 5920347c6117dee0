"""Best-of snapshots: what one may be made of, by which doors, how they serve, and that no round trains from one."""

from __future__ import annotations

import json
from threading import Thread

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from server import cli
from server.db import engine_for, session_factory
from server.errors import BadInput, Conflict
from server.migrate import _INI, upgrade
from server.models import AuditEntry, Snapshot
from server.services.data import wins
from server.services.data.selection import Selection
from server.services.rounds import outlook, rounds
from server.services.snapshots import best_of, deployments, registry
from tests import factories
from tests.server.test_migrations import empty_database

__all__ = ["empty_database"]


@pytest.fixture
def pair(db):
    """A policy that a round trained, and the preference model it was trained against."""
    initial = factories.snapshot(db, name="initial")
    policy = factories.snapshot(db, name="round-1-policy", origin="round", parent_id=initial.id)
    return policy, factories.snapshot(db, name="round-1-pm", kind="pm", origin="round", parent_id=initial.id)


def make(db, pair, **more):
    return best_of.register_best_of(
        db, **({"name": "best", "policy": pair[0], "preference_model": pair[1], "k": 16} | more)
    )


def test_it_is_a_policy_without_files_of_its_own(db, pair, cast):
    made = make(db, pair, person=cast.rosa)
    assert (made.kind, made.backend, made.origin, made.path, made.manifest) == ("policy", "local", "best_of", None, {})
    assert (made.draws_from, made.scored_by, made.k) == (*pair, 16)
    assert db.get_one(Snapshot, made.parent_id).name == "initial"  # the lineage of what it draws from
    entry = db.scalars(select(AuditEntry).where(AuditEntry.object_id == made.id)).one()
    assert (entry.action, entry.person_id) == ("snapshot.register", cast.rosa.id)
    assert entry.details == {
        "name": "best", "kind": "policy", "origin": "best_of", "policy": "round-1-policy",
        "preference_model": "round-1-pm", "k": 16,
    }  # fmt: skip
    with pytest.raises(BadInput, match="no files of its own"):
        registry.snapshot_folder("/artifacts", made)


def test_what_it_cannot_be_made_of_is_refused(db, pair):
    policy, pm = pair
    remote = factories.snapshot(
        db, name="far", backend="openai", path=None, endpoint={"base_url": "http://x/v1", "model": "m"}
    )
    old, old_pm = factories.snapshot(db, name="old"), factories.snapshot(db, name="old-pm", kind="pm")
    registry.retire(db, old)
    registry.retire(db, old_pm)
    made = make(db, pair)
    for error, words, more in (
        (Conflict, "best already", {}),
        (BadInput, "2 to 64 replies, not 1", {"name": "x", "k": 1}),
        (BadInput, "2 to 64 replies, not 65", {"name": "x", "k": 65}),
        (BadInput, "letters, digits", {"name": "a b"}),
        (BadInput, "writes no replies", {"name": "x", "policy": pm}),
        (BadInput, "remote endpoint", {"name": "x", "policy": remote}),
        (BadInput, "itself the best of several", {"name": "x", "policy": made}),
        (Conflict, "old was retired", {"name": "x", "policy": old}),
        (BadInput, "gives no scores", {"name": "x", "preference_model": policy}),
        (Conflict, "old-pm was retired", {"name": "x", "preference_model": old_pm}),
    ):
        with pytest.raises(error, match=words):
            make(db, pair, **more)


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "registered"},  # the three of another origin
        {"k": None},
        {"scored_by_id": None},
        {"k": 1},
        {"k": 65},
        {"kind": "pm"},
        {"path": "snapshots/best"},
    ],
)
def test_the_database_holds_all_of_it_or_nothing(db, pair, wrong):
    values = {
        "name": "raw", "kind": "policy", "origin": "best_of", "path": None, "manifest": {}, "k": 2,
        "draws_from_id": pair[0].id, "scored_by_id": pair[1].id,
    }  # fmt: skip
    with pytest.raises(IntegrityError), db.begin_nested():
        db.add(Snapshot(**(values | wrong)))
        db.flush()
    db.add(Snapshot(**values))
    db.flush()


def test_what_it_uses_cannot_be_retired_before_it(db, pair):
    made, (policy, pm) = make(db, pair), pair
    with pytest.raises(Conflict, match="writes the replies of best; retire what uses it first"):
        registry.retire(db, policy)
    with pytest.raises(Conflict, match="scores the replies of best"):
        registry.retire(db, pm)
    for row in (made, policy, pm):
        registry.retire(db, row)
    assert all(row.retired_at for row in (made, policy, pm))


def test_retiring_waits_for_one_that_is_just_being_made(committed):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        policy, pm = factories.snapshot(db, name="p"), factories.snapshot(db, name="q", kind="pm")
    refused: list[str] = []

    def retire():
        try:
            with sessions.begin() as other:
                registry.retire(other, registry.find_snapshot(other, "q"))
        except Conflict as error:
            refused.append(error.message)

    with sessions.begin() as db:
        make(db, (db.get_one(Snapshot, policy.id), db.get_one(Snapshot, pm.id)))
        thread = Thread(target=retire)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # it waits for the rows
    thread.join(10)
    assert refused
    assert "scores the replies of best" in refused[0]


def test_it_serves_and_is_a_player_of_its_own(db, pair):
    made = make(db, pair)
    campaign = factories.campaign(db, served_by=pair[0])
    deployments.deploy(db, campaign, [(made, 1), (pair[0], 1)], reason="side by side")
    assert [row.name for row in deployments.serving(db)] == ["round-1-policy", "best"]
    person = factories.person(db)
    for _ in range(3):
        turn = factories.turn(db, factories.conversation(db, campaign, person, status="finished"))
        turn.candidates[0].snapshot_id, turn.candidates[1].snapshot_id = made.id, pair[0].id
        factories.comparison(db, turn, person)
    db.flush()
    found = wins.standings(db, Selection())
    assert {player.name for player in found.players} == {"best", "round-1-policy"}


def test_a_round_trains_the_policy_it_grew_from_and_never_it(db, pair):
    made = make(db, pair)
    campaign = factories.campaign(db, served_by=made)
    assert rounds.initial_snapshot(db).name == "initial"
    assert outlook.outlook(db).initial == "initial"
    assert rounds.campaigns_to_serve(db, rounds.initial_snapshot(db)) == [campaign]
    with pytest.raises(
        BadInput, match="best of 16 replies of round-1-policy and has no weights of its own; name round-1"
    ):
        rounds.initial_snapshot(db, "best")
    assert rounds.last_policy(db, rounds.initial_snapshot(db)).name == "initial"


def test_made_and_seen_on_the_page_and_by_json(client, db, cast, sign_in, pair):
    db.commit()
    sign_in(cast.rosa)
    form = {"name": " best ", "policy": pair[0].name, "preference_model": pair[1].name, "k": "4"}

    def send(**more):
        return client.post("/snapshots/best-of", data=form | more, headers={"Accept": "text/html"})

    assert send().status_code == 303
    assert send().status_code == 409
    assert "best already" in send().text
    assert "2 to 64" in send(name="other", k="100").text
    assert send(name="other", k="100").status_code == 422
    assert 'value="other"' in send(name="other", k="100").text  # what was typed stays
    assert send(name="other", policy="nobody").status_code == 404
    found = {one["name"]: one for one in client.get("/api/snapshots").json()["snapshots"]}
    best = found["best"]
    assert (best["draws_from"], best["scored_by"], best["k"]) == ("round-1-policy", "round-1-pm", 4)
    assert (best["origin"], best["parent"], found["initial"]["k"]) == ("best_of", "initial", None)
    page = client.get("/snapshots").text
    assert "best of 4" in page
    assert "draws from round-1-policy" in page
    assert "scored by round-1-pm" in page
    shown = client.get(f"/snapshots/{best['id']}").text
    assert "the best of 4 replies" in shown
    assert "round-1-pm" in shown
    assert "Scores for" in client.get(f"/snapshots/{pair[1].id}").text
    body = {"name": "by-json", "policy": pair[0].name, "preference_model": pair[1].name}
    answer = client.post("/api/snapshots/best-of", json=body)
    assert (answer.status_code, answer.json()["snapshot"]["k"]) == (201, 16)
    sign_in(cast.alice)
    assert client.post("/api/snapshots/best-of", json=body | {"name": "no"}).status_code == 403


def test_without_a_preference_model_there_is_no_form(client, db, cast, sign_in):
    factories.snapshot(db)
    db.commit()
    sign_in(cast.rosa)
    assert "/snapshots/best-of" not in client.get("/snapshots").text


def test_by_the_command_line(settings, committed, monkeypatch, capfd):
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    with session_factory(committed).begin() as db:
        factories.snapshot(db, name="p")
        factories.snapshot(db, name="q", kind="pm")

    def call(*arguments):
        capfd.readouterr()
        code = cli.run(["snapshot", *arguments])
        return code, *capfd.readouterr()

    made = call("best-of", "best", "--policy", "p", "--preference-model", "q", "--k", "8", "--json")
    assert made[0] == 0
    assert json.loads(made[1]) == {"name": "best", "id": json.loads(made[1])["id"], "draws_from": "p", "scored_by": "q", "k": 8}  # fmt: skip
    code, _, said = call("best-of", "worse", "--policy", "q", "--preference-model", "p")
    assert (code, "writes no replies" in said) == (1, True)
    assert "best of 8 of p by q" in call("list")[1]
    listed = {
        one["name"]: (one["draws_from"], one["scored_by"], one["k"]) for one in json.loads(call("list", "--json")[1])
    }
    assert listed == {"best": ("p", "q", 8), "p": (None, None, None), "q": (None, None, None)}
    code, _, said = call("check", "best")
    assert (code, "its row holds no hashes" in said) == (1, True)  # the files of its policy are looked at
    code, _, said = call("retire", "q")
    assert (code, "scores the replies of best" in said) == (1, True)
    assert [call("retire", name)[0] for name in ("best", "q", "p")] == [0, 0, 0]


def test_a_step_down_leaves_rows_that_nothing_can_load(empty_database):
    upgrade(empty_database)
    with engine_for(empty_database).begin() as connection:
        row = "INSERT INTO snapshots (name, kind, origin, path, manifest, draws_from_id, scored_by_id, k) VALUES "
        connection.execute(text(row + "('p','policy','initial','p','{}',NULL,NULL,NULL), ('q','pm','round','q','{}',NULL,NULL,NULL)"))  # fmt: skip
        connection.execute(text(row + "('best','policy','best_of',NULL,'{}',1,2,16)"))
    config = Config(str(_INI))
    with engine_for(empty_database).connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        left = connection.execute(text("SELECT origin, path, manifest FROM snapshots WHERE name = 'best'")).one()
        assert tuple(left) == ("registered", "snapshots/best", {})
        connection.rollback()
    upgrade(empty_database)


@pytest.mark.parametrize("more", [{}, {"unscored": 1}])
def test_an_admin_sees_what_was_chosen_among_which_scores(client, db, cast, sign_in, pair, more):
    made = make(db, pair, k=3)
    campaign = factories.campaign(db, served_by=made)
    turn = factories.turn(db, factories.conversation(db, campaign, factories.person(db)), snapshot=made)
    notes = {"k": 3, "scores": [0.5, 1.25, None if more else -1.0], "taken": 1, "policy_log_probability": -7.5}
    turn.candidates[0].sampling = {"temperature": 1.0, "best_of": notes | more}
    db.commit()
    sign_in(cast.ada)
    page = client.get(f"/admin/conversations/{turn.conversation_id}").text
    assert "3 replies, with score 1.25" in page
    assert ("0.50, 1.25, –" if more else "0.50, 1.25, -1.00") in page
    assert "-7.50 nats" in page
    assert ("1 too long to be scored" in page) is bool(more)
