"""The admin's pages: who may see and do what, on every route; and what the forms do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.models import AuditEntry, Campaign, Invitation, Job, Person
from server.routes import (
    admin_campaigns,
    admin_conversations,
    admin_data,
    admin_notices,
    admin_panels,
    admin_pay,
    admin_people,
)
from server.routes import jobs as jobs_routes
from server.services import jobs
from server.services.campaigns import campaigns
from server.services.pay import appeals
from server.services.working.instructions import instructions_versions
from server.settings import Settings
from tests import factories
from tests.conftest import Cast

SignIn = Callable[[Person | None], str]
HTML = {"Accept": "text/html"}


@pytest.fixture
def place(db: Session, cast: Cast, settings: Settings) -> dict[str, Any]:
    """One object of each kind that an address can name."""
    campaign = factories.campaign(db, slug="chat", name="Chat <b>bold</b>")
    talk = factories.conversation(db, campaign, cast.alice, status="finished")
    turn = factories.turn(db, talk, "<script>alert(1)</script> **Hi**", ("<img src=x onerror=alert(1)>", "Fine."))
    factories.comparison(db, turn, cast.alice, justification="<i>because</i>")
    invitation = Invitation(token_hash="x", roles=["crowdworker"], expires_at=turn.created_at.replace(year=2999))
    job = Job(
        kind="export",
        status="done",
        settings={"format": "hh", "campaign": None, "selection": {}},
        result={
            "comparisons": 1, "conversations": 1, "simulated_left_out": 0, "counts": {"mode": {"helpful": 1}},
            "files": [{"name": "comparisons.jsonl", "comparisons": 1, "bytes": 2, "sha256": "0" * 64}],
        },
    )  # fmt: skip
    rejected = factories.entry(db, cast.alice, status="rejected", campaign_id=campaign.id)
    appeal = appeals.appeal(db, cast.alice, rejected.id, "<b>I</b> was there.")
    db.add_all([invitation, job])
    payroll = factories.payroll(db)
    factories.panel(db, campaign, slug="chat")
    db.commit()  # a refused request rolls back to here
    folder = Path(settings.artifacts) / "exports" / str(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparisons.jsonl").write_text("{}")
    (folder / "manifest.json").write_text("{}")
    return {
        "slug": "chat", "conversation_id": talk.id, "person_id": cast.bob.id, "invitation_id": invitation.id,
        "appeal_id": appeal.id, "payroll_id": payroll.id, "job_id": job.id, "name": "comparisons.jsonl",
    }  # fmt: skip


READ_BY_RESEARCHERS = [
    ("GET", "/admin/data"),
    ("GET", "/admin/conversations"),
    ("GET", "/admin/conversations/{conversation_id}"),
]
ONLY_ADMINS = [
    ("GET", "/admin/people"),
    ("GET", "/admin/people/{person_id}"),
    ("POST", "/admin/people/invitations"),
    ("POST", "/admin/people/invitations/{invitation_id}/revoke"),
    ("POST", "/admin/people/{person_id}/roles"),
    ("POST", "/admin/people/{person_id}/disable"),
    ("POST", "/admin/people/{person_id}/enable"),
    ("POST", "/admin/people/{person_id}/hold-out"),
    ("GET", "/admin/campaigns"),
    ("POST", "/admin/campaigns"),
    ("GET", "/admin/campaigns/{slug}"),
    ("POST", "/admin/campaigns/{slug}"),
    ("POST", "/admin/campaigns/{slug}/instructions"),
    ("POST", "/admin/campaigns/{slug}/prompts"),
    ("POST", "/admin/campaigns/{slug}/items"),
    ("POST", "/admin/campaigns/{slug}/items/hand-over"),
    ("POST", "/admin/campaigns/{slug}/demonstrations"),
    ("GET", "/admin/notices"),
    ("POST", "/admin/notices"),
    ("GET", "/admin/pay"),
    ("POST", "/admin/pay/entries"),
    ("POST", "/admin/pay/added"),
    ("POST", "/admin/pay/appeals/{appeal_id}"),
    ("POST", "/admin/pay/payrolls"),
    ("GET", "/admin/pay/payrolls/{payroll_id}/file"),
    ("GET", "/admin/panels"),
    ("POST", "/admin/panels"),
    ("GET", "/admin/panels/{slug}"),
    ("POST", "/admin/panels/{slug}"),
    ("POST", "/admin/panels/{slug}/secret"),
    ("POST", "/admin/panels/{slug}/close"),
    ("POST", "/admin/panels/{slug}/open"),
    ("GET", "/admin/jobs"),
    ("POST", "/admin/jobs/import"),
    ("POST", "/admin/jobs/export"),
    ("GET", "/admin/jobs/{job_id}"),
    ("GET", "/admin/jobs/{job_id}/files/{name}"),
]


def test_no_route_is_missing_from_the_lists_below() -> None:
    modules = (
        admin_data,
        admin_conversations,
        admin_people,
        admin_campaigns,
        admin_pay,
        admin_notices,
        admin_panels,
        jobs_routes,
    )
    routes = [route for module in modules for route in module.router.routes]
    found = {(method, route.path) for route in routes for method in route.methods}  # type: ignore[attr-defined]
    assert found == set(READ_BY_RESEARCHERS + ONLY_ADMINS)


@pytest.mark.parametrize("name", ["nobody", "alice", "mallory", "rosa", "ada"])
def test_every_role_on_every_route(
    client: TestClient, sign_in: SignIn, cast: Cast, place: dict[str, Any], name: str
) -> None:
    sign_in(None if name == "nobody" else getattr(cast, name))
    for method, path in READ_BY_RESEARCHERS + ONLY_ADMINS:
        status = client.request(method, path.format(**place), headers=HTML).status_code
        if name == "ada" or (name == "rosa" and (method, path) in READ_BY_RESEARCHERS):
            assert status in (200, 303, 422), (method, path, status)  # 422: the empty form, seen by who may send it
        else:
            assert status in ((303, 401) if name == "nobody" else (403,)), (method, path, status)


def test_no_change_without_the_token_of_the_session(
    client: TestClient, sign_in: SignIn, cast: Cast, place: dict[str, Any]
) -> None:
    sign_in(cast.ada)
    client.headers.pop("X-CSRF-Token")
    for method, path in ONLY_ADMINS:
        if method == "POST":
            assert client.post(path.format(**place)).status_code == 403, path


def test_what_people_and_models_wrote_is_text(
    client: TestClient, sign_in: SignIn, cast: Cast, place: dict[str, Any]
) -> None:
    sign_in(cast.rosa)
    page = client.get(f"/admin/conversations/{place['conversation_id']}").text
    assert "<script>alert" not in page and "<img src=x" not in page and "<i>because" not in page
    assert "<strong>Hi</strong>" in page and "picked the" in page
    assert "<b>bold</b>" not in client.get("/admin/data").text


def test_numbers_that_name_no_row_are_not_found(client: TestClient, sign_in: SignIn, cast: Cast) -> None:
    sign_in(cast.ada)
    assert client.get("/admin/conversations/999999").status_code == 404
    assert client.get(f"/admin/conversations/{2**63}").status_code == 422
    assert client.get(f"/admin/conversations?before={10**30}&by={10**30}").status_code == 200
    assert client.get("/admin/data?since=yesterday").status_code == 422
    assert client.get("/admin/data?mode=x").status_code == 422
    assert client.get("/admin/data?purpose=x").status_code == 422
    assert client.get("/admin/data?purpose=evaluation").status_code == 200
    assert client.get("/admin/data?campaign=none").status_code == 404


def test_what_people_gave_is_counted_for_each_conversation_and_shown_whole(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    ranks = factories.campaign(db, slug="ranks", way="ranking")
    ranked, waiting = (factories.item(db, ranks, text, replies=("One", "Two", "Three")) for text in ("Q1", "Q2"))
    row = factories.ranking(db, ranked, cast.alice, [2, 1, 2], justification="<i>So</i>")
    row.places[0].rating, row.places[0].flags = 6, ["opinion"]
    chat = factories.campaign(db, slug="talks")
    turn = factories.turn(db, factories.conversation(db, chat, cast.bob))
    factories.comparison(db, turn, cast.bob)
    factories.edit(db, turn, cast.bob, "A **better** one")
    db.flush()
    sign_in(cast.rosa)
    listed = client.get("/admin/conversations").text
    for asked, count in ((ranked, 1), (waiting, 0), (turn, 1)):
        line = re.search(
            rf'<tr>\s*<td class="narrow"><a href="/admin/conversations/{asked.conversation_id}">.*?</tr>',
            listed,
            re.DOTALL,
        )
        assert line is not None
        assert re.findall(r'<td class="number">(\d+)</td>', line[0]) == ["1", str(count)]
    answered = client.get("/admin/conversations?compared=yes&campaign=ranks").text
    assert f"/admin/conversations/{ranked.conversation_id}" in answered
    assert f"/admin/conversations/{waiting.conversation_id}" not in answered
    page = " ".join(client.get(f"/admin/conversations/{ranked.conversation_id}").text.split())
    assert "ordered the replies from the best:" in page and "an item ·" in page
    assert "reply 2 &gt; reply 1 (rated 6; opinion) = reply 3, after 9.0 s" in page
    assert "&lt;i&gt;So" in page and "<i>So" not in page
    assert "<strong>better</strong>" in client.get(f"/admin/conversations/{turn.conversation_id}").text
    data = client.get("/admin/data?campaign=ranks").text
    assert "No comparison here" in data and "Rankings" in data


def test_an_export_of_rankings_is_a_job_like_any_other(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    result = {"of": "rankings", "rankings": 7, "conversations": 3, "simulated_left_out": 0, "files": []}
    db.add(Job(kind="export", status="done", settings={"format": "rankings", "campaign": ""}, result=result))
    db.flush()
    sign_in(cast.ada)
    page = client.get("/admin/jobs")
    assert page.status_code == 200 and "7 rankings" in page.text


def test_conversations_come_page_by_page_without_gap_or_double(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    campaign = factories.campaign(db, slug="many")
    made = [factories.conversation(db, campaign, cast.bob, status="finished").id for _ in range(65)]
    sign_in(cast.rosa)
    seen: list[int] = []
    address: str | None = "/admin/conversations?campaign=many"
    while address:
        page = client.get(address).text
        seen += [int(part.split('"')[0]) for part in page.split('<a href="/admin/conversations/')[1:]]
        older = page.split('rel="next" href="')
        address = older[1].split('"')[0].replace("&amp;", "&") if len(older) > 1 else None
    assert seen == made[::-1]


def test_an_invitation_is_shown_once_and_can_be_withdrawn(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    sign_in(cast.ada)
    page = client.post("/admin/people/invitations", data={"roles": ["researcher"], "max_uses": "2", "days": "3"})
    assert page.status_code == 200 and "/invitation/" in page.text
    made = db.scalars(select(Invitation)).one()
    assert (made.roles, made.max_uses) == (["researcher"], 2)
    assert 'class="token"' not in client.get("/admin/people").text
    client.post(f"/admin/people/invitations/{made.id}/revoke")
    db.refresh(made)
    assert made.revoked_at is not None
    refused = client.post("/admin/people/invitations", data={"max_uses": "many"})
    assert refused.status_code == 422


def test_roles_and_accounts_change_and_are_written_down(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    sign_in(cast.ada)
    client.post(f"/admin/people/{cast.bob.id}/roles", data={"roles": ["crowdworker", "researcher"]})
    client.post(f"/admin/people/{cast.bob.id}/disable")
    db.refresh(cast.bob)
    assert cast.bob.roles == ["crowdworker", "researcher"] and cast.bob.disabled_at is not None
    client.post(f"/admin/people/{cast.bob.id}/enable")
    db.refresh(cast.bob)
    assert cast.bob.disabled_at is None
    assert client.post(f"/admin/people/{cast.ada.id}/disable").status_code == 409
    assert client.post(f"/admin/people/{cast.ada.id}/roles", data={"roles": ["crowdworker"]}).status_code == 409
    entries = db.scalars(select(AuditEntry).where(AuditEntry.object_id == cast.bob.id).order_by(AuditEntry.id)).all()
    assert [entry.action for entry in entries] == ["person.roles", "person.disable", "person.enable"]
    assert all(entry.person_id == cast.ada.id for entry in entries)


def test_a_campaign_says_that_its_model_cannot_write_ahead(
    client: TestClient, sign_in: SignIn, cast: Cast, db: Session
) -> None:
    campaign = factories.campaign(db, slug="broken", prepared=1)
    sign_in(cast.ada)
    assert "failed to write replies ahead" not in client.get("/admin/campaigns/broken").text
    talk = factories.conversation(db, campaign, None, source="prepared")
    factories.turn(db, talk, status="failed", idempotency_key="prepared")
    assert "failed to write replies ahead" in client.get("/admin/campaigns/broken").text


def test_a_campaign_is_made_changed_and_opened(client: TestClient, sign_in: SignIn, cast: Cast, db: Session) -> None:
    sign_in(cast.ada)
    form = {"slug": "new", "name": "New", "mode": "helpful", "instructions": "Do."}
    assert client.post("/admin/campaigns", data=form).headers["location"] == "/admin/campaigns/new?saved=made"
    taken = client.post("/admin/campaigns", data=form)
    assert taken.status_code == 409 and "already a campaign" in taken.text
    campaign = campaigns.find_campaign(db, "new")
    assert campaign.status == "paused"
    assert client.post("/admin/campaigns/new", data={"status": "open", "overlap": "2", "id": "7"}).status_code == 303
    wrong = client.post("/admin/campaigns/new", data={"overlap": "99", "name": "Kept"})
    assert wrong.status_code == 422 and "from 1 to 20" in wrong.text and 'value="Kept"' in wrong.text
    client.post("/admin/campaigns/new/instructions", data={"instructions": "Do well."})
    client.post("/admin/campaigns/new/prompts", data={"prompts": "one\n\ntwo\r\none", "split": "train"})
    db.expire_all()
    campaign = db.scalars(select(Campaign).where(Campaign.slug == "new")).one()
    assert (campaign.status, campaign.overlap, campaign.name) == ("open", 2, "New")
    assert campaigns.prompt_counts(db, campaign) == {"train": 2, "held_out": 0}
    assert len(instructions_versions(db, campaign)) == 2


def test_a_refused_campaign_leaves_nothing(client: TestClient, sign_in: SignIn, cast: Cast, db: Session) -> None:
    sign_in(cast.ada)
    form = {"slug": "half", "name": "Half", "mode": "helpful", "instructions": "  "}
    assert client.post("/admin/campaigns", data=form).status_code == 422
    assert db.scalar(select(Campaign).where(Campaign.slug == "half")) is None


def test_jobs_are_asked_for_from_the_import_folder_alone(
    client: TestClient,
    sign_in: SignIn,
    cast: Cast,
    db: Session,
    settings: Settings,
    place: dict[str, Any],
    sent_tasks: list[tuple[str, dict[str, int]]],
) -> None:
    sign_in(cast.ada)
    folder = jobs_routes.import_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.jsonl").write_text("{}")
    (folder.parent / "outside.jsonl").write_text("{}")
    for name in ("../outside.jsonl", "/etc/passwd", "..", "", "none.jsonl", "a\0b"):
        refused = client.post("/admin/jobs/import", data={"file": name, "campaign": "chat"})
        assert refused.status_code == 422, name
    assert "a.jsonl" in client.get("/admin/jobs").text
    made = client.post("/admin/jobs/import", data={"file": "a.jsonl", "campaign": "chat"})
    job = jobs.newest_jobs(db)[0]
    assert made.headers["location"] == f"/admin/jobs/{job.id}"
    assert sent_tasks == [("run_job", {"job_id": job.id})]
    assert client.post("/admin/jobs/export", data={"test_share": "5", "format": "trl"}).status_code == 303
    newest = jobs.newest_jobs(db)[0]
    assert (newest.settings["test_share"], newest.settings["format"]) == (0.05, "trl")
    for wrong in (
        {"format": "x"},
        {"test_share": "all"},
        {"test_share": "100"},
        {"since": "soon"},
        {"campaign": "none"},
    ):
        assert client.post("/admin/jobs/export", data=wrong).status_code in (404, 422), wrong


def test_only_files_of_the_manifest_are_given_out(
    client: TestClient, sign_in: SignIn, cast: Cast, place: dict[str, Any], db: Session
) -> None:
    sign_in(cast.ada)
    base = f"/admin/jobs/{place['job_id']}/files"
    found = client.get(f"{base}/comparisons.jsonl")
    assert found.status_code == 200 and found.text == "{}"
    assert found.headers["content-disposition"].startswith("attachment")
    assert client.get(f"{base}/manifest.json").status_code == 200
    for name in ("secret", "..%2F..%2Fsecret", "%2e%2e%2fmanifest.json", "comparisons.jsonl%00"):
        assert client.get(f"{base}/{name}").status_code == 404, name
    downloads = db.scalars(select(AuditEntry).where(AuditEntry.action == "export.download")).all()
    assert len(downloads) == 2
