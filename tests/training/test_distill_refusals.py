"""What the distill job will not learn from: one text everywhere, and a teacher or a student without numbers."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.test_distill import bins_of, make_folder
from training.distill import main
from training.models.snapshots import load_policy, save_policy
from training.runs.run_folder import RunFolder


@pytest.mark.parametrize(
    ("lines", "settings", "reason"),
    [
        ([{"text": "ash"}] * 9, {}, "the text is the same in all 9 examples: the model would learn that one text; add others"),
        (
            [{"prompt": f"{n}?", "completion": "ash"} for n in range(9)], {"learn": "replies"},
            "the reply is the same in all 9 examples",
        ),
        ([{"text": "x" * 999}, *[{"text": "ash"}] * 8], {}, "the text is the same in all 8 examples"),
        ([{"text": "ash"}] * 8, {"source": "teacher"}, ""),
        ([{"text": "ash"}] * 7, {}, ""),
    ],
    ids=["texts", "replies", "but for what is left out", "what the teacher says differs", "few"],
)  # fmt: skip
def test_one_text_everywhere_is_refused(
    tmp_path: Path, tiny_policy: Path, lines: list[dict], settings: dict, reason: str
):
    path = make_folder(tmp_path / "run", tiny_policy, lines, [], held_out=0.0, **settings)
    (path / "data" / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main([str(path)]) == (2 if reason else 0)
    assert not reason or reason in json.loads((path / "failure.json").read_text())["reason"]


def test_a_teacher_that_says_the_same_everywhere_is_refused(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_folder(
        tmp_path / "run", tiny_policy, [], held_out=0.0, source="teacher", learn="replies", temperature=1e-4
    )
    (path / "data" / "prompts.jsonl").write_text((json.dumps({"prompt": "ash?"}) + "\n") * 8)
    assert main([str(path)]) == 2
    reason = json.loads((path / "failure.json").read_text())["reason"]
    assert "the reply is the same in all 8 examples" in reason and "a teacher that answers them differently" in reason


def tear_at_z(path: Path) -> None:
    """Give the policy a NaN that only texts with a Z meet."""
    model, tokenizer = load_policy(path)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("Z"), 0] = math.nan
    save_policy(path, model, tokenizer)


def test_a_teacher_without_numbers_is_refused_and_leaves_no_cache(tmp_path: Path, tiny_policy: Path, own_policy: Path):
    """The loss would take what it says for words without a chance, and be 0."""
    tear_at_z(own_policy)
    lines = [{"text": f"ash {n}"} for n in range(9)]
    for place, (train, reason) in enumerate(
        (
            (
                [*lines, {"text": "Zebra"}],
                "the teacher's log-probability is nan for a text of the train data: the weight ",
            ),
            ([{"text": "Zebra"}, *lines], "self-check failed: the model gives no numbers"),
        )
    ):
        path = make_folder(tmp_path / f"run-{place}", own_policy, train, [], student=str(tiny_policy))
        assert main([str(path)]) == 2
        assert reason in json.loads((path / "failure.json").read_text())["reason"]
        assert not bins_of(path / "teacher")


def test_a_student_without_numbers_is_refused_before_it_learns(tmp_path: Path, tiny_policy: Path, own_policy: Path):
    tear_at_z(own_policy)
    train = [{"text": f"ash {n}"} for n in range(9)]
    path = make_folder(tmp_path / "run", tiny_policy, train, [{"text": "Zebra"}], student=str(own_policy))
    assert main([str(path)]) == 2
    reason = json.loads((path / "failure.json").read_text())["reason"]
    assert (
        reason.startswith("held_out_kl is nan for the student as it begins: the weight ") and str(own_policy) in reason
    )
    assert not RunFolder(path).metrics()
