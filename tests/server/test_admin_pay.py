"""The pages of pay and notices: what the forms do, what they refuse, and the file of a payroll."""

from __future__ import annotations

import csv

import pytest
from sqlalchemy.orm import Session

from server.models import AuditEntry, LedgerEntry, Notice, Payroll
from server.services.pay import appeals
from server.services.working import work_time
from tests import factories

HTML = {"Accept": "text/html"}
KEY = "key-of-the-page"


@pytest.fixture
def ada(cast, sign_in):
    sign_in(cast.ada)
    return cast.ada


def statuses(db: Session) -> list[str]:
    db.expire_all()
    return [each.status for each in db.query(LedgerEntry).order_by(LedgerEntry.id)]


def test_ticked_entries_are_approved_and_rejected(client, db: Session, cast, ada) -> None:
    made = [factories.entry(db, cast.alice) for _ in range(3)]
    db.commit()
    ticked = {"entries": [str(made[0].id), str(made[1].id)], "status": "pending"}
    answer = client.post("/admin/pay/entries", data=ticked | {"decision": "approve"})
    assert answer.status_code == 303
    assert "2 approved" in client.get(answer.headers["location"]).text
    assert statuses(db) == ["approved", "approved", "pending"]
    refused = client.post("/admin/pay/entries", data=ticked | {"decision": "reject", "reason": " "}, headers=HTML)
    assert (refused.status_code, "The reason has" in refused.text) == (422, True)
    for nothing in (
        {"decision": "approve"},
        {"decision": "approve", "entries": ["x", "-1", str(2**70)]},
        {"entries": "1"},
    ):
        assert client.post("/admin/pay/entries", data=nothing).status_code == 422
    client.post("/admin/pay/entries", data=ticked | {"decision": "reject", "reason": "Nobody was there."})
    assert statuses(db) == ["rejected", "rejected", "pending"]


def test_all_of_the_filters_up_to_what_was_shown(client, db: Session, cast, ada) -> None:
    campaign = factories.campaign(db, slug="chat")
    shown = factories.entry(db, cast.alice, campaign_id=campaign.id)
    others = factories.entry(db, cast.bob), factories.entry(db, cast.bob, campaign_id=campaign.id)
    db.commit()
    page = client.get(f"/admin/pay?campaign=chat&by={cast.alice.email}").text
    assert f'name="newest_id" value="{shown.id}"' in page
    assert f'value="{others[1].id}"' not in page
    form = {"scope": "all", "decision": "approve", "campaign": "chat", "newest_id": str(shown.id)}
    client.post("/admin/pay/entries", data=form)
    assert statuses(db) == ["approved", "pending", "pending"]
    client.post("/admin/pay/entries", data=form | {"newest_id": str(others[1].id), "by": str(cast.bob.id)})
    assert statuses(db) == ["approved", "pending", "approved"]


@pytest.mark.parametrize("query", ["status=none", "kind=none", "by=nobody@example.org", "by=1,2", "campaign=none"])
def test_filters_that_name_nothing(client, ada, query: str) -> None:
    assert client.get(f"/admin/pay?{query}", headers=HTML).status_code in (404, 422)


def test_bonuses_keep_what_was_typed_when_refused(client, db: Session, cast, ada) -> None:
    form = {"people": f"{cast.alice.email}\n{cast.bob.id}", "kind": "bonus", "amount": "2.505", "currency": "USD",
            "reason": "Well <b>done</b>", "idempotency_key": KEY}  # fmt: skip
    db.commit()
    refused = client.post("/admin/pay/added", data=form, headers=HTML)
    assert refused.status_code == 422
    assert 'value="2.505"' in refused.text
    assert "Well &lt;b&gt;done&lt;/b&gt;" in refused.text
    assert "whole coins of USD" in refused.text
    unknown = client.post("/admin/pay/added", data=form | {"people": "zoe@example.org"}, headers=HTML)
    assert (unknown.status_code, "zoe@example.org" in unknown.text) == (422, True)
    for _ in range(2):  # a double click
        assert client.post("/admin/pay/added", data=form | {"amount": "2.50"}).status_code == 303
    assert statuses(db) == ["approved"] * 2


def test_an_appeal_is_answered_on_the_page(client, db: Session, cast, ada) -> None:
    session = factories.entry(db, cast.alice, status="rejected")
    appeal = appeals.appeal(db, cast.alice, session.id, "I <i>was</i> there.")
    db.commit()
    page = client.get("/admin/pay").text
    assert "I &lt;i&gt;was&lt;/i&gt; there." in page
    address = f"/admin/pay/appeals/{appeal.id}"
    refused = client.post(address, data={"outcome": "granted", "answer": ""}, headers=HTML)
    assert (refused.status_code, "The answer has 1 to" in refused.text) == (422, True)
    assert client.post(address, data={"outcome": "granted", "answer": "You were."}).status_code == 303
    assert statuses(db) == ["approved"]
    assert client.post(address, data={"outcome": "upheld", "answer": "No."}).status_code == 409
    assert "I &lt;i&gt;was" not in client.get("/admin/pay").text


def test_a_payroll_is_made_once_and_its_file_fetched_twice(client, db: Session, cast, ada) -> None:
    for amount in ("2.00", "0.01"):
        factories.entry(db, cast.alice, amount, "approved")
    db.commit()
    assert "2.01 in 2 entries of 1 person" in client.get("/admin/pay").text
    form = {"currency": "USD", "since": "", "until": "", "idempotency_key": KEY}
    for _ in range(2):
        assert client.post("/admin/pay/payrolls", data=form).status_code == 303
    payroll = db.query(Payroll).one()
    files = [client.get(f"/admin/pay/payrolls/{payroll.id}/file") for _ in range(2)]
    assert files[0].content == files[1].content
    assert files[0].headers["content-disposition"] == f'attachment; filename="whetstone-payroll-{payroll.id}-USD.csv"'
    assert int(files[0].headers["content-length"]) == len(files[0].content)
    assert [row["amount"] for row in csv.DictReader(files[0].text.splitlines())] == ["2.00", "0.01"]
    assert db.query(AuditEntry).filter_by(action="pay.download", object_id=payroll.id).count() == 2
    again = client.post("/admin/pay/payrolls", data=form | {"idempotency_key": KEY + "2"}, headers=HTML)
    assert (again.status_code, "waits for payment" in again.text, db.query(Payroll).count()) == (409, True, 1)
    for bad in ({"since": "soon"}, {"since": "2026-06-02", "until": "2026-06-01"}):
        assert client.post("/admin/pay/payrolls", data=form | bad | {"idempotency_key": KEY + "3"}).status_code == 422


def test_notices_go_to_who_is_named_or_to_a_whole_campaign(client, db: Session, cast, ada) -> None:
    campaign = factories.campaign(db, slug="chat")
    for person in (cast.alice, cast.bob):
        work_time.seen(db, person, campaign)
    db.commit()
    form = {"text": "New <b>rules</b>", "campaign": "chat", "people": "", "idempotency_key": KEY}
    for got in (2, 0):
        assert client.post("/admin/notices", data=form).headers["location"] == f"/admin/notices?got={got}"
    named = form | {"people": str(cast.mallory.id), "idempotency_key": KEY + "2"}
    assert client.post("/admin/notices", data=named).headers["location"] == "/admin/notices?got=1"
    assert {each.person_id for each in db.query(Notice)} == {cast.alice.id, cast.bob.id, cast.mallory.id}
    assert "New &lt;b&gt;rules" in client.get("/admin/notices").text
    for bad in ({"campaign": ""}, {"text": ""}, {"people": "nobody@example.org"}, {"idempotency_key": ""}):
        refused = client.post("/admin/notices", data=form | bad, headers=HTML)
        assert refused.status_code == 422
        assert "Notice" in refused.text
