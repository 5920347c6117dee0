"""Paid time: what counts, that no second and no session is paid twice, and that what was promised is paid."""

from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import event, func, update
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput
from server.models import Campaign, Comparison, LedgerEntry, Membership, Panel, PanelSubmission, Person, WorkSession
from server.services.campaigns import campaigns
from server.services.working import work_time
from tests import factories

TWELVE = Decimal(12)


def pass_by(db: Session, seconds: float) -> None:
    """As if this much time had gone by; within a test `now()` stands still."""
    gone = timedelta(seconds=seconds)
    db.execute(update(WorkSession).where(WorkSession.ended_at.is_(None)).values(seen_at=WorkSession.seen_at - gone))


def work(db: Session, person: Person, campaign: Campaign, *gaps: float) -> WorkSession:
    """A sign of work, and one more after each gap."""
    work_time.seen(db, person, campaign)
    for gap in gaps:
        pass_by(db, gap)
        work_time.seen(db, person, campaign)
    return session_of(db, person, campaign)


def session_of(db: Session, person: Person, campaign: Campaign) -> WorkSession:
    db.expire_all()
    return db.query(WorkSession).filter_by(person_id=person.id, campaign_id=campaign.id, ended_at=None).one()


def entries(db: Session) -> list[tuple[Decimal | None, Decimal | None, Decimal, str]]:
    rows = db.query(LedgerEntry).order_by(LedgerEntry.id)
    return [(row.minutes, row.rate_per_hour, row.amount, row.currency) for row in rows]


def test_time_between_signs_counts_up_to_two_minutes(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    assert work(db, cast.alice, campaign).active_seconds == 0
    # 30 and 119 whole, 121 and an hour as two minutes each
    assert work(db, cast.alice, campaign, 30, 119, 121, 3600).active_seconds == 30 + 119 + 120 + 120
    assert db.query(WorkSession).count() == 1


def test_a_clock_that_goes_back_takes_nothing_away(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    session = work(db, cast.alice, campaign, 60)
    ahead = session.seen_at + timedelta(seconds=10)
    session.seen_at = ahead
    db.flush()
    work_time.seen(db, cast.alice, campaign)
    session = session_of(db, cast.alice, campaign)
    assert (session.active_seconds, session.seen_at) == (60, ahead)


def test_two_campaigns_side_by_side_are_one_persons_time(db: Session, cast) -> None:
    one, other = factories.campaign(db), factories.campaign(db)
    work_time.seen(db, cast.alice, one)
    work_time.seen(db, cast.alice, other)
    work_time.seen(db, cast.bob, one)
    for _ in range(10):
        for campaign in (one, other):
            pass_by(db, 15)
            work_time.seen(db, cast.alice, campaign)
    both = [session_of(db, cast.alice, campaign).active_seconds for campaign in (one, other)]
    assert both == [150, 150]
    pass_by(db, 40)
    work_time.seen(db, cast.bob, one)
    assert session_of(db, cast.bob, one).active_seconds == 120  # his own, whatever Alice did


def test_the_beat_prolongs_and_begins_nothing(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    work_time.still_here(db, cast.alice, campaign)
    assert db.query(WorkSession).count() == 0
    work(db, cast.alice, campaign)
    pass_by(db, 30)
    work_time.still_here(db, cast.alice, campaign)
    assert session_of(db, cast.alice, campaign).active_seconds == 30
    campaign.status = "paused"
    pass_by(db, 30)
    work_time.still_here(db, cast.alice, campaign)
    assert session_of(db, cast.alice, campaign).active_seconds == 30


@pytest.mark.parametrize(("ended_as", "minutes", "amount"), [
    # 100 s at 12 an hour: 1.67 min, 0.334. The end itself is a sign of work 20 s later only where the person finished.
    ("finished", "2.00", "0.40"), ("returned", "1.67", "0.33"), ("timed_out", "1.67", "0.33"), ("idle", "1.67", "0.33"),
])  # fmt: skip
def test_a_session_becomes_one_line_however_it_ended(
    db: Session, cast, ended_as: str, minutes: str, amount: str
) -> None:
    campaign = factories.campaign(db, pay_per_hour=TWELVE, currency="EUR")
    work(db, cast.alice, campaign, 100)
    pass_by(db, 20)
    ended = work_time.end(db, cast.alice, campaign, ended_as)
    assert ended is not None
    assert (ended.ended_as, ended.ended_at is not None) == (ended_as, True)
    assert work_time.end(db, cast.alice, campaign, ended_as) is None
    assert entries(db) == [(Decimal(minutes), TWELVE, Decimal(amount), "EUR")]
    entry = db.query(LedgerEntry).one()
    assert (entry.kind, entry.status, entry.work_session_id) == ("time", "pending", ended.id)


@pytest.mark.parametrize(("seconds", "rate", "currency", "minutes", "amount"), [
    (90, "15", "USD", "1.50", "0.38"),  # 0.375: half a cent is a cent
    (3600, "13.35", "USD", "60.00", "13.35"),
    (4321, "9.99", "USD", "72.02", "11.99"),  # 72.0166… min; 72.02 x 9.99 / 60 = 11.99133
    (270, "1000", "JPY", "4.50", "75.00"),
    (90, "1100", "JPY", "1.50", "28.00"),  # 27.5: yen have no parts
])  # fmt: skip
def test_amounts_as_reckoned_by_hand(
    db: Session, cast, seconds: float, rate: str, currency: str, minutes: str, amount: str
) -> None:
    campaign = factories.campaign(db, pay_per_hour=Decimal(rate), currency=currency)
    work(db, cast.alice, campaign).active_seconds = seconds
    db.flush()
    work_time.end(db, cast.alice, campaign, "idle")
    assert entries(db) == [(Decimal(minutes), Decimal(rate), Decimal(amount), currency)]


def test_nothing_is_entered_where_nothing_is_owed(db: Session, cast) -> None:
    unpaid, paid = factories.campaign(db), factories.campaign(db, pay_per_hour=TWELVE)
    robot = factories.person(db, "Robot", simulated=True)
    work(db, robot, paid, 100)
    work_time.end(db, robot, paid, "finished")
    work(db, cast.alice, unpaid, 100)
    work(db, cast.alice, paid)
    for campaign in (unpaid, paid):
        assert work_time.end(db, cast.alice, campaign, "finished") is not None
    assert entries(db) == []


def test_a_session_names_the_visit_it_was_worked_for(db: Session, cast) -> None:
    campaign, other = factories.campaign(db, pay_per_hour=TWELVE), factories.campaign(db)
    visits = []
    for of, hours in ((campaign, -2), (campaign, -1), (campaign, 1), (other, -1)):
        panel = Panel(slug=f"study-{of.id}-{hours + 3}", name="Study", kind="generic", campaign_id=of.id, settings={})
        db.add(panel)
        db.flush()
        visit = PanelSubmission(
            panel_id=panel.id, person_id=cast.alice.id, participant="p", external_id="e",
            started_at=func.now() + timedelta(hours=hours),
        )  # fmt: skip
        db.add(visit)
        db.flush()
        visits.append(visit.id)
    for person, submission in ((cast.alice, visits[1]), (cast.bob, None)):
        work(db, person, campaign)
        ended = work_time.end(db, person, campaign, "idle")
        assert ended is not None
        assert ended.submission_id == submission


def test_what_was_worked_before_a_new_rate_is_paid_at_the_old_one(db: Session, cast) -> None:
    campaign = factories.campaign(db, pay_per_hour=TWELVE)
    work(db, cast.alice, campaign, *[100] * 36)
    campaigns.update_campaign(db, campaign, None, name="Another name")
    assert entries(db) == []
    campaigns.update_campaign(db, campaign, None, pay_per_hour="6")
    work(db, cast.alice, campaign, *[100] * 36)
    campaigns.update_campaign(db, campaign, None, currency="eur")
    assert entries(db) == [(60, 12, 12, "USD"), (60, 6, 6, "USD")]
    with pytest.raises(BadInput, match="ISO 4217"):
        campaigns.update_campaign(db, campaign, None, currency="XYZ")


def test_today_is_what_is_entered_and_what_is_under_way(db: Session, cast) -> None:
    campaign = factories.campaign(db, pay_per_hour=TWELVE)
    for seconds in (600, 300):
        work(db, cast.alice, campaign).active_seconds = seconds
        db.flush()
        if seconds == 600:
            work_time.end(db, cast.alice, campaign, "idle")
    yesterday = work(db, cast.bob, campaign)
    yesterday.active_seconds, yesterday.started_at = 900, func.now() - timedelta(days=1)
    db.flush()
    assert work_time.today(db, cast.alice, campaign) == work_time.Today(900, Decimal(3))
    assert work_time.line(db, cast.alice, campaign) == "Today: 15 min of paid time, $3.00 at $12.00 an hour."
    assert work_time.today(db, cast.bob, campaign).seconds == 0
    assert work_time.line(db, cast.alice, factories.campaign(db)) == ""


def test_a_sign_of_work_is_one_statement(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    said: list[str] = []
    event.listen(db.get_bind(), "before_cursor_execute", lambda *given: said.append(given[2]))
    for _ in range(2):
        work_time.seen(db, cast.alice, campaign, answers=1)
    assert len(said) == 2
    assert session_of(db, cast.alice, campaign).answers == 2


def test_many_requests_and_many_ends_at_once(committed: str) -> None:
    sessions = session_factory(committed)
    with sessions.begin() as db:
        campaign, person = factories.campaign(db, pay_per_hour=TWELVE), factories.person(db)
        work(db, person, campaign).active_seconds = 3600
    together = threading.Barrier(8)
    found: list[WorkSession | None] = []

    def at_once(number: int) -> None:
        for _ in range(5):
            together.wait()
            with sessions.begin() as db:
                if number < 4:
                    work_time.still_here(db, person, campaign)
                else:
                    found.append(work_time.end(db, person, campaign, "idle"))

    threads = [threading.Thread(target=at_once, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sessions() as db:
        assert [each is not None for each in found].count(True) == 1
        entry = db.query(LedgerEntry).one()
        session = db.get_one(WorkSession, entry.work_session_id)
        assert entry.minutes == work_time.minutes_of(session.active_seconds)
        assert session.active_seconds < 3600 + 60


def test_an_end_that_is_broken_off_is_made_up_for(committed: str) -> None:
    sessions = session_factory(committed)
    with sessions.begin() as db:
        campaign, person = factories.campaign(db, pay_per_hour=TWELVE), factories.person(db)
        work(db, person, campaign).active_seconds = 3600
    with pytest.raises(RuntimeError), sessions.begin() as db:
        work_time.end(db, person, campaign, "finished")
        raise RuntimeError("the process is killed before its commit")
    with sessions.begin() as db:
        assert db.query(LedgerEntry).count() == 0
        assert work_time.end(db, person, campaign, "idle") is not None
    with sessions() as db:
        assert db.query(LedgerEntry).one().amount == TWELVE


def test_signs_of_work_through_the_pages(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="talk", pay_per_hour=TWELVE)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    db.commit()
    sign_in(cast.alice)
    assert client.post("/api/campaigns/talk/alive").json()["line"].startswith("Today: 0 min")
    assert db.query(WorkSession).count() == 0  # a beat alone is no work
    assert "$12.00 an hour" in client.get("/").text
    page = client.get("/chat/talk").text
    assert "Today: 0 min of paid time, $0.00 at $12.00 an hour." in page
    for act in (
        lambda: client.post("/api/campaigns/talk/alive"),
        lambda: client.put(f"/api/drafts/message:{campaign.id}", json={"text": "Hm"}),
        lambda: client.get("/api/campaigns/talk/conversation"),
        lambda: client.get("/chat/talk/conversation"),
        lambda: client.post(f"/api/turns/{turn.id}/report", json={"reason": "other"}),
        lambda: client.post(
            f"/api/turns/{turn.id}/comparison",
            json={"scale_position": 1, "milliseconds": 5, "idempotency_key": "key-of-the-page"},
        ),
        lambda: client.post("/api/campaigns/talk/undo", json={}),
        lambda: client.post(f"/api/turns/{turn.id}/skip", json={}),
        lambda: client.post("/api/campaigns/talk/messages", json={"text": "Hi", "idempotency_key": "another-key"}),
    ):
        before = session_of(db, cast.alice, campaign).active_seconds
        pass_by(db, 60)
        db.commit()
        assert act().status_code < 300
        assert session_of(db, cast.alice, campaign).active_seconds == before + 60
    assert session_of(db, cast.alice, campaign).answers == 1
    assert (
        client.post("/api/campaigns/talk/alive").json()["line"] == "Today: 9 min of paid time, $1.80 at $12.00 an hour."
    )


@pytest.mark.parametrize("status", ["left", "excluded", "screened_out", "active"])
def test_who_is_out_of_a_campaign_is_at_work_no_longer(client, db: Session, cast, sign_in, status: str) -> None:
    campaign = factories.campaign(db, slug="talk", pay_per_hour=TWELVE)
    work(db, cast.alice, campaign)
    membership = Membership(person_id=cast.alice.id, campaign_id=campaign.id, status=status, changed_at=func.now())
    db.add(membership)
    pass_by(db, 60)
    work_time.seen(db, cast.alice, campaign)  # in the transaction that shut the door
    assert session_of(db, cast.alice, campaign).active_seconds == 60
    membership.changed_at = func.now() - timedelta(seconds=1)
    pass_by(db, 60)
    work_time.still_here(db, cast.alice, campaign)
    work_time.seen(db, cast.alice, campaign)
    assert session_of(db, cast.alice, campaign).active_seconds == (120 if status == "active" else 60)
    work_time.end(db, cast.alice, campaign, "idle")
    db.commit()
    sign_in(cast.alice)
    assert client.get("/api/campaigns/talk/conversation").status_code == 200
    assert db.query(WorkSession).filter_by(ended_at=None).count() == (1 if status == "active" else 0)


def test_who_is_no_member_is_not_at_work(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="talk", access="members", pay_per_hour=TWELVE)
    db.commit()
    sign_in(cast.alice)
    client.get("/chat/talk")
    client.get("/api/campaigns/talk/conversation")
    client.put(f"/api/drafts/message:{campaign.id}", json={"text": "Hm"})
    client.post("/api/campaigns/talk/alive")
    assert db.query(WorkSession).count() == 0


def test_where_there_is_nothing_to_do_no_time_begins(client, db: Session, cast, sign_in) -> None:
    factories.campaign(db, slug="paused", status="paused", pay_per_hour=TWELVE)
    factories.campaign(db, slug="empty", way="pairs", pay_per_hour=TWELVE)
    db.commit()
    sign_in(cast.alice)
    for slug in ("paused", "empty"):
        assert client.get(f"/chat/{slug}").status_code == 200
    assert client.put("/api/drafts/message:999999", json={"text": "Hm"}).status_code == 404
    assert db.query(WorkSession).count() == 0


def test_the_time_goes_to_the_campaign_of_the_turn(client, db: Session, cast, sign_in) -> None:
    unpaid, paid = factories.campaign(db, slug="unpaid"), factories.campaign(db, slug="paid", pay_per_hour=TWELVE)
    turn = factories.turn(db, factories.conversation(db, unpaid, cast.alice))
    db.commit()
    sign_in(cast.alice)
    form = {"turn_id": turn.id, "idempotency_key": "key-of-a-choice", "scale_position": "1"}
    for path in ("comparison", "ranking", "demonstration", "edit"):
        assert client.post(f"/chat/paid/{path}", data=form).status_code == 404
    for path in ("skip", "report", "retry"):
        assert client.post(f"/chat/paid/turns/{turn.id}/{path}", data={"reason": "other"}).status_code == 404
    assert db.query(WorkSession).filter_by(campaign_id=paid.id).count() == 0
    assert client.post("/chat/unpaid/comparison", data=form).status_code == 303
    assert db.query(WorkSession).one().campaign_id == unpaid.id


def test_without_a_script_the_time_begins_when_the_item_was_lent(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="texts", way="pairs")
    turn = factories.item(db, campaign)
    turn.ready_at = turn.conversation.started_at = turn.created_at - timedelta(days=7)
    db.commit()
    sign_in(cast.alice)
    client.get("/chat/texts")
    form = {"turn_id": turn.id, "idempotency_key": "key-of-a-choice", "scale_position": "1", "milliseconds": "9" * 5000}
    assert client.post("/chat/texts/comparison", data=form).status_code == 303
    assert db.query(Comparison).one().milliseconds_to_decide < 60_000
