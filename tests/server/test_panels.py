"""People of a panel: one submission a link, the code at the end, and what goes to others when a submission is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.db import session_factory
from server.errors import Conflict
from server.models import (
    Campaign,
    Conversation,
    LedgerEntry,
    LoginSession,
    Membership,
    Panel,
    PanelSubmission,
    Person,
    WorkSession,
)
from server.services.chat import dialogue, queue
from server.services.door import door, members
from server.services.panels import panel_settings, panels
from server.services.ways import feedback
from server.services.working import leases, work_time
from tests import factories
from tests.conftest import Cast

SignIn = Callable[[Person | None], str]
HTML = {"Accept": "text/html"}
PID, OTHER_PID = "5f1c0a9b8e7d6c5b4a392817", "60aa0a9b8e7d6c5b4a392811"


def link(panel: Panel, pid: str = PID, session: str = "s1", study: str = "st1") -> str:
    return f"/panel/{panel.slug}?PROLIFIC_PID={pid}&STUDY_ID={study}&SESSION_ID={session}"


@pytest.fixture
def pairs(db: Session) -> Campaign:
    campaign = factories.campaign(db, slug="pairs", way="pairs", overlap=1, pay_per_hour=Decimal(12))
    for number in range(4):
        factories.item(db, campaign, f"Question {number}?")
    return campaign


@pytest.fixture
def panel(db: Session, pairs: Campaign) -> Panel:
    made = factories.panel(db, pairs, slug="first")
    db.commit()
    return made


def submissions(db: Session) -> list[PanelSubmission]:
    db.expire_all()
    return list(db.scalars(select(PanelSubmission).order_by(PanelSubmission.id)))


def answer(db: Session, person: Person, campaign: Campaign) -> None:
    turn = queue.offer(db, person, campaign, check=False)
    assert turn is not None
    feedback.store_comparison(db, person, turn.id, 1, 5000, f"key-of-{person.id}-{turn.id}")


def test_the_same_link_twice_is_one_submission_of_one_person(
    client: TestClient, db: Session, panel: Panel, sign_in: SignIn
) -> None:
    first = client.get(link(panel))
    assert (first.status_code, first.headers["location"]) == (303, "/chat/pairs")
    assert client.get("/chat/pairs").status_code == 200
    sign_in(None)  # another browser
    assert client.get(link(panel)).status_code == 303
    (only,) = submissions(db)
    person = db.get_one(Person, only.person_id)
    assert (only.participant, only.external_id, only.study, only.status) == (PID, "s1", "st1", "active")
    assert person.roles == ["crowdworker"] and person.email is None and PID not in person.name


def test_a_participant_is_the_same_person_in_every_study_at_prolific_and_in_no_other_panel(
    client: TestClient, db: Session, panel: Panel, pairs: Campaign
) -> None:
    second = factories.panel(db, pairs, slug="second")
    elsewhere = factories.panel(db, pairs, "generic", slug="elsewhere")
    client.get(link(panel))
    client.get(link(second, session="s2"))
    client.cookies.clear()
    client.get(f"/panel/{elsewhere.slug}?pid={PID}")
    client.cookies.clear()
    client.get(link(panel, OTHER_PID, "s3"))
    one, same, other, another = submissions(db)
    assert one.person_id == same.person_id
    assert len({one.person_id, other.person_id, another.person_id}) == 3


def test_two_visits_at_once_make_one_person(committed: str) -> None:
    with session_factory(committed).begin() as db:
        panel = factories.panel(db, factories.campaign(db))
    arrived = [panels.Arrival(PID, session, None, {}) for session in ("a", "a", "b", "b")]
    start = threading.Barrier(4)

    def visit(one: panels.Arrival) -> None:
        start.wait()
        with session_factory(committed).begin() as db:
            panels.enter(db, db.get_one(Panel, panel.id), one)

    threads = [threading.Thread(target=visit, args=(one,)) for one in arrived]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with session_factory(committed)() as db:
        assert db.query(Person).count() == 1
        assert sorted(one.external_id for one in db.query(PanelSubmission)) == ["a", "b"]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID=st&SESSION_ID=s",  # Prolific's preview without any participant
        f"PROLIFIC_PID={PID}&STUDY_ID=st",
        f"PROLIFIC_PID={PID}&STUDY_ID=st&SESSION_ID=",
        f"PROLIFIC_PID={'x' * 300}&STUDY_ID=st&SESSION_ID=s",
        f"PROLIFIC_PID={PID}%00&STUDY_ID=st&SESSION_ID=s",
    ],
)
def test_a_link_that_lacks_something_says_what(client: TestClient, db: Session, panel: Panel, query: str) -> None:
    refused = client.get(f"/panel/first?{query}", headers=HTML)
    assert refused.status_code == 422 and "open the study anew" in refused.text
    assert not submissions(db)


def test_links_of_another_study_of_another_person_and_of_a_closed_study_are_refused(
    client: TestClient, db: Session, pairs: Campaign, panel: Panel, cast: Cast
) -> None:
    only = factories.panel(db, pairs, form={"study": "st9"})
    db.commit()  # a refused request rolls back to here
    assert client.get(link(only)).status_code == 422
    assert client.get(link(only, study="st9")).status_code == 303
    client.cookies.clear()
    assert client.get(link(panel)).status_code == 303
    client.cookies.clear()
    assert client.get(link(panel, OTHER_PID)).status_code == 403  # the submission of somebody else
    panel_settings.close(db, cast.ada, panel, closed=True)
    db.commit()
    assert client.get(link(panel)).status_code == 303  # who is in may finish
    client.cookies.clear()
    assert client.get(link(panel, OTHER_PID, "s2")).status_code == 409
    assert client.get("/panel/none?PROLIFIC_PID=x").status_code == 404


def test_a_link_does_not_take_the_place_of_somebody_who_is_signed_in(
    client: TestClient, db: Session, panel: Panel, cast: Cast, sign_in: SignIn
) -> None:
    sign_in(cast.ada)
    shown = client.get(link(panel))
    assert shown.status_code == 200 and "You are signed in as Ada" in shown.text
    assert not submissions(db)
    assert client.get("/admin/panels").status_code == 200
    assert client.post(link(panel), headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post(link(panel)).headers["location"] == "/chat/pairs"
    assert client.get("/admin/panels").status_code == 403
    assert db.query(LoginSession).filter_by(person_id=cast.ada.id).count() == 0


def test_who_comes_by_a_study_is_a_member_of_a_campaign_for_members(client: TestClient, db: Session) -> None:
    campaign = factories.campaign(db, access="members")
    client.get(link(factories.panel(db, campaign)))
    (only,) = submissions(db)
    assert db.get_one(Membership, (only.person_id, campaign.id)).status == "active"


def test_visits_from_one_address_are_limited(
    client: TestClient, db: Session, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.people.limits.PANEL_VISITS_PER_ADDRESS", 2)
    statuses = []
    for number in range(4):
        client.cookies.clear()
        statuses.append(client.get(link(panel, f"made-up-{number}", f"s{number}")).status_code)
    assert statuses == [303, 303, 429, 429] and len(submissions(db)) == 2


def test_the_code_is_offered_at_the_target_and_not_before(
    client: TestClient, db: Session, panel: Panel, pairs: Campaign
) -> None:
    client.get(link(panel))
    (only,) = submissions(db)
    person = db.get_one(Person, only.person_id)
    csrf = {"X-CSRF-Token": db.query(LoginSession).filter_by(person_id=person.id).one().csrf_token}
    answer(db, person, pairs)
    page = client.get("/chat/pairs").text
    assert "1 of 2 answers for your study." in page and "Finish and go back" not in page
    early = client.post("/panel/first/done", headers=csrf)
    assert early.status_code == 409 and "1 of 2 answers are there so far" in early.text and "C0DONE" not in early.text
    answer(db, person, pairs)
    assert "Finish and go back" in client.get("/chat/pairs").text
    assert "C0DONE" not in client.get("/panel/first/done").text
    for _twice in range(2):
        assert client.post("/panel/first/done", headers=csrf).status_code == 303
    page = client.get("/panel/first/done").text
    assert 'href="https://app.prolific.com/submissions/complete?cc=C0DONE"' in page
    (only,) = submissions(db)
    assert (only.outcome, only.status) == ("success", "awaiting_review") and only.completed_at is not None
    # The session of work ended with it, and the link leads back to the code.
    assert db.query(WorkSession).filter_by(person_id=person.id).one().ended_as == "finished"
    assert client.get(link(panel)).headers["location"] == "/panel/first/done"


def test_when_the_work_runs_out_there_is_a_code_for_that(client: TestClient, db: Session, cast: Cast) -> None:
    campaign = factories.campaign(db, slug="small", way="pairs")
    factories.item(db, campaign, "One?")
    panel = factories.panel(db, campaign)
    person, _sub = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    with pytest.raises(Conflict):  # an item waits for them
        panels.finish(db, person, panel)
    answer(db, person, campaign)
    door.leave(db, person, campaign)
    with pytest.raises(Conflict):  # who leaves of themselves is not out of work
        panels.finish(db, person, panel)
    door.come_back(db, person, campaign)
    submission = panels.finish(db, person, panel)
    assert submission.outcome == "nothing_left"
    assert panels.way_back(panel, submission).link == "https://app.prolific.com/submissions/complete?cc=C0EMPTY"


def test_only_ones_own_submission_is_to_be_seen(
    client: TestClient, db: Session, panel: Panel, cast: Cast, sign_in: SignIn
) -> None:
    panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    sign_in(cast.mallory)
    assert client.get("/panel/first/done").status_code == 404
    assert client.post("/panel/first/done").status_code == 404
    assert panels.study(db, cast.mallory, db.get_one(Campaign, panel.campaign_id)) is None


def test_answers_of_an_earlier_submission_do_not_count(db: Session, panel: Panel, pairs: Campaign) -> None:
    person, earlier = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    answer(db, person, pairs)
    db.execute(update(PanelSubmission).values(started_at=PanelSubmission.started_at + timedelta(hours=1)))
    assert panels.study(db, person, pairs) == panels.Study("first", 2, 0, None)
    assert earlier.outcome is None


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [("screened_out", "screened_out", "C0OUT"), ("no_consent", "awaiting_review", None)],
)
def test_a_study_that_ends_early(
    db: Session, panel: Panel, pairs: Campaign, cast: Cast, outcome: str, status: str, code: str | None
) -> None:
    person, _sub = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    held = queue.offer(db, person, pairs, check=False)
    work_time.seen(db, person, pairs)
    assert held is not None
    assert panels.screen_out(db, cast.alice, pairs, outcome) is None  # no panel sent her
    submission = panels.screen_out(db, person, pairs, outcome)
    assert submission is not None and (submission.outcome, submission.status) == (outcome, status)
    back = panels.way_back(panel, submission)
    assert back.code == code and (back.link is None) == (code is None)
    assert queue.places_taken(db, pairs, held.id) == 0
    assert db.query(WorkSession).one().ended_at is not None
    again = panels.screen_out(db, person, pairs, "failed_check")
    assert again is not None and again.outcome == outcome  # the first stands


def test_a_door_that_closes_ends_the_submission(
    client: TestClient, db: Session, panel: Panel, pairs: Campaign, cast: Cast
) -> None:
    pairs.consent = "Do you agree?"
    client.get(link(panel))
    (only,) = submissions(db)
    person, csrf = db.get_one(Person, only.person_id), db.query(LoginSession).one().csrf_token
    client.headers["X-CSRF-Token"] = csrf
    client.post("/chat/pairs/consent", data={"answer": "no"})
    page = client.get("/chat/pairs/begin").text
    assert "0 of 2 answers for your study." in page and "Come back" in page  # they may think again
    assert client.post("/panel/first/done").status_code == 303
    assert submissions(db)[0].outcome == "no_consent"
    second = factories.panel(db, pairs, slug="second")
    panels.enter(db, second, panels.Arrival(PID, "s2", None, {}))
    door.come_back(db, person, pairs)
    door.screen_out(db, person, pairs, "test")
    page = client.get("/chat/pairs/begin").text
    assert "Your part in this study is over." in page and 'href="/panel/second/done"' in page
    assert submissions(db)[1].outcome == "screened_out"
    other, third = panels.enter(db, second, panels.Arrival(OTHER_PID, "s3", None, {}))
    members.exclude(db, cast.ada, pairs, other.id, "Random answers.")
    assert panels.finish(db, other, second).outcome == "failed_check" and third.completed_at is not None


def test_giving_up_frees_every_place_at_once_and_ends_the_session(
    db: Session, panel: Panel, pairs: Campaign, cast: Cast
) -> None:
    """One item with one place: nobody else can have it until the submission is returned, and then somebody can."""
    db.execute(update(Campaign).where(Campaign.id == pairs.id).values(quota=None))
    person, submission = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    held = [queue.offer(db, person, pairs, check=False)]
    work_time.seen(db, person, pairs)
    assert held[0] is not None
    taken = {held[0].id}
    others = [factories.person(db, f"Other{n}") for n in range(4)]
    for other in others[:3]:
        found = queue.offer(db, other, pairs, check=False)
        assert found is not None
        taken.add(found.id)
    assert len(taken) == 4 and queue.offer(db, others[3], pairs, check=False) is None
    panels._stand(db, submission, "returned", submission.started_at)
    freed = queue.offer(db, others[3], pairs, check=False)
    assert freed is not None and freed.id == held[0].id
    assert db.query(WorkSession).one().ended_as == "returned"
    with pytest.raises(Conflict, match="returned this submission"):
        panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))


def test_giving_up_closes_the_chat_and_signs_out_but_keeps_what_was_done(db: Session) -> None:
    campaign = factories.campaign(db, way="chat")
    panel = factories.panel(db, campaign)
    person, submission = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    turn = dialogue.send_message(db, person, campaign, "Hello", "key-0123456789")
    db.add(LoginSession(token_hash="h", person_id=person.id, csrf_token="c", expires_at=submission.started_at))
    db.flush()
    panels._stand(db, submission, "timed_out", submission.started_at)
    db.expire_all()
    talk = db.get_one(Conversation, turn.conversation_id)
    lease = leases.find(db, person, talk)
    assert talk.status == "finished" and lease is not None and lease.released_at is not None
    assert db.query(LoginSession).count() == 0
    assert db.query(LedgerEntry).count() == 0


def test_another_submission_that_still_works_keeps_what_its_person_holds(
    db: Session, panel: Panel, pairs: Campaign
) -> None:
    second = factories.panel(db, pairs)
    person, first = panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    panels.enter(db, second, panels.Arrival(PID, "s2", None, {}))
    held = queue.offer(db, person, pairs, check=False)
    assert held is not None
    panels._stand(db, first, "returned", first.started_at)
    assert queue.places_taken(db, pairs, held.id) == 1


GENERIC = {
    "participant_parameter": "pid",
    "submission_parameter": "visit",
    "captured": "wave, group",
    "redirect": "https://panel.example/back?id={participant}&c={code}&how={outcome}&g={group}",
}


def test_another_panel_gets_its_parameters_back_encoded(client: TestClient, db: Session, pairs: Campaign) -> None:
    panel = factories.panel(db, pairs, "generic", GENERIC, slug="other")
    client.get("/panel/other?pid=ab@c.d&visit=v1&wave=2&group=a%26b%3Dc%2F%2Fevil.example%20%C3%BC&ignored=1")
    (only,) = submissions(db)
    assert only.captured == {"wave": "2", "group": "a&b=c//evil.example ü"}
    person = db.get_one(Person, only.person_id)
    for _twice in range(2):
        answer(db, person, pairs)
    back = panels.way_back(panel, panels.finish(db, person, panel))
    assert back.link == (
        "https://panel.example/back?id=ab%40c.d&c=C0DONE&how=success&g=a%26b%3Dc%2F%2Fevil.example%20%C3%BC"
    )


def test_without_a_way_back_the_code_is_shown(client: TestClient, db: Session, pairs: Campaign) -> None:
    factories.panel(db, pairs, "generic", slug="plain")
    client.get("/panel/plain?pid=7")
    (only,) = submissions(db)
    assert only.external_id == "7"
    panels.screen_out(db, db.get_one(Person, only.person_id), pairs)
    page = client.get("/panel/plain/done").text
    assert "C0OUT" in page and "https://" not in page.partition("<main")[2].partition("</main>")[0]
