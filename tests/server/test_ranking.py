"""Rankings: every reply gets a place, ties and gaps, ratings and flags, each person's own order, and the expert's key."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import CheckResult, Draft, Ranking, Undone
from server.routes import chat_view
from server.routes.ranking_view import ranking_sheet
from server.services.campaigns import campaign_settings, campaigns
from server.services.chat import queue
from server.services.items import item_lines, items
from server.services.ways import ranking, undo
from server.services.ways.ranking import Placed
from server.services.working import drafts, leases
from server.services.working.answers import Sent
from tests import factories

KEY = "key-of-the-page"
REPLIES = ("Nine.", "Four.", "Never.", "Ask.")


def lend(db: Session, person, campaign):
    turn = queue.offer(db, person, campaign)
    assert turn is not None
    return turn, queue.as_shown(turn, leases.find(db, person, turn.conversation, turn.id))


def test_the_order_is_stored_by_reply_wherever_it_stood(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", overlap=2)
    factories.item(db, campaign, replies=REPLIES)
    turn, shown = lend(db, cast.alice, campaign)
    # Nine. and Ask. share the first place, Four. is next, Never. the last: given with a gap.
    wanted = {"Nine.": 1, "Ask.": 1, "Four.": 3, "Never.": 4}
    drafts.save(db, cast.alice, drafts.turn_place("ranking", turn), "[]")
    placed = [Placed(at, wanted[candidate.text]) for at, candidate in enumerate(shown)]
    row, new = ranking.store_ranking(db, cast.alice, turn.id, placed, Sent(9000, KEY), "Eggs.")
    assert new
    by_text = {candidate.id: candidate.text for candidate in turn.candidates}
    assert {by_text[each.candidate_id]: each.place for each in row.places} == {
        "Nine.": 1,
        "Ask.": 1,
        "Four.": 2,
        "Never.": 3,
    }
    assert [by_text[each.candidate_id] for each in sorted(row.places, key=lambda each: each.shown)] == [
        candidate.text for candidate in shown
    ]
    assert (row.justification, row.milliseconds_to_decide, row.mode, row.purpose) == (
        "Eggs.",
        9000,
        "helpful",
        "training",
    )
    assert db.query(Draft).count() == 0
    again, new = ranking.store_ranking(db, cast.alice, turn.id, placed, Sent(9000, KEY))
    assert (again.id, new) == (row.id, False)
    with pytest.raises(Conflict, match="already answered"):
        ranking.store_ranking(db, cast.alice, turn.id, placed, Sent(9000, "another-key"))
    assert (turn.status, turn.queue_id) == ("ready", campaign.id)  # one more is wanted
    assert queue.offer(db, cast.alice, campaign) is None


def test_everybody_gets_an_order_of_their_own_that_stays(db: Session) -> None:
    campaign = factories.campaign(db, way="ranking", overlap=20)
    factories.item(db, campaign, replies=REPLIES)
    orders = set()
    for number in range(20):
        person = factories.person(db, f"P{number}")
        _turn, shown = lend(db, person, campaign)
        assert [each.id for each in shown] == [each.id for each in lend(db, person, campaign)[1]]
        assert sorted(each.text for each in shown) == sorted(REPLIES)
        orders.add(tuple(each.text for each in shown))
    assert len(orders) > 5


@pytest.mark.parametrize(
    ("placed", "why"),
    [
        ([Placed(0, 1), Placed(1, 2), Placed(2, 3)], "each of the 4"),
        ([Placed(0, 1), Placed(1, 2), Placed(2, 3), Placed(2, 4)], "each of the 4"),
        ([Placed(0, 1), Placed(1, 2), Placed(2, 3), Placed(3, 0)], "from 1 to 4"),
        ([Placed(0, 1), Placed(1, 2), Placed(2, 3), Placed(3, 5)], "from 1 to 4"),
        ([Placed(0, 1, 3), Placed(1, 2), Placed(2, 3), Placed(3, 4)], "rating"),
        ([Placed(0, 1, None, ("sexual",)), Placed(1, 2), Placed(2, 3), Placed(3, 4)], "flags"),
    ],
)
def test_what_is_no_ranking(db: Session, cast, placed: list[Placed], why: str) -> None:
    campaign = factories.campaign(db, way="ranking")
    factories.item(db, campaign, replies=REPLIES)
    turn, _shown = lend(db, cast.alice, campaign)
    with pytest.raises(BadInput, match=why):
        ranking.store_ranking(db, cast.alice, turn.id, placed, Sent(9000, KEY))
    assert db.query(Ranking).count() == 0


def test_ratings_and_flags_where_the_campaign_asks(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking")
    campaigns.update_campaign(db, campaign, cast.ada, rated="yes")
    assert campaign.flags == campaign_settings.FLAGS
    factories.item(db, campaign, replies=REPLIES)
    turn, _shown = lend(db, cast.alice, campaign)
    plain = [Placed(at, at + 1) for at in range(4)]
    with pytest.raises(BadInput, match="Rate every reply"):
        ranking.store_ranking(db, cast.alice, turn.id, plain, Sent(9000, KEY))
    unknown = [Placed(at, at + 1, 4, ("rude",)) for at in range(4)]
    with pytest.raises(BadInput, match="flags"):
        ranking.store_ranking(db, cast.alice, turn.id, unknown, Sent(9000, KEY))
    with pytest.raises(BadInput, match="from 1 to 7"):
        ranking.store_ranking(db, cast.alice, turn.id, [Placed(at, at + 1, 8) for at in range(4)], Sent(9000, KEY))
    rated = [Placed(at, at + 1, 7 - at, ("hallucination", "opinion") if at else ()) for at in range(4)]
    row, _new = ranking.store_ranking(db, cast.alice, turn.id, rated, Sent(9000, KEY))
    assert [(each.rating, list(each.flags)) for each in sorted(row.places, key=lambda each: each.shown)] == [
        (7, []), (6, ["hallucination", "opinion"]), (5, ["hallucination", "opinion"]), (4, ["hallucination", "opinion"]),
    ]  # fmt: skip
    with pytest.raises(Conflict, match="rating of replies"):
        campaigns.update_campaign(db, campaign, cast.ada, rated="no")


def test_who_was_not_lent_it_and_who_is_too_late(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking")
    factories.item(db, campaign, replies=REPLIES)
    turn, _shown = lend(db, cast.alice, campaign)
    placed = [Placed(at, 1) for at in range(4)]
    with pytest.raises(NotFound):
        ranking.store_ranking(db, cast.bob, turn.id, placed, Sent(1, KEY))
    lease = leases.find(db, cast.alice, turn.conversation, turn.id)
    lease.expires_at = lease.created_at
    db.flush()
    with pytest.raises(Conflict, match="ran out"):
        ranking.store_ranking(db, cast.alice, turn.id, placed, Sent(1, KEY))


def test_a_gold_item_holds_only_when_every_order_does(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", check_rate=0.5)
    line = '{"prompt": "Eggs?", "replies": ["Nine.", "Four.", "Never."], "expected": {"above": [[0, 2], [1, 2]]}}'
    items.add_items(db, campaign, item_lines.read([line]))
    wanted = {cast.alice: {"Nine.": 2, "Four.": 1, "Never.": 3}, cast.bob: {"Nine.": 1, "Four.": 2, "Never.": 2}}
    for person, places in wanted.items():
        turn = next(filter(None, (queue.offer(db, person, campaign) for _try in range(100))))
        shown = queue.as_shown(turn, leases.find(db, person, turn.conversation, turn.id))
        placed = [Placed(at, places[candidate.text]) for at, candidate in enumerate(shown)]
        ranking.store_ranking(db, person, turn.id, placed, Sent(9000, KEY))
    found = {row.person_id: (row.passed, row.answered) for row in db.query(CheckResult)}
    assert found[cast.alice.id] == (True, {"places": [2, 1, 3]})
    assert found[cast.bob.id] == (False, {"places": [1, 2, 2]})  # a tie is not above


def test_a_ranking_is_taken_back_whole(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking")
    factories.item(db, campaign, replies=REPLIES)
    turn, shown = lend(db, cast.alice, campaign)
    ranking.store_ranking(db, cast.alice, turn.id, [Placed(at, at + 1) for at in range(4)], Sent(9000, KEY))
    assert (turn.status, turn.queue_id) == ("compared", None)
    assert undo.undo(db, cast.alice, campaign) is turn
    kept = db.query(Undone).one()
    assert kept.kind == "ranking"
    assert [each["shown"] for each in sorted(kept.answer["places"], key=lambda each: each["place"])] == [0, 1, 2, 3]
    assert [each.id for each in lend(db, cast.alice, campaign)[1]] == [each.id for each in shown]


def test_a_campaign_without_items_and_without_a_model_says_which_is_missing(db: Session, cast) -> None:
    assert not chat_view.build_view(
        db, cast.alice, factories.campaign(db, way="ranking")
    ).unserved  # one that is served
    campaign = campaigns.create_campaign(
        db, slug="bare", name="Bare", mode="helpful", instructions="Rank.", way="ranking"
    )
    assert chat_view.build_view(db, cast.alice, campaign).unserved
    factories.item(db, campaign, replies=REPLIES)
    assert not chat_view.build_view(db, cast.alice, campaign).unserved
    lend(db, cast.alice, campaign)
    assert not chat_view.build_view(db, cast.bob, campaign).unserved  # all items that were brought are with somebody


def test_what_was_taken_back_is_in_the_form_again(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", rated=True, justification="optional")
    factories.item(db, campaign, replies=REPLIES)
    turn, _ = lend(db, cast.alice, campaign)
    placed = [Placed(at, (2, 1, 1, 3)[at], rating=at + 1) for at in range(4)]
    ranking.store_ranking(db, cast.alice, turn.id, placed, Sent(9000, KEY), "So it is.")
    undo.undo(db, cast.alice, campaign)
    sheet = ranking_sheet(db, cast.alice, campaign, turn)
    assert [(reply.place, reply.rating) for reply in sheet.replies] == [(2, 1), (1, 2), (1, 3), (3, 4)]
    assert sheet.reason == "So it is."


def test_over_the_api_and_the_form(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, way="ranking", justification="required")
    campaigns.update_campaign(db, campaign, cast.ada, rated="yes")
    for number in range(3):
        factories.item(db, campaign, f"Question {number}", replies=REPLIES)
    sign_in(cast.alice)
    lent = client.get(f"/api/campaigns/{campaign.slug}/conversation").json()["second_opinion"]["turn"]
    assert [each["position"] for each in lent["candidates"]] == [0, 1, 2, 3]
    body = {
        "places": [{"position": at, "place": 4 - at, "rating": 1 + at, "flags": ["opinion"]} for at in range(4)],
        "milliseconds": 4000, "idempotency_key": KEY, "justification": "Because.",
    }  # fmt: skip
    told = client.post(f"/api/turns/{lent['id']}/ranking", json=body)
    assert (told.status_code, told.json()["ranking"]["places"]) == (201, [4, 3, 2, 1])
    assert client.post(f"/api/turns/{lent['id']}/ranking", json=body).status_code == 200
    second = told.json()["next"]["turn"]["id"]
    page = client.get(f"/chat/{campaign.slug}").text
    assert f'data-turn="{second}"' in page
    assert page.count('class="candidate"') == 4
    form = {"turn_id": second, "idempotency_key": "key-of-the-form"}
    form |= {f"place-{at}": at + 1 for at in range(4)} | {f"rating-{at}": 5 for at in range(4)} | {"flags-2": "sexual"}
    refused = client.post(f"/chat/{campaign.slug}/ranking", data=form)
    assert refused.status_code == 422
    assert "Please say why" in refused.text
    assert refused.text.count("selected") >= 4  # what was chosen is still there
    stored = client.post(f"/chat/{campaign.slug}/ranking", data=form | {"justification": "So."}, follow_redirects=False)
    assert stored.status_code == 303
    assert db.query(Ranking).count() == 2
    assert (
        client.post(
            f"/api/turns/{second}/comparison", json={"scale_position": 1, "milliseconds": 1, "idempotency_key": KEY}
        ).status_code
        == 409
    )
