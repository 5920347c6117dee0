"""Round trips, manifests, filters, and that no export tells who anybody is."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy.orm import Session, sessionmaker

from server.db import session_factory
from server.models import Job
from server.services import jobs
from server.services.campaigns import campaigns
from server.settings import Settings
from tests import factories
from tests.workers.lines import hh_lines, write
from training.data.feedback import parse_feedback
from training.lines.rankings import Ranking
from training.lines.records import Comparison
from workers.jobs import perform


@pytest.fixture
def sessions(committed: str) -> sessionmaker[Session]:
    """Sessions on a database that is emptied after the test; campaign `in` waits for imports."""
    found = session_factory(committed)
    with found.begin() as db:
        campaigns.create_campaign(db, slug="in", name="In", mode="helpful", instructions="Compare.")
    return found


def bring(sessions: sessionmaker[Session], settings: Settings, path: Path, campaign: str = "in") -> None:
    with sessions.begin() as db:
        job = jobs.request_import(db, None, path, campaign, send=False)
    perform(job.id, settings)
    with sessions() as db:
        assert db.get_one(Job, job.id).failure is None


def export(sessions: sessionmaker[Session], settings: Settings, form: str = "hh", **more: Any) -> tuple[Job, Path]:
    with sessions.begin() as db:
        job = jobs.request_export(db, None, form, send=False, **more)
    perform(job.id, settings)
    with sessions() as db:
        return db.get_one(Job, job.id), Path(settings.artifacts) / "exports" / str(job.id)


def compared(sessions: sessionmaker[Session]) -> None:
    """Two comparisons by Alice in one conversation, one by a simulated person."""
    with sessions.begin() as db:
        campaign = factories.campaign(db, slug="chat")
        alice, robot = factories.person(db, "Alice"), factories.person(db, "Robot", simulated=True)
        talk = factories.conversation(db, campaign, alice)
        snapshot = factories.snapshot(db, name="starter")
        for message in ("One?", "Two?"):
            factories.comparison(db, factories.turn(db, talk, message, ("Yes.", "No."), snapshot=snapshot), alice)
        other = factories.conversation(db, campaign, robot)
        factories.comparison(db, factories.turn(db, other, "Three?"), robot)


@pytest.mark.parametrize("compressed", [False, True])
def test_hh_rlhf_comes_out_in_the_bytes_that_went_in(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path, compressed: bool
) -> None:
    path = write(tmp_path / "sample.jsonl", hh_lines())
    bring(sessions, settings, path)
    job, folder = export(sessions, settings, campaign="in", compressed=compressed)
    assert job.result is not None
    file = folder / job.result["files"][0]["name"]
    written = file.read_bytes()
    assert job.result["files"][0]["sha256"] == hashlib.sha256(written).hexdigest()
    assert (gzip.decompress(written) if compressed else written) == path.read_bytes()
    assert json.loads((folder / "manifest.json").read_text()) == job.result


def test_our_own_format_survives_an_import_unchanged(
    sessions: sessionmaker[Session], settings: Settings, tmp_path: Path
) -> None:
    compared(sessions)
    _, first = export(sessions, settings, "whetstone", campaign="chat", simulated=True)
    bring(sessions, settings, first / "comparisons.jsonl")
    _, second = export(sessions, settings, "whetstone", campaign="in")
    assert (second / "comparisons.jsonl").read_bytes() == (first / "comparisons.jsonl").read_bytes()
    one, two, three = (json.loads(line) for line in (first / "comparisons.jsonl").read_text().splitlines())
    assert [message["content"] for message in two["prompt"]] == ["One?", "Yes.", "Two?"]
    assert one["person"] == two["person"] != three["person"]
    assert one["conversation"] == two["conversation"] != three["conversation"]
    assert one["chosen_reply"]["snapshot"] == "starter" and one["chosen_reply"]["seed"] == 0
    assert (one["distribution"], three["distribution"]) == ("base", None)  # the third has replies of no snapshot
    assert (one["strength"], one["scale_position"], one["instructions_version"]) == (3, 2, 1)
    assert "Alice" not in json.dumps([one, two, three])


def test_the_trl_formats_and_parquet_hold_the_same_words(sessions: sessionmaker[Session], settings: Settings) -> None:
    compared(sessions)
    lines = {
        name: json.loads((export(sessions, settings, name)[1] / "comparisons.jsonl").read_text().splitlines()[0])
        for name in ("trl", "trl-explicit", "trl-conversational")
    }
    prompt = "\n\nHuman: One?\n\nAssistant:"
    assert lines["trl"] == {"chosen": f"{prompt} Yes.", "rejected": f"{prompt} No."}
    assert lines["trl-explicit"] == {"prompt": prompt, "chosen": " Yes.", "rejected": " No."}
    assert lines["trl-conversational"] == {
        "prompt": [{"role": "user", "content": "One?"}],
        "chosen": [{"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    _, folder = export(sessions, settings, "parquet", simulated=True)
    table = pq.read_table(folder / "comparisons.parquet").to_pylist()
    assert len(table) == 3
    assert table[0]["prompt"] == lines["trl-conversational"]["prompt"]
    assert (table[0]["strength"], table[0]["campaign"], table[0]["mode"]) == (3, "chat", "helpful")
    assert [row["distribution"] for row in table] == ["base", "base", None]
    assert "distribution" not in json.loads(table[0]["provenance"])
    assert json.loads(table[0]["provenance"])["milliseconds_to_decide"] == 5000


def test_the_simulated_crowd_is_left_out_and_counted(sessions: sessionmaker[Session], settings: Settings) -> None:
    compared(sessions)
    job, _ = export(sessions, settings)
    assert job.result is not None
    assert (job.result["comparisons"], job.result["simulated_left_out"]) == (2, 1)
    assert job.result["counts"]["source"] == {"chat": 2}


def test_filters_decide_what_comes(sessions: sessionmaker[Session], settings: Settings, tmp_path: Path) -> None:
    compared(sessions)
    bring(sessions, settings, write(tmp_path / "a.jsonl", hh_lines()))
    assert (export(sessions, settings)[0].result or {})["comparisons"] == 8
    assert (export(sessions, settings, source="import")[0].result or {})["comparisons"] == 6
    assert (export(sessions, settings, campaign="chat")[0].result or {})["comparisons"] == 2
    none, folder = export(sessions, settings, mode="red_team")
    assert none.status == "failed" and "nothing to export" in (none.failure or "")
    assert not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))


def test_a_split_keeps_conversations_whole(sessions: sessionmaker[Session], settings: Settings, tmp_path: Path) -> None:
    record = '{"prompt": "q%d", "chosen": "a%d", "rejected": "b", "conversation": "c%d"}'
    lines = [record % (n, n, n // 4) for n in range(80)]
    bring(sessions, settings, write(tmp_path / "a.jsonl", lines))
    job, folder = export(sessions, settings, "whetstone", test_share=0.5)
    sides = [
        {json.loads(line)["conversation"] for line in (folder / name).read_text().splitlines()}
        for name in ("train.jsonl", "test.jsonl")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert job.result is not None
    assert job.result["splits"] == {"by": "conversation", "test_share": 0.5}
    assert sum(file["comparisons"] for file in job.result["files"]) == 80


def test_rankings_edits_and_demonstrations_come_as_training_reads_them(
    sessions: sessionmaker[Session], settings: Settings
) -> None:
    with sessions.begin() as db:
        campaign, person = factories.campaign(db, slug="all"), factories.person(db, "Alice")
        item = factories.item(db, campaign, "Eggs?", ["Nine.", "Four.", "Never."])
        factories.ranking(db, item, person, [2, 1, 2], justification="Shorter.")
        factories.demonstration(db, factories.item(db, campaign, "Toast?", []), person, "Three minutes.")
        turn = factories.turn(db, factories.conversation(db, campaign, person), "Tea?", ("Hot.", "Cold."))
        factories.comparison(db, turn, person)
        factories.edit(db, turn, person, "Very hot.")
        factories.edit(db, factories.turn(db, factories.conversation(db, factories.campaign(db), person), "No?"), person,
                       "Never.", purpose="evaluation")  # fmt: skip
    found = {}
    for form in ("rankings", "demonstrations", "edits"):
        job, folder = export(sessions, settings, form)
        assert job.result
        assert (job.result["of"], job.result[form]) == (form, 1)
        (line,) = (folder / f"{form}.jsonl").read_text().splitlines()
        assert "Alice" not in line
        found[form] = line
    ranked, shown, edited = (parse_feedback(found["rankings"], 1), json.loads(found["demonstrations"]),
                             parse_feedback(found["edits"], 1))  # fmt: skip
    assert isinstance(ranked, Ranking)
    assert ranked.extra["distribution"] is None  # given texts
    assert (ranked.replies, ranked.ranks) == (("Nine.", "Four.", "Never."), (2, 1, 2))
    assert [message["content"] for message in shown["messages"]] == ["Toast?", "Three minutes."]
    assert isinstance(edited, Comparison)
    assert (edited.chosen, edited.rejected, edited.prompt[0]["content"]) == ("Very hot.", "Hot.", "Tea?")
    assert (export(sessions, settings, "edits", purpose=None)[0].result or {})["edits"] == 2
    assert "no demonstrations" in (export(sessions, settings, "demonstrations", round_number=1)[0].failure or "")
