"""Items that people bring: read line by line, added once, seen by admins; what is wrong is named."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from server.cli.items import _lines
from server.db import session_factory
from server.errors import BadInput, Conflict
from server.models import Campaign, Candidate, Turn
from server.services.chat import dialogue, queue
from server.services.items import item_lines, items
from tests import factories

LINES = [
    {"prompt": "Eggs?", "a": "Nine minutes.", "b": "Never."},
    {"prompt": [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Green?"},
                {"role": "user", "content": "Black."}], "a": "Boil it.", "b": "Freeze it."},
    {"prompt": "Gold?", "a": "Yes.", "b": "No.", "expected": {"picked": 0, "strength": 2}},
    {"prompt": "Press the left one.", "a": "Left.", "b": "Right.", "expected": {"picked": 0}, "attention": True},
]  # fmt: skip


def lines() -> list[str]:
    return [json.dumps(line) for line in LINES]


def test_items_come_with_what_was_said_before(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    assert items.add_items(db, campaign, item_lines.read([*lines(), "", lines()[0]]), cast.ada) == 4
    assert items.add_items(db, campaign, item_lines.read(lines())) == 0
    queued = db.query(Turn).filter_by(queue_id=campaign.id).order_by(Turn.id).all()
    assert [turn.check_kind for turn in queued] == [None, None, "gold", "attention"]
    assert [each["content"] for each in dialogue.transcript(db, queued[1])] == ["Tea?", "Green?", "Black."]
    assert [each.text for each in queued[0].candidates] == ["Nine minutes.", "Never."]
    assert items.standing(db, campaign) == items.Standing(items=2, checks=2, answered=0, answers=0)
    assert queue.offer(db, cast.alice, campaign) is queued[0]


def test_postgres_knows_of_a_large_file_at_once(db: Session) -> None:
    """Where it takes the queue for short, it reads and sorts all of it for every offer: 40 ms in place of 0.4."""
    campaign = factories.campaign(db, way="pairs")
    many = [json.dumps({"prompt": f"Question {number}?", "a": "Yes.", "b": "No."}) for number in range(items.MANY)]
    items.add_items(db, campaign, item_lines.read(many))
    plan = db.scalar(text(f"EXPLAIN (FORMAT JSON) SELECT FROM turns WHERE queue_id = {campaign.id}"))
    assert plan[0]["Plan"]["Plan Rows"] >= 0.8 * items.MANY


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Line 2 is not JSON"),
        ("[]", "Line 2 is not an object"),
        ('{"prompt": "Q", "a": "x"}', "needs the text 'b'"),
        ('{"prompt": "Q", "a": "x", "replies": ["y", "z"]}', "texts beside it"),
        ('{"prompt": "Q", "replies": ["y"]}', "has 1 replies"),
        ('{"prompt": "Q", "replies": ["y", ""]}', r"needs the text 'replies\[1\]'"),
        ('{"prompt": "Q", "replies": ["y", "z"], "expected": {"above": [[0, 2]]}}', "must stand above"),
        ('{"prompt": "Q", "expected": {"picked": 0}}', "no expected answer"),
        ('{"prompt": "Q", "a": "x", "b": "x"}', "two equal texts"),
        ('{"prompt": "", "a": "x", "b": "y"}', "prompt"),
        ('{"prompt": [{"role": "assistant", "content": "Hi"}], "a": "x", "b": "y"}', "begin and end with the user"),
        ('{"prompt": "Q", "a": "x", "b": "y", "gold": 1}', "unknown key 'gold'"),
        ('{"prompt": "Q", "a": "x", "b": "y", "expected": {"picked": 2}}', "expected is"),
        ('{"prompt": "Q", "a": "x", "b": "y", "attention": true}', "attention"),
        ('{"prompt": "Q", "a": "\\ud800", "b": "y"}', "Line 2 .* half a surrogate pair"),
        ('{"prompt": "\\ud800", "a": "x", "b": "y"}', "Line 2 .*prompt"),
    ],
)
def test_a_bad_line_is_named(line: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        item_lines.read([lines()[0], line])


def test_two_who_add_the_same_at_once_add_it_once(committed: str) -> None:
    new_session = session_factory(committed)
    with new_session.begin() as db:
        campaign_id = factories.campaign(db, way="pairs").id
    gate, added = threading.Barrier(2), []

    def add() -> None:
        gate.wait()
        with new_session.begin() as db:
            added.append(items.add_items(db, db.get_one(Campaign, campaign_id), item_lines.read(lines())))

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [0, 4]


def test_only_a_campaign_of_pairs_takes_them(db: Session) -> None:
    with pytest.raises(Conflict, match="way"):
        items.add_items(db, factories.campaign(db), item_lines.read(lines()))


def test_an_admin_pastes_them_and_a_refusal_keeps_what_was_pasted(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="pairs", way="pairs")
    db.commit()
    csrf = sign_in(cast.ada)
    bad = "\n".join([lines()[0], "nonsense"])
    refused = client.post("/admin/campaigns/pairs/items", data={"csrf_token": csrf, "lines": bad})
    assert refused.status_code == 422
    page = client.post(
        "/admin/campaigns/pairs/items", data={"csrf_token": csrf, "lines": bad}, headers={"accept": "text/html"}
    ).text
    assert "Line 2 is not JSON" in page
    assert "nonsense</textarea>" in page
    assert db.query(Candidate).count() == 0
    form = {"csrf_token": csrf, "lines": "\n".join(lines())}
    assert client.post("/admin/campaigns/pairs/items", data=form).status_code == 303
    assert "2 items" in client.get("/admin/campaigns/pairs").text
    assert items.standing(db, campaign).items == 2


def test_settings_of_a_campaign_on_the_form(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="set")
    db.commit()
    csrf = sign_in(cast.ada)
    form = {"csrf_token": csrf, "way": "pairs", "ties": "yes", "both_bad": "yes", "justification": "required",
            "pairing": "two", "purpose": "evaluation", "undo_seconds": "30", "check_rate": "0.1"}  # fmt: skip
    assert client.post("/admin/campaigns/set", data=form).status_code == 303
    db.refresh(campaign)
    assert (campaign.way, campaign.ties, campaign.both_bad, campaign.undo_seconds) == ("pairs", True, True, 30)
    for wrong in (
        {"ties": "perhaps"},
        {"way": "voting"},
        {"candidates": "1"},
        {"flags": "Rude"},
        {"pool": "none"},
        {"check_rate": "0.9"},
    ):
        assert client.post("/admin/campaigns/set", data={"csrf_token": csrf} | wrong).status_code == 422


def test_lines_may_be_compressed(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(lines()).encode()))
    assert len(item_lines.read(_lines(file))) == 4
    # U+2028 and U+0085 may stand in a text of JSON as they are, and end no line there
    odd = json.dumps({"prompt": "One\u2028two\x85three", "a": "x", "b": "y"}, ensure_ascii=False)
    file.write_bytes(gzip.compress(f"{odd}\r\n{odd}".encode()))
    assert len(item_lines.read(_lines(file))) == 2
    file.write_bytes(b"not gzip")
    with pytest.raises(BadInput, match="cannot be read"):
        _lines(file)
