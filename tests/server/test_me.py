"""A person's own page: counted by hand, of their own rows alone, and what its forms do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from server.errors import NotFound
from server.models import Appeal, Campaign, CheckResult, Notice, Person, Prompt, Skip, WorkSession
from server.services import me, notices
from server.services.pay import appeals, ledger
from server.services.ways import remarks
from tests import factories

HTML = {"Accept": "text/html"}
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


def at(days_ago: int) -> datetime:
    return NOON - timedelta(days=days_ago)


def a_turn(db: Session, campaign: Campaign):
    return factories.item(db, campaign)


def session(db: Session, person: Person, campaign: Campaign, seconds: float, **more) -> WorkSession:
    row = WorkSession(person_id=person.id, campaign_id=campaign.id, active_seconds=seconds, **more)
    db.add(row)
    db.flush()
    return row


def test_days_count_each_kind_of_ones_own(db: Session, cast) -> None:
    one, other = factories.campaign(db, name="One"), factories.campaign(db, name="Other")
    for days_ago, person in (
        (0, cast.alice),
        (0, cast.alice),
        (1, cast.alice),
        (29, cast.alice),
        (30, cast.alice),
        (0, cast.bob),
    ):
        factories.comparison(db, a_turn(db, one), person, created_at=at(days_ago))
    factories.ranking(db, a_turn(db, other), cast.alice, (1, 2), created_at=at(1))
    factories.demonstration(db, a_turn(db, other), cast.alice, created_at=at(1))
    factories.edit(db, a_turn(db, other), cast.alice, "Better.", created_at=at(1))
    db.add(Prompt(campaign_id=one.id, text="Why?", author_id=cast.alice.id, written_in_id=other.id, created_at=at(1)))
    db.add(
        Skip(
            campaign_id=other.id,
            turn_id=a_turn(db, other).id,
            person_id=cast.alice.id,
            reason="other",
            created_at=at(1),
        )
    )
    db.flush()
    nothing = dict.fromkeys(me.KINDS, 0)
    found = [(day.on, day.campaign, day.counts) for day in me.days(db, cast.alice)]
    midnight = NOON.replace(hour=0)
    everything = {"ranking": 1, "demonstration": 1, "edit": 1, "prompt": 1, "skip": 1}
    assert found == [
        (midnight, "One", nothing | {"comparison": 2}),
        (midnight - timedelta(days=1), "One", nothing | {"comparison": 1}),
        (midnight - timedelta(days=1), "Other", nothing | everything),
        (midnight - timedelta(days=29), "One", nothing | {"comparison": 1}),
    ]
    paces = {pace.campaign.name: pace for pace in me.paces(db, cast.alice, me.days(db, cast.alice))}
    assert (paces["One"].answers, paces["Other"].answers) == (4, 4)  # a skip is no answer


def test_pace_and_rate_as_reckoned_by_hand(db: Session, cast) -> None:
    campaign = factories.campaign(db, pay_per_hour=Decimal(12), name="Paid")
    unpaid = factories.campaign(db, name="Unpaid")
    ended = {"ended_at": at(2), "ended_as": "idle"}
    for status, days_ago in (("paid", 40), ("approved", 2), ("rejected", 2)):
        before = session(db, cast.alice, campaign, 1800, started_at=at(days_ago), **ended)
        more = {"payroll_id": factories.payroll(db).id} if status == "paid" else {}
        factories.entry(db, cast.alice, "6.00", status, campaign_id=campaign.id, work_session_id=before.id, **more)
    session(db, cast.alice, campaign, 900)  # under way: 15 min at 12 are 3.00
    factories.entry(db, cast.alice, "1.50", "approved", kind="bonus", reason="Thanks", campaign_id=campaign.id)
    factories.entry(
        db, cast.alice, "99.00", "approved", kind="bonus", reason="In euros", campaign_id=campaign.id, currency="EUR"
    )
    session(db, cast.bob, campaign, 5000)
    session(db, cast.alice, unpaid, 59)
    for _ in range(5):
        factories.comparison(db, a_turn(db, campaign), cast.alice)
    paid, other = me.paces(db, cast.alice, me.days(db, cast.alice))
    # 30 min approved, 30 min rejected and 15 min under way; the session of 40 days ago is not among them
    assert (paid.seconds, paid.today_seconds, paid.under_way) == (4500, 900, Decimal(3))
    assert paid.earned == Decimal("10.50")  # 6.00 + 3.00 + 1.50
    assert paid.pay_an_hour == Decimal("8.40")  # 10.50 in 75 min
    assert paid.answers_an_hour == 4.0
    assert (other.answers_an_hour, other.pay_an_hour, other.under_way) == (None, None, 0)


def test_checks_only_where_the_campaign_shows_them(db: Session, cast) -> None:
    shown, hidden = factories.campaign(db, name="Shown", shares_checks=True), factories.campaign(db)
    for campaign, kind, passed in (
        (shown, "gold", True),
        (shown, "gold", False),
        (shown, "attention", True),
        (hidden, "gold", True),
    ):
        for person in (cast.alice, cast.bob):
            db.add(CheckResult(campaign_id=campaign.id, turn_id=a_turn(db, campaign).id, person_id=person.id, kind=kind,
                               passed=passed, expected={"picked": 0}, answered={}))  # fmt: skip
    db.flush()
    (found,) = me.checks(db, cast.alice)
    assert (found.campaign, found.gold.part, found.gold.whole, found.attention.part, found.attention.whole) == (
        "Shown", 1, 2, 1, 1
    )  # fmt: skip


def test_a_leaderboard_is_for_those_on_it_where_there_is_one(db: Session, cast) -> None:
    campaign = factories.campaign(db, slug="board", leaderboard=True)
    robot = factories.person(db, "Robot", simulated=True)
    for person, number in ((cast.alice, 2), (cast.bob, 3), (cast.mallory, 2), (robot, 9)):
        for _ in range(number):
            factories.comparison(db, a_turn(db, campaign), person)
    factories.edit(db, a_turn(db, campaign), cast.bob, "Better.")
    factories.comparison(db, a_turn(db, campaign), cast.alice, created_at=at(40))
    places = [(each.place, each.name, each.answers, each.own) for each in me.leaderboard(db, cast.alice, "board")[1]]
    assert places == [(1, "Bob", 4, False), (2, "Alice", 2, True), (2, "Mallory", 2, False)]
    with pytest.raises(NotFound):
        me.leaderboard(db, factories.person(db, "Zoe"), "board")
    campaign.leaderboard = False
    db.flush()
    with pytest.raises(NotFound):
        me.leaderboard(db, cast.alice, "board")


def test_who_is_far_down_still_finds_themselves(db: Session, cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(me, "PLACES", 1)
    campaign = factories.campaign(db, slug="board", leaderboard=True)
    for person, number in ((cast.bob, 3), (cast.mallory, 2), (cast.alice, 1)):
        for _ in range(number):
            factories.comparison(db, a_turn(db, campaign), person)
    assert [(each.place, each.name) for each in me.leaderboard(db, cast.alice, "board")[1]] == [
        (1, "Bob"),
        (3, "Alice"),
    ]


def test_the_page_shows_ones_own_and_nothing_of_others(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, name="Chat", slug="chat", pay_per_hour=Decimal(12), leaderboard=True)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    factories.comparison(db, turn, cast.alice)
    factories.entry(db, cast.alice, "2.00", campaign_id=campaign.id)
    rejected = factories.entry(db, cast.alice, "3.00", "rejected", campaign_id=campaign.id)
    factories.entry(db, cast.bob, "77.00", "approved", campaign_id=campaign.id)
    closed = remarks.report(db, cast.alice, turn.id, "nonsense", "Not <i>readable</i>")
    closed.closed_at = NOON
    remarks.report(db, cast.alice, turn.id, "harmful")
    notices.send(db, cast.ada, [cast.alice.id], "**Hello** <script>alert(1)</script>")
    notices.send(db, cast.ada, [cast.bob.id], "For Bob")
    db.commit()
    sign_in(cast.alice)
    page = client.get("/me").text
    for expected in ("$2.00", "$3.00", "Nobody was there.", "Being checked", "Object to this", "Waits to be looked at",
                     "Dealt with on", "Not &lt;i&gt;readable", "<strong>Hello</strong>", "/me/leaderboard/chat",
                     "1 unread notice", f"/me/entries/{rejected.id}/appeal"):  # fmt: skip
        assert expected in page, expected
    for other in ("77.00", "For Bob", "<script>alert"):
        assert other not in page
    assert "Alice (you)" in client.get("/me/leaderboard/chat").text
    sign_in(cast.mallory)
    assert "Nothing yet" in client.get("/me").text
    assert client.get("/me/leaderboard/chat", headers=HTML).status_code == 404


def test_objecting_and_reading_through_the_page(client, db: Session, cast, sign_in) -> None:
    entry = factories.entry(db, cast.alice, status="rejected")
    notices.send(db, cast.ada, [cast.alice.id], "One")
    notices.send(db, cast.ada, [cast.alice.id, cast.bob.id], "Two")
    db.commit()
    number = db.query(Notice).filter_by(person_id=cast.alice.id).order_by(Notice.id).first().id
    sign_in(cast.mallory)
    assert client.post(f"/me/entries/{entry.id}/appeal", data={"text": "Mine"}).status_code == 404
    assert client.post(f"/me/notices/{number}/read").status_code == 404
    sign_in(cast.alice)
    refused = client.post(f"/me/entries/{entry.id}/appeal", data={"text": " "}, headers=HTML)
    assert (refused.status_code, "Please say why you object" in refused.text) == (422, True)
    long = "x" * (appeals.MAX_CHARS + 1)
    refused = client.post(f"/me/entries/{entry.id}/appeal", data={"text": long}, headers=HTML)
    assert (refused.status_code, long in refused.text) == (422, True)
    assert client.post(f"/me/entries/{entry.id}/appeal", data={"text": "I was there."}).status_code == 303
    assert db.query(Appeal).one().text == "I was there."
    page = client.get("/me").text
    assert ("waits for an answer" in page, "Object to this" in page, "2 unread notices" in page) == (True, False, True)
    ledger.answer_appeal(db, cast.ada, db.query(Appeal).one().id, "granted", "You were.")
    db.commit()
    page = client.get("/me").text
    assert ("The answer: You were." in page, "3 unread notices" in page) == (True, True)
    assert client.post(f"/me/notices/{number}/read").headers["location"] == "/me#notices"
    assert "2 unread notices" in client.get("/settings").text  # on every page
    client.post("/me/notices/read")
    assert "unread notice" not in client.get("/me").text
    db.refresh(cast.bob)
    assert cast.bob.unread_notices == 1


def test_in_another_language(client, db: Session, cast, sign_in) -> None:
    cast.alice.language = "ar"
    factories.entry(db, cast.alice, "2.00")
    db.commit()
    sign_in(cast.alice)
    page = client.get("/me")
    assert (page.status_code, 'dir="rtl"' in page.text) == (200, True)
