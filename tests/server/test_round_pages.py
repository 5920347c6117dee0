"""Pages and JSON of rounds and snapshots: who may, what they show, what they change."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.models import AuditEntry, Deployment, Round, RoundStep, Run, Schedule, Snapshot
from server.services.data import datasets
from server.services.data.dataset_selection import DatasetSelection
from server.services.rounds import rounds, runs
from server.services.snapshots import deployments
from tests import factories

GATE = {
    "label": "Held-out accuracy",
    "value": 0.4,
    "rule": ">",
    "threshold": 0.5,
    "note": "",
    "passed": False,
    "place": 0,
}


def world(db: Session) -> Round:
    """A campaign with comparisons, a queued round 1 and a schedule."""
    campaign = factories.campaign(db, slug="helpful", name="Helpful chat")
    person = factories.person(db)
    for _ in range(20):
        chat = factories.conversation(db, campaign, person, status="finished")
        factories.comparison(db, factories.turn(db, chat), person)
    row = rounds.start(db, trigger="command")
    db.add(Schedule(cron="0 3 * * 1", time_zone="UTC", minimum_new_comparisons=100))
    db.commit()
    return row


def step_of(db: Session, row: Round, name: str) -> RoundStep:
    return next(step for step in rounds.find_round(db, row.id).steps if step.name == name)


# Every route of these pages: method, address, form or JSON. {round} and {snapshot} are existing ids.
ROUTES = [
    ("GET", "/rounds", None),
    ("POST", "/rounds", {"settings": ""}),
    ("POST", "/rounds/schedule", {"cron": "0 3 * * 1", "time_zone": "UTC", "minimum": "5"}),
    ("GET", "/rounds/{round}", None),
    ("POST", "/rounds/{round}/retry", {}),
    ("POST", "/rounds/{round}/release", {"reason": "x"}),
    ("POST", "/rounds/{round}/cancel", {}),
    ("GET", "/api/rounds", None),
    ("POST", "/api/rounds", {"settings": {}}),
    ("GET", "/api/rounds/{round}", None),
    ("POST", "/api/rounds/{round}/retry", {}),
    ("POST", "/api/rounds/{round}/release", {"reason": "x"}),
    ("POST", "/api/rounds/{round}/cancel", {}),
    ("GET", "/api/rounds/{round}/events", None),
    ("PUT", "/api/schedule", {"cron": "0 3 * * 1"}),
    ("GET", "/snapshots", None),
    ("GET", "/snapshots/{snapshot}", None),
    ("POST", "/snapshots/deploy", {"campaign": "helpful", "snapshot": "none"}),
    ("POST", "/snapshots/best-of", {"name": "x", "policy": "none", "preference_model": "none"}),
    ("POST", "/snapshots/rollback", {"campaign": "helpful"}),
    ("GET", "/api/snapshots", None),
    ("GET", "/api/snapshots/{snapshot}", None),
    ("POST", "/api/snapshots/deploy", {"campaign": "helpful", "shares": {"none": 1}}),
    ("POST", "/api/snapshots/best-of", {"name": "x", "policy": "none", "preference_model": "none"}),
    ("POST", "/api/snapshots/rollback", {"campaign": "helpful"}),
]


def send(client, method: str, address: str, body: dict | None):
    if address.startswith("/api/"):
        return client.request(method, address, json=body)
    return client.request(method, address, data=body, headers={"Accept": "text/html"})


@pytest.mark.parametrize("who", ["nobody", "crowdworker"])
def test_no_route_is_open_to_others(client, db, cast, sign_in, who):
    row = world(db)
    sign_in(None if who == "nobody" else cast.mallory)
    for method, address, body in ROUTES:
        path = address.format(round=row.id, snapshot=row.initial_snapshot_id)
        assert send(client, method, path, body).status_code == (401 if who == "nobody" else 403), (method, path)
    db.expire_all()
    assert db.get_one(Round, row.id).status == "queued"
    assert db.scalars(select(Deployment).where(Deployment.replaced_at.is_not(None))).all() == []


@pytest.mark.parametrize("who", ["rosa", "ada"])
def test_researchers_and_admins_get_through_every_route(client, db, cast, sign_in, who):
    row = world(db)
    sign_in(getattr(cast, who))
    allowed = {200, 201, 303, 404, 409, 422}  # the object may not be in a state for it, but the person may ask
    for method, address, body in ROUTES:
        if not address.endswith("/events"):  # endless while the round is queued
            path = address.format(round=row.id, snapshot=row.initial_snapshot_id)
            assert send(client, method, path, body).status_code in allowed, (method, path)


def test_a_form_without_the_token_changes_nothing(client, db, cast, sign_in):
    row = world(db)
    sign_in(cast.ada)
    client.headers.pop("X-CSRF-Token")
    assert send(client, "POST", f"/rounds/{row.id}/cancel", {}).status_code == 403
    db.expire_all()
    assert db.get_one(Round, row.id).status == "queued"


def test_start_by_button_and_the_second_start_says_which_is_active(client, db, cast, sign_in, sent_tasks):
    rounds.cancel(db, world(db), None)
    sign_in(cast.rosa)
    answer = send(client, "POST", "/rounds", {"settings": "policy.episodes=64\r\n\r\nshare=0.5"})
    made = db.scalars(select(Round).order_by(Round.id.desc())).first()
    assert (answer.status_code, answer.headers["location"]) == (303, f"/rounds/{made.id}")
    assert made.settings == {"policy": {"episodes": 64}, "share": 0.5}
    assert (made.trigger, made.started_by_id) == ("person", cast.rosa.id)
    assert ("advance_round", {"round_id": made.id}) in sent_tasks
    again = send(client, "POST", "/rounds", {"settings": ""})
    assert again.status_code == 409
    assert f"Round {made.number} is queued" in again.text


def test_a_bad_setting_is_named_and_what_was_typed_stays(client, db, cast, sign_in):
    rounds.cancel(db, world(db), None)
    sign_in(cast.rosa)
    answer = send(client, "POST", "/rounds", {"settings": "gates.luck=1"})
    assert answer.status_code == 422
    assert "There is no gate" in answer.text
    assert "gates.luck=1" in answer.text


def test_a_held_round_shows_its_gates_and_is_released_with_a_reason(client, db, cast, sign_in):
    row = world(db)
    held = rounds.claim(db, row.id, "w")
    rounds.hold_step(db, held, {"accuracy": GATE}, "Held for a person. <b>0.4</b>")
    db.commit()
    sign_in(cast.rosa)
    page = client.get(f"/rounds/{row.id}").text
    assert "Held-out accuracy" in page
    assert "not passed" in page
    assert "<b>0.4</b>" not in page
    assert send(client, "POST", f"/rounds/{row.id}/release", {"reason": ""}).status_code == 422
    assert send(client, "POST", f"/rounds/{row.id}/release", {"reason": "<i>fine</i>"}).status_code == 303
    page = client.get(f"/rounds/{row.id}").text
    assert "Let go on by Rosa" in page
    assert "<i>fine</i>" not in page
    assert step_of(db, row, "pm").status == "queued"


def test_a_failed_round_shows_the_reason_and_a_retry_button(client, db, cast, sign_in):
    row = world(db)
    held = rounds.claim(db, row.id, "w")
    rounds.fail_step(db, held, "the disk is full")
    db.commit()
    sign_in(cast.rosa)
    page = client.get(f"/rounds/{row.id}").text
    assert "the disk is full" in page
    assert "Try again" in page
    assert send(client, "POST", f"/rounds/{row.id}/retry", {}).status_code == 303
    assert send(client, "POST", f"/rounds/{row.id}/retry", {}).status_code == 409


def test_a_finished_round_with_curves_and_lineage(client, db, cast, sign_in):
    row = world(db)
    version = datasets.freeze(db, DatasetSelection())
    row.dataset_version_id = version.id
    db.flush()
    result = {
        "accuracy": 0.7,
        "accuracy_ci95": [0.6, 0.8],
        "calibration_error": 0.1,
        "pairs": 17,
        "test_pairs": 3,
        "log_loss": 0.6,
    }
    for _ in range(7):
        held = rounds.claim(db, row.id, "w")
        if held.name == "pm":
            run = runs.run_of_step(db, held, "preference")
            curves = {"loss": [[step, 0.7 - step / 100] for step in range(1, 40)]}
            rounds.finish_step(db, held)
            runs.finish_run(db, run.id, {"seed": 1}, result, {"step": 39, "of": 39, "curves": curves})
        else:
            rounds.finish_step(db, held)
    db.commit()
    sign_in(cast.rosa)
    page = client.get(f"/rounds/{row.id}").text
    assert "<polyline" in page
    assert "70.0%" in page
    assert version.sha256 in page
    body = client.get(f"/api/rounds/{row.id}").json()["round"]
    assert (body["status"], body["pm_result"]["accuracy"], body["policy_result"]) == ("done", 0.7, {})
    assert [step["name"] for step in body["steps"]] == [
        "freeze", "pm", "pm_checks", "policy", "policy_checks", "register", "deploy",
    ]  # fmt: skip
    assert "curves" not in body["steps"][1]["run"]["progress"]
    assert "Agreement with experts" not in page  # there were no keys
    run = db.query(Run).filter_by(job="preference").one()
    run.result = result | {
        "experts": {"test_pairs": 40, "accuracy": 0.65, "accuracy_ci95": [0.495, 0.779], "log_loss": 0.6}
    }
    db.commit()
    page = client.get(f"/rounds/{row.id}").text
    assert "65.0%" in page
    assert "95%: 50% to 78%; 40 keyed pairs" in page
    assert "Round 1" in client.get("/rounds").text


def test_the_schedule_is_changed_and_audited(client, db, cast, sign_in):
    world(db)
    schedule = db.scalars(select(Schedule)).one()
    sign_in(cast.rosa)
    form = {"cron": "30 4 * * *", "time_zone": "Europe/Berlin", "minimum": "7", "schedule_id": str(schedule.id)}
    assert send(client, "POST", "/rounds/schedule", form).status_code == 303
    db.refresh(schedule)
    assert (schedule.cron, schedule.minimum_new_comparisons, schedule.enabled) == ("30 4 * * *", 7, False)
    assert db.scalars(select(AuditEntry).where(AuditEntry.action == "schedule.save")).one().person_id == cast.rosa.id
    bad = send(client, "POST", "/rounds/schedule", {**form, "cron": "whenever"})
    assert bad.status_code == 422
    assert "five fields" in bad.text


def test_deploy_a_share_and_roll_back(client, db, cast, sign_in):
    row = world(db)
    old = db.get_one(Snapshot, row.initial_snapshot_id)
    new = factories.snapshot(db, name="newer", parent_id=old.id)
    db.commit()
    campaign = rounds.campaigns_to_serve(db, old)[0]
    sign_in(cast.rosa)
    form = {"campaign": "helpful", "snapshot": "newer", "percent": "25", "reason": "try it"}
    assert send(client, "POST", "/snapshots/deploy", form).status_code == 303
    assert client.get("/api/snapshots").json()["serving"]["helpful"] == {old.name: 0.75, "newer": 0.25}
    page = client.get("/snapshots").text
    assert "try it" in page
    assert "25%" in page
    assert send(client, "POST", "/snapshots/rollback", {"campaign": "helpful"}).status_code == 303
    assert [part.snapshot_id for part in deployments.current(db, campaign).shares] == [old.id]
    assert send(client, "POST", "/snapshots/deploy", {**form, "percent": "0"}).status_code == 422
    assert send(client, "POST", "/snapshots/deploy", {**form, "snapshot": "nothing"}).status_code == 404
    answer = client.post("/api/snapshots/deploy", json={"campaign": "helpful", "shares": {"newer": 1}})
    assert answer.json()["deployment"]["shares"] == {"newer": 1.0}
    assert new.name in client.get(f"/snapshots/{old.id}").text


def test_a_deployment_of_another_campaign_cannot_be_brought_back_here(client, db, cast, sign_in):
    world(db)
    factories.campaign(db, slug="other")
    foreign = db.scalars(select(Deployment).order_by(Deployment.id.desc())).first()
    db.commit()
    sign_in(cast.ada)
    form = {"campaign": "helpful", "deployment": str(foreign.id)}
    assert send(client, "POST", "/snapshots/rollback", form).status_code == 409


@pytest.mark.parametrize(
    "address", ["/rounds/999999", "/snapshots/999999", "/api/rounds/999999", "/rounds/999999999999999999999"]
)
def test_what_is_not_there(client, db, cast, sign_in, address):
    sign_in(cast.rosa)
    assert client.get(address).status_code in (404, 422)


def test_empty_pages_explain_themselves(client, db, cast, sign_in):
    sign_in(cast.rosa)
    assert "No round yet" in client.get("/rounds").text
    assert "No snapshot yet" in client.get("/snapshots").text


def test_a_run_that_is_over_is_not_written_to(db):
    run = Run(job="policy", folder="x", config={}, status="cancelled")
    db.add(run)
    db.flush()
    runs.record_progress(db, run.id, {"step": 1})
    runs.fail_run(db, run.id, "late")
    db.expire_all()
    assert (db.get_one(Run, run.id).progress, db.get_one(Run, run.id).status) == ({}, "cancelled")
