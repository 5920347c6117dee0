"""What a round writes for its jobs: prompts say their mode, and nothing held out is among those to train on."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy.orm import Session

from server.models import Job, Prompt
from server.services.data import datasets
from server.services.data.dataset_selection import DatasetSelection
from tests import factories
from training.data.prompts import read_prompts_with_modes
from training.lines.records import comparison_of, read_records
from workers.round_data import write_experts, write_feedback, write_prompts


def test_lines_say_which_kind_of_model_wrote_them(db: Session, tmp_path: Path) -> None:
    campaign, person = factories.campaign(db), factories.person(db)
    week = factories.snapshot(db, origin="round")
    turn = factories.turn(db, factories.conversation(db, campaign, person), snapshot=week)
    factories.comparison(db, turn, person)
    brought = factories.turn(db, factories.conversation(db, campaign, None, source="import"))
    for candidate in brought.candidates:
        candidate.snapshot_id = None
    imported = db.merge(Job(kind="import", status="done", settings={}))
    db.flush()
    factories.comparison(db, brought, person, import_id=imported.id, details={"distribution": "rs"})
    version = datasets.freeze(db, DatasetSelection(held_out=0.0))
    write_feedback(db, version.id, tmp_path)
    found = [record.extra["distribution"] for record in read_records(tmp_path / "data/train.jsonl", comparison_of)]
    assert found == ["online", "rs"]  # an import says it itself


def test_what_experts_hold_right_stands_beside(db: Session, tmp_path: Path) -> None:
    campaign = factories.campaign(db, way="pairs")
    write_experts(db, DatasetSelection(), tmp_path)
    assert not (tmp_path / "data").exists()  # no key, no file
    factories.item(db, campaign, "One?", check_kind="gold", expected={"picked": 1})
    write_experts(db, DatasetSelection(), tmp_path)
    (found,) = read_records(tmp_path / "data/experts.jsonl", comparison_of)
    assert (found.chosen, found.rejected, found.strength) == ("Four.", "Nine.", None)


def test_prompts_carry_the_mode_of_their_campaign_or_comparison(db: Session, tmp_path: Path) -> None:
    helpful, red, person = factories.campaign(db), factories.campaign(db, mode="red_team"), factories.person(db)
    for campaign, text, split in (
        (helpful, "Eggs?", "train"), (helpful, "Bread?", "held_out"), (red, "Harm!", "train"), (red, "Both?", "train"),
        (helpful, "Both?", "train"), (red, "Bread?", "train"),
    ):  # fmt: skip
        db.add(Prompt(campaign_id=campaign.id, text=text, split=split))
    db.flush()
    factories.comparison(db, factories.turn(db, factories.conversation(db, red, person), "More harm!"), person)
    version = datasets.freeze(db, DatasetSelection(held_out=0.0))
    assert write_prompts(db, version.id, [helpful.id, red.id], tmp_path) == 4
    found = {prompt[-1]["content"]: mode for prompt, mode in read_prompts_with_modes(tmp_path / "data/prompts.jsonl")}
    assert found == {"Eggs?": "helpful", "Harm!": "red_team", "Both?": "helpful", "More harm!": "red_team"}
    (held_out,) = (tmp_path / "data/held_out.jsonl").read_text().splitlines()
    assert json.loads(held_out) == {"messages": [{"role": "user", "content": "Bread?"}], "mode": "helpful"}
