"""Four curves: what a preference model foretells of snapshots beside what people chose between them, by hand and as a job."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.results import names_of, reason_of, result_of, run_folder
from training import crowd
from training.lines.records import Comparison, parse_line
from training.measuring.choices import Choice, choice_wins, elo_of_scores, units, writer
from training.models.snapshots import load_policy, save_policy

NAT = 400 / math.log(10)


def line(chosen: str | None, rejected: str | None, number: int = 0, **more: object) -> dict:
    """A comparison as the export whetstone writes it."""
    return {
        "prompt": f"Question {number}", "chosen": f"Good {number}", "rejected": f"Bad {number}", "strength": 3,
        "person": f"p{number % 6}", "chosen_reply": {"snapshot": chosen}, "rejected_reply": {"snapshot": rejected}, **more,
    }  # fmt: skip


def read(*lines: dict) -> list[Comparison]:
    return [parse_line(json.dumps(each), 1) for each in lines]


def test_curves_by_hand() -> None:
    """The crowd says 3 to 1, the model by its choices 2 to 2, by its mean scores a nat."""
    choices = [Choice("late", "start", unit) for unit in "abc"] + [Choice("start", "late", "d")]
    score = torch.tensor([[3.0, 0.0], [3.0, 2.0], [1.0, 2.0], [1.0, 2.0]])  # late: 3, 3, 1, 2; start: 0, 2, 2, 1
    start, late = crowd.curves(["start", "late"], choices, score)
    assert (start["crowd_elo"], start["choices_elo"], start["scores_elo"], start["met"]) == (0, 0, 0, 4)
    assert late["crowd_elo"] == pytest.approx(400 * math.log10(3))
    assert late["choices_elo"] == pytest.approx(
        400 * math.log10(3)
    )  # late scores higher in the first, second and fourth
    assert late["scores_elo"] == pytest.approx(NAT)  # means 9/4 and 5/4
    tied = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert crowd.curves(["start", "late"], choices, tied)[1]["choices_elo"] == pytest.approx(0)  # 1, ½, 0 and ½ of four
    swept = crowd.curves(["start", "late"], choices[:3], score[:3])[1]
    assert (swept["crowd_elo"], swept["crowd_elo_ci95"]) == (None, None)
    assert swept["scores_elo"] == pytest.approx(NAT)  # 7/3 and 4/3: means have an Elo where wins have none


def test_the_error_of_mean_scores_by_hand() -> None:
    """Units whose replies differ by 2 and by 0: a mean of 1 nat with the standard error 1, as of paired differences."""
    choices = [Choice("late", "start", "a"), Choice("start", "late", "b")]
    _, late = elo_of_scores(["start", "late"], choices, torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
    assert late["elo"] == pytest.approx(NAT)
    assert late["elo_ci95"] == pytest.approx([(1 - 1.959964) * NAT, (1 + 1.959964) * NAT])
    # the same comparisons twice in their units are no new evidence
    doubled = elo_of_scores(["start", "late"], choices * 2, torch.tensor([[2.0, 0.0], [1.0, 1.0]] * 2))
    assert doubled[1]["elo_ci95"] == pytest.approx(late["elo_ci95"])
    alone = elo_of_scores(["start", "late"], choices[:1], torch.tensor([[2.0, 0.0]]))
    assert alone[1]["elo_ci95"] is None


def test_wins_lie_with_their_units() -> None:
    choices = [Choice("b", "a", "x"), Choice("b", "a", "x"), Choice("a", "b", "y")]
    wins = choice_wins(["a", "b"], choices, torch.tensor([1.0, 0.5, 0.0]))
    assert wins.tolist() == [[[0, 0.5], [1.5, 0]], [[0, 0], [1, 0]]]


def test_who_wrote_it_and_who_is_drawn_anew() -> None:
    known = read(line("a", "b"))[0]
    assert (writer(known, "chosen"), writer(known, "rejected")) == ("a", "b")
    assert writer(read(line(None, "b"))[0], "chosen") is None
    assert writer(read(line("a", "b", chosen_reply="a"))[0], "chosen") is None
    six = read(*(line("a", "b", number, conversation="c") for number in range(6)))
    assert units(six) == ("people", [f"named p{number}" for number in range(6)])
    assert units(six[:4]) == ("conversations", ["named c"] * 4)  # too few people to say how people differ
    assert units(read(line("a", "b", 7, person=None)))[1] == ["line 0"]


def test_what_is_no_contest_is_told() -> None:
    told: Counter[str] = Counter()
    kept = crowd.contested(read(line("a", "b"), line(None, "b"), line("a", "a"), line("a", "c")), told)
    assert (len(kept), dict(told)) == (2, {"unnamed": 1, "one_model": 1})


@pytest.fixture
def late(tiny_policy: Path, tmp_path: Path) -> str:
    model, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        model.get_output_embeddings().weight[40:80] *= 1.5
    save_policy(tmp_path / "late", model, tokenizer)
    return str(tmp_path / "late")


def test_a_job_and_one_that_is_killed(tmp_path: Path, tiny_policy: Path, late: str, pm_path: Path) -> None:
    people = [line("late", "start", n) for n in range(8)] + [line("start", "late", n) for n in range(8, 12)]
    people += [line("best-of", "start", 12), line("start", "best-of", 13), line("late", "late", 14), line(None, "late", 15),
               line("late", "start", 16, strength=1), line("late", "start", 17) | {"chosen": "Bad 17"}]  # fmt: skip
    given = {"max_new_tokens": 6, "slots": 8, "snapshots": [f"start={tiny_policy}", f"late={late}"],
             "preference_model": str(pm_path), "batch_comparisons": 5}  # fmt: skip
    path = run_folder(tmp_path / "run", given, prompts=[{"prompt": f"Question {n}"} for n in range(8)], crowd=people)
    assert crowd.main([str(path)]) == 0
    result = result_of(path)
    assert names_of(result) <= documented()
    assert [row["snapshot"] for row in result["snapshots"]] == ["start", "late", "best-of"]
    start, second, best = result["snapshots"]
    assert start["held_out_elo"] == start["crowd_elo"] == 0
    assert second["crowd_elo"] == pytest.approx(400 * math.log10(2))
    assert best["crowd_elo"] == pytest.approx(0) and best["held_out_elo"] is None and best["scores_elo"] is not None
    assert second["held_out_elo_ci95"][0] < second["held_out_elo"] < second["held_out_elo_ci95"][1]
    assert (result["comparisons"], result["units"], result["prompts"]) == (14, {"people": 6}, 8)
    assert result["crowd_left_out"] == {"unnamed": 1, "one_model": 1, "weakest": 1, "same_tokens": 1, "shortened": 0}
    assert 0 <= result["agreement"] <= 1
    drawn = json.loads((path / "crowd.json").read_text())
    assert drawn["names"] == ["start", "late", "best-of"] and len(drawn["series"]) >= 3
    again = run_folder(tmp_path / "again", given, prompts=[{"prompt": f"Question {n}"} for n in range(8)], crowd=people)
    kept = (path / "parts.jsonl").read_bytes().split(b"\n")[:4]  # the settings, both snapshots, one part of comparisons
    (again / "parts.jsonl").write_bytes(b"\n".join(kept) + b"\n{")
    assert crowd.main([str(again)]) == 0
    assert result_of(again) | {"seconds": 0} == result | {"seconds": 0}


def test_what_cannot_be_used_is_said(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    given = {"max_new_tokens": 6, "snapshots": [f"start={tiny_policy}"], "preference_model": str(pm_path)}
    prompts = [{"prompt": "Question"}]
    missing = run_folder(tmp_path / "missing", given, prompts=prompts)
    assert crowd.main([str(missing)]) == 2
    assert "crowd.jsonl is missing" in reason_of(missing)
    nobody = run_folder(tmp_path / "nobody", given, prompts=prompts, crowd=[line("a", "b")])
    assert crowd.main([str(nobody)]) == 2
    assert "never compared a reply of 'start'" in reason_of(nobody) and "a, b" in reason_of(nobody)
    alone = run_folder(tmp_path / "alone", given, prompts=prompts, crowd=[line("start", None)])
    assert crowd.main([str(alone)]) == 2
    assert "1 with a reply that names no snapshot" in reason_of(alone)
