"""What comes in, what is refused and named, and that nothing is ever half-imported."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from server.db import session_factory
from server.models import Candidate, Comparison, Conversation, Job, Turn
from server.services import jobs
from server.services.campaigns import campaigns
from server.settings import Settings
from tests.workers.lines import hh_lines, write
from workers import imports
from workers.jobs import perform


@pytest.fixture
def sessions(committed: str) -> sessionmaker[Session]:
    """Sessions on a database that is emptied after the test; campaign `in` waits for imports."""
    found = session_factory(committed)
    with found.begin() as db:
        campaigns.create_campaign(db, slug="in", name="In", mode="helpful", instructions="Compare.")
        campaigns.create_campaign(db, slug="red", name="Red", mode="red_team", instructions="Compare.")
    return found


def run(sessions: sessionmaker[Session], settings: Settings, path: Path, campaign: str = "in", **more: Any) -> Job:
    with sessions.begin() as db:
        job = jobs.request_import(db, None, path, campaign, send=False, **more)
    perform(job.id, settings)
    with sessions() as db:
        return db.get_one(Job, job.id)


def counts(sessions: sessionmaker[Session]) -> tuple[int, ...]:
    with sessions() as db:
        return tuple(
            db.scalar(select(func.count()).select_from(table)) or 0
            for table in (Conversation, Turn, Candidate, Comparison)
        )


def test_a_record_becomes_a_conversation_with_its_turns(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    job = run(sessions, settings, write(tmp_path / "a.jsonl", hh_lines()))
    assert (job.status, job.result and job.result["comparisons"]) == ("done", 6)
    # six conversations; one of them has two turns, the first with its one known reply
    assert counts(sessions) == (6, 7, 13, 6)
    with sessions() as db:
        second = db.scalars(select(Comparison).order_by(Comparison.id)).all()[1]
        turns = db.scalars(
            select(Turn).join(Conversation).where(Conversation.import_id == job.id).order_by(Turn.id)
        ).all()[1:3]
        assert [turn.message for turn in turns] == ["Hi", "Tea?"]
        assert db.get_one(Candidate, turns[0].continued_by_id).text == "Hello, what is it?"
        assert second.turn_id == turns[1].id
        assert db.get_one(Candidate, second.chosen_id).text == "Green tea is milder."
        assert db.get_one(Candidate, second.rejected_id).text == "Tea.\n\nHuman: And?\n\nAssistant: And what?"
        assert second.picked_id == second.chosen_id
        # only what we would write differently keeps its line
        kept = db.scalars(select(Comparison.source_line).order_by(Comparison.id)).all()
        assert [line is not None for line in kept] == [False, False, False, True, True, True]


def test_in_a_red_team_campaign_the_picked_reply_is_the_rejected_one(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    run(sessions, settings, write(tmp_path / "a.jsonl", hh_lines()), "red")
    with sessions() as db:
        for comparison in db.scalars(select(Comparison)):
            assert (comparison.mode, comparison.picked_id) == ("red_team", comparison.rejected_id)


def test_every_trl_shape_and_our_own_come_in(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    user, good, bad = {"role": "user", "content": "Why?"}, "Because.", "No."
    reply = lambda words: {"role": "assistant", "content": words}
    records = [
        {"prompt": "Why?", "chosen": good, "rejected": bad},
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"prompt": [user], "chosen": [reply(good)], "rejected": [reply(bad)]},
        {"chosen": [user, reply(good)], "rejected": [user, reply(bad)]},
        {"prompt": [user], "chosen": [reply(good)], "rejected": [reply(bad)], "strength": 4, "mode": "red_team",
         "person": "p1", "conversation": "c1", "round": 7, "more": {"b": 1, "a": [None, "x"]}},
    ]  # fmt: skip
    job = run(sessions, settings, write(tmp_path / "trl.jsonl", [json.dumps(record) for record in records]))
    assert (job.status, job.failure) == ("done", None)
    with sessions() as db:
        last = db.scalars(select(Comparison).order_by(Comparison.id.desc())).first()
        assert last is not None
        assert (last.strength, last.mode, last.person_id) == (4, "red_team", None)
        assert last.details == {"person": "p1", "conversation": "c1", "round": 7, "more": {"b": 1, "a": [None, "x"]}}


GOOD = hh_lines()
NUL = json.dumps({"prompt": "a", "chosen": "b\0", "rejected": "c"})
SURROGATE = r'{"prompt": "a", "chosen": "\ud800", "rejected": "c"}'
INFINITE = '{"prompt": "a", "chosen": "b", "rejected": "c", "weight": 1e999}'
DIGITS = '{"prompt": "a", "chosen": "b", "rejected": "c", "weight": ' + "1" * 5000 + "}"
TWO_REPLIES = json.dumps(
    {
        "prompt": [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "a"}],
        "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": "c"}],
    }
)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{not json", "line 3: is not JSON"),
        (b"\xff\xfe", "line 3: is not UTF-8"),
        ('{"chosen": "x"}', "line 3: has no 'rejected'"),
        (NUL, "line 3: holds the character U+0000"),
        (SURROGATE, "line 3: holds half a surrogate pair"),
        (INFINITE, "line 3: holds the number inf"),
        (DIGITS, "line 3: Exceeds the limit"),
        (TWO_REPLIES, "line 3: message 1 is a reply that answers no message"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "line 3: 'chosen' and 'rejected' are the same"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "mode": "rude"}', "line 3: 'mode' must be helpful or red_team"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "strength": 9}', "line 3: 'strength' must be"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_nothing_comes_in(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path, bad: str | bytes, reason: str
) -> None:
    path = tmp_path / "bad.jsonl"
    third = bad if isinstance(bad, bytes) else bad.encode()
    path.write_bytes(b"\n".join([GOOD[0].encode(), GOOD[1].encode(), third, GOOD[2].encode()]) + b"\n")
    job = run(sessions, settings, path)
    assert job.status == "failed"
    assert job.failure is not None and job.failure.startswith(reason)
    assert counts(sessions) == (0, 0, 0, 0)


def test_bad_lines_can_be_left_out_and_are_listed(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    job = run(sessions, settings, write(tmp_path / "b.jsonl", [GOOD[0], "{", GOOD[1], NUL, ""]), skip_bad=True)
    assert job.result is not None
    assert (job.result["comparisons"], job.result["bad_lines"]) == (2, 2)
    assert [bad["line"] for bad in job.result["bad"]] == [2, 4]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MAX_LINE_BYTES", 500)
    job = run(sessions, settings, write(tmp_path / "long.jsonl", [GOOD[0], "x" * 501]))
    assert job.failure == "line 2: has more than 500 bytes"
    assert counts(sessions) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n\n", "holds no comparison"),
        (gzip.compress("\n".join(GOOD * 50).encode())[:-20], "cannot be unpacked"),
        (b"\x1f\x8bgarbage", "cannot be unpacked"),
    ],
)
def test_a_file_that_is_none_is_refused(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "file.jsonl.gz"
    path.write_bytes(content)
    job = run(sessions, settings, path)
    assert job.status == "failed" and reason in (job.failure or "")
    assert counts(sessions) == (0, 0, 0, 0)


def test_a_file_with_a_byte_order_mark_comes_in(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(GOOD).encode())
    job = run(sessions, settings, path)
    assert (job.status, job.failure) == ("done", None)


def test_the_same_content_comes_in_once_unless_asked_for_again(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    plain = write(tmp_path / "a.jsonl", GOOD)
    packed, marked = tmp_path / "other-name", tmp_path / "marked.jsonl.gz"  # which is not packed
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert run(sessions, settings, plain).status == "done"
    for other in (packed, marked):
        second = run(sessions, settings, other)
        assert second.status == "failed" and "is in campaign in already" in (second.failure or "")
    assert run(sessions, settings, packed, "red").status == "done"  # another campaign is another matter
    assert run(sessions, settings, packed, again=True).status == "done"
    assert counts(sessions)[3] == 18


def test_a_format_that_is_asked_for_is_insisted_on(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD[0], '{"prompt": "a", "chosen": "b", "rejected": "c"}'])
    assert run(sessions, settings, path, format="hh").failure == "line 2: has the shape trl, not hh"


def test_a_lost_claim_rolls_everything_back(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stood still for a minute and then goes on must not add to what its successor imports."""
    path = write(tmp_path / "a.jsonl", GOOD)
    with sessions.begin() as db:
        job = jobs.request_import(db, None, path, "in", send=False)
    real = imports._refuse_twice

    def stolen(db: Session, *args: Any, **more: Any) -> None:
        with sessions.begin() as other:
            other.execute(text("UPDATE jobs SET claimed_by = 'successor'"))
        real(db, *args, **more)

    monkeypatch.setattr(imports, "_refuse_twice", stolen)
    perform(job.id, settings)
    assert counts(sessions) == (0, 0, 0, 0)
    with sessions() as db:
        assert db.get_one(Job, job.id).claimed_by == "successor"
