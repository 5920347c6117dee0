"""Several policies on the same prompts: tournament, robustness and the line of scores against √KL."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.processes import together
from tests.training.results import interrupted, names_of, reason_of, result_of, run_folder
from training import robustness, sqrt_kl, tournament
from training.config import BadConfig, FieldConfig
from training.measuring.field import Judges
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, save_policy
from training.robustness import parted
from training.runs.curves import fitted_line, sqrt_kl_law
from training.tournament import ratings, wins_table

PROMPTS = [{"prompt": f"Question {n}"} for n in range(8)]
SCALE = 2.5  # of the other preference model's scores
SMALL = {"max_new_tokens": 6, "slots": 8}


@pytest.fixture(scope="module")
def others(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two policies further and further from the tiny one, as later snapshots are."""
    root, found = tmp_path_factory.mktemp("others"), []
    for number, factor in enumerate((1.3, 2.0)):
        model, tokenizer = load_policy(tiny_policy)
        with torch.no_grad():
            model.get_output_embeddings().weight[40:80] *= factor
        save_policy(root / str(number), model, tokenizer)
        found.append(str(root / str(number)))
    return found


@pytest.fixture(scope="module")
def other_pm(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("other-pm") / "model"
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=8)
    pm.scale = SCALE
    pm.save(path, tokenizer)
    return str(path)


def settings(tiny_policy: Path, others: list[str], pm_path: Path, **more: object) -> dict:
    named = [f"start={tiny_policy}", f"early={others[0]}", f"late={others[1]}"]
    return {**SMALL, "snapshots": named, "preference_model": str(pm_path), **more}


def test_a_tournament_and_one_that_is_killed(
    tmp_path: Path, tiny_policy: Path, others: list[str], pm_path: Path, other_pm: str
):
    given = settings(tiny_policy, others, pm_path, test_preference_model=other_pm)
    path = run_folder(tmp_path / "run", given, prompts=PROMPTS)
    assert tournament.main([str(path)]) == 0
    result = result_of(path)
    assert names_of(result) <= documented()
    start, early, late = result["snapshots"]
    nats = SCALE * (late["test_score_mean"] - start["test_score_mean"])  # of log-odds, which is what raw scores are
    assert late["test_elo_of_scores"] == pytest.approx(400 / math.log(10) * nats) != 0
    assert start["elo"] == 0.0 and abs(start["kl"]) < 1e-4 and start["elo_of_scores"] == 0
    assert 0.01 < early["kl"] < late["kl"]
    assert [(pair["snapshot"], pair["opponent"]) for pair in result["pairs"]] == [
        ("early", "start"), ("late", "start"), ("late", "early"),
    ]  # fmt: skip
    assert len(result["test_pairs"]) == 3 and result["pairs"] != result["test_pairs"]
    assert (path / "tournament.png").read_bytes().startswith(b"\x89PNG")
    again = run_folder(tmp_path / "again", given, prompts=PROMPTS)
    kept = (path / "parts.jsonl").read_bytes().split(b"\n")[:3]
    (again / "parts.jsonl").write_bytes(b"\n".join(kept) + b"\n{")
    assert tournament.main([str(again)]) == 0
    assert result_of(again) | {"seconds": 0} == result | {"seconds": 0}


def test_two_processes_measure_as_one_does(tmp_path: Path, tiny_policy: Path, others: list[str], pm_path: Path) -> None:
    given = settings(tiny_policy, others, pm_path, threads=1)
    one, two = (run_folder(tmp_path / name, given, prompts=PROMPTS) for name in ("one", "two"))
    assert tournament.main([str(one)]) == 0
    assert together(2, lambda: tournament.main([str(two)])) == [0, 0]
    for a, b in zip(result_of(one)["snapshots"], result_of(two)["snapshots"], strict=True):
        for name in ("score_mean", "kl", "length_mean", "eos_share"):
            assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-5), name


def test_a_snapshot_behind_a_prompt_is_another_policy(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    (tmp_path / "hhh.txt").write_text("Be kind. ")
    given = {
        **SMALL,
        "preference_model": str(pm_path),
        "snapshots": [f"plain={tiny_policy}", f"prompted={tiny_policy}"],
    }
    path = run_folder(tmp_path / "run", given | {"prefixes": [f"prompted={tmp_path}/hhh.txt"]}, prompts=PROMPTS)
    assert tournament.main([str(path)]) == 0
    assert result_of(path)["snapshots"][1]["kl_k3"] > 0.01


def test_wins_and_their_elo_by_hand() -> None:
    """On four prompts the second wins three: 400·log10(3) points, as in the equations' own test."""
    score = torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 0.0]])
    assert wins_table(score).sum(0).tolist() == [[2.0, 1.0], [3.0, 2.0]]
    first, second = ratings(score)
    assert (first["elo"], first["elo_error"]) == (0.0, 0.0)
    assert second["elo"] == pytest.approx(400 * math.log10(3))
    assert second["elo_ci95"][0] < second["elo"] < second["elo_ci95"][1]
    assert [row["elo"] for row in ratings(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))] == [0.0, None]


def test_a_hopeless_snapshot_takes_nobody_elses_elo() -> None:
    score = torch.tensor([[0.0, 0.0, 0.0, 1.0], [-9.0, -9.0, -9.0, -9.0], [1.0, 2.0, 3.0, 0.0]])
    first, hopeless, second = ratings(score)
    assert (first, second) == tuple(ratings(score[[0, 2]]))
    assert second["elo"] == pytest.approx(400 * math.log10(3))
    assert hopeless == {"elo": None, "elo_error": None, "elo_ci95": None}


def test_robustness_of_a_training(tmp_path: Path, tiny_policy: Path, others: list[str], pm_path: Path, other_pm: str):
    given = settings(tiny_policy, others, pm_path, test_preference_model=other_pm)
    many = [{"prompt": f"Question {n}"} for n in range(96)]  # enough for every KL to come out above 0
    path = run_folder(tmp_path / "run", given, prompts=many)
    assert robustness.main([str(path)]) == 0
    result = result_of(path)
    assert names_of(result) <= documented()
    assert result["prompts"] + result["centring_prompts"] == 96 and result["centring_prompts"] > 0
    for row in result["snapshots"]:
        assert row["gap"] == pytest.approx(row["train_score"] - row["test_score"], abs=1e-6)
    assert result["train_line"]["points"] == result["test_line"]["points"] == 3
    assert json.loads((path / "robustness.json").read_text())["series"][2]["label"] == "train − test"


def test_each_model_is_centred_on_replies_that_are_put_aside() -> None:
    """The first two prompts say where 0 is: 2·1.5 = 3 and 5; the last two are measured."""
    start = {"score": [1.0, 2.0, 1.0, 4.0], "test_score": [5.0, 5.0, 5.0, 7.0], "kl": [0.0] * 4}
    late = {"score": [9.0, 9.0, 6.0, 6.0], "test_score": [0.0, 0.0, 8.0, 8.0], "kl": [1.0, 1.0, 2.0, 4.0]}
    rows = parted({"start": start, "late": late}, {"score": 2.0, "test_score": 1.0}, [True, True, False, False])
    assert [row["train_score"] for row in rows] == [2.0, 9.0]  # 2·2.5 - 3 and 2·6 - 3
    assert [row["test_score"] for row in rows] == [1.0, 3.0]
    assert [row["gap"] for row in rows] == [1.0, 6.0]
    assert rows[1]["kl"] == 3.0
    # the measured scores are equal, so all that is left is the error of 0: deviation 2·√2 over all four, at two prompts
    reach = 1.959964 * 2 * math.sqrt(2) / math.sqrt(2)
    assert rows[1]["train_score_ci95"] == pytest.approx([9 - reach, 9 + reach])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """The policy has moved nowhere: about 5% of the intervals miss 0, and not the third that the measured prompts alone give."""
    draw, prompts, missed = torch.Generator().manual_seed(0), 200, {"train_score": 0, "test_score": 0, "gap": 0}
    aside = [number % 4 == 0 for number in range(prompts)]
    for _ in range(1000):
        shared, *own = (torch.randn(prompts, generator=draw, dtype=torch.float64) for _ in range(3))
        numbers = {"score": shared + own[0], "test_score": shared + own[1], "kl": own[0]}
        (row,) = parted(
            {"start": {name: x.tolist() for name, x in numbers.items()}}, {"score": 2.0, "test_score": 1.0}, aside
        )
        for name in missed:
            low, high = row[f"{name}_ci95"]
            missed[name] += not low <= 0 <= high
    assert all(30 <= count <= 75 for count in missed.values()), missed


def test_a_line_by_hand() -> None:
    """(0,0), (1,1), (2,1): slope ½, intercept 1/6, residual 1/6 of a spread of 2/3."""
    line = fitted_line([0, 1, 2], [0, 1, 1])
    assert line is not None
    assert (line["slope"], line["intercept"], line["r_squared"]) == pytest.approx((0.5, 1 / 6, 0.75))
    assert fitted_line([0, 1], [0, 1]) is None and fitted_line([1, 1, 1], [0, 1, 2]) is None
    law = sqrt_kl_law([0.0, 1.0, 4.0, 9.0, -0.1, 100.0], [1.0, 3.0, 5.0, 7.0, 9.0, 0.0], most=3.0)
    assert law["sqrt_kl"] is not None and law["kl"] is not None
    assert law["sqrt_kl"]["slope"] == pytest.approx(2) and law["sqrt_kl"]["r_squared"] == pytest.approx(1)
    assert law["sqrt_kl"]["points"] == 4 and law["kl"]["r_squared"] < 0.95


def test_the_line_of_a_policy_run_and_of_snapshots(tmp_path: Path, tiny_policy: Path, others: list[str], pm_path: Path):
    run = tmp_path / "policy"
    run.mkdir()
    lines = [{"step": 1, "kl": 0.0, "score_mean": 9.0, "critic_only": 1}]
    lines += [{"step": 2 + n, "kl": n**2 - 0.01 * (n == 0), "score_mean": 3.0 * n, "critic_only": 0} for n in range(5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = run_folder(tmp_path / "run", settings(tiny_policy, others, pm_path, runs=[f"mine={run}"]), prompts=PROMPTS)
    assert sqrt_kl.main([str(path)]) == 0
    result = result_of(path)
    assert names_of(result) <= documented()
    mine, sampled = result["curves"]
    assert (mine["curve"], mine["kl_below_zero"]) == ("mine", 1)
    assert mine["line"]["slope"] == pytest.approx(3) and mine["line"]["r_squared"] == pytest.approx(1)
    assert (mine["line"]["least"], mine["line"]["most"]) == (1.0, 4.0)
    assert sampled["curve"] == "snapshots"


@pytest.mark.parametrize("job", [robustness, sqrt_kl], ids=["robustness", "sqrt_kl"])
def test_a_run_that_is_interrupted_goes_on_with_the_snapshot_it_was_at(
    tmp_path: Path, tiny_policy: Path, others: list[str], pm_path: Path, other_pm: str, monkeypatch, job
) -> None:
    second = {"test_preference_model": other_pm} if job is robustness else {}
    given = settings(tiny_policy, others, pm_path, threads=1, **second)
    many = [{"prompt": f"Question {n}"} for n in range(24)]  # enough for every KL to come out above 0
    whole, broken = (run_folder(tmp_path / name, given, prompts=many) for name in ("whole", "broken"))
    assert job.main([str(whole)]) == 0
    asked = interrupted(monkeypatch, Judges, "scores", 2)  # the second of three snapshots has answered
    assert job.main([str(broken)]) == 130
    assert not (broken / "result.json").exists()
    assert job.main([str(broken)]) == 0
    assert len(asked) == 4
    assert result_of(broken) | {"seconds": 0} == result_of(whole) | {"seconds": 0}
    drawn = [(path / f"{job.__name__.rpartition('.')[2]}.json").read_bytes() for path in (whole, broken)]
    assert drawn[0] == drawn[1]
    assert len(json.loads(drawn[0])["series"][0]["x"]) == 3


@pytest.mark.parametrize(
    ("main", "change", "reason"),
    [
        (tournament.main, {"snapshots": []}, "snapshots needs 2 or more"),
        (tournament.main, {"preference_model": ""}, "preference_model is missing"),
        (robustness.main, {"centring_share": 1.0}, "centring_share must lie between"),
        (robustness.main, {}, "test_preference_model is missing"),
        (sqrt_kl.main, {"snapshots": []}, "runs and snapshots are both missing"),
        (sqrt_kl.main, {"runs": ["nowhere"]}, "nowhere is not a directory"),
        (sqrt_kl.main, {"least": 2.0, "most": 1.0}, "most must be above least"),
        (tournament.main, {"prefixes": ["nobody=x.txt"]}, "no snapshot here"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, tiny_policy: Path, others: list[str], pm_path: Path, main, change: dict, reason: str
):
    path = run_folder(tmp_path / "run", settings(tiny_policy, others, pm_path) | change, prompts=PROMPTS)
    assert main([str(path)]) == 2
    assert reason in reason_of(path)


def test_a_snapshot_that_reads_other_tokens_is_refused(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    model, tokenizer = load_policy(tiny_policy)
    save_policy(tmp_path / "other", model, tokenizer)
    words = json.loads((tmp_path / "other/tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (tmp_path / "other/tokenizer.json").write_text(json.dumps(words))
    (tmp_path / "other/manifest.json").unlink()
    given = {**SMALL, "snapshots": [str(tiny_policy), str(tmp_path / "other")], "preference_model": str(pm_path)}
    path = run_folder(tmp_path / "run", given, prompts=PROMPTS)
    assert tournament.main([str(path)]) == 2
    assert "reads other tokens" in reason_of(path)


def test_names_of_snapshots() -> None:
    assert FieldConfig(snapshots=("a=/x/y", "/x/z")).paths() == {"a": "/x/y", "/x/z": "/x/z"}
    with pytest.raises(BadConfig, match="there twice"):
        FieldConfig(snapshots=("/x", "/x")).paths()
