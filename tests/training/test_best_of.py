"""The best_of job on a tiny policy: what is kept, what is estimated, and a run that is killed."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.processes import together
from tests.training.results import names_of, runs_alike
from training import best_of
from training.best_of import BestOf, chosen, rows_of
from training.data.demonstrations import read_demonstrations
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, save_policy
from training.runs.run_folder import RunFolder
from training.sampling.rollouts import sample_seeds
from training.sampling.variants import Policy, Sampling, scores


def folder(path: Path, count: int = 5, **settings: object) -> Path:
    (path / "data").mkdir(parents=True)
    lines = [json.dumps({"prompt": f"Question {n}"}) for n in range(count)]
    (path / "data/prompts.jsonl").write_text("\n".join(lines))
    (path / "config.json").write_text(json.dumps({"max_new_tokens": 8, "slots": 8, "k": [1, 2, 4], **settings}))
    return path


@pytest.fixture
def test_pm(tiny_policy: Path, tmp_path: Path) -> Path:
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=8)
    pm.save(tmp_path / "test-pm", tokenizer)
    return tmp_path / "test-pm"


def test_a_whole_run_and_one_that_is_killed_are_the_same(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, test_pm: Path
):
    settings = {"model": str(tiny_policy), "preference_model": str(pm_path), "test_preference_model": str(test_pm)}
    path = folder(tmp_path / "run", **settings, median_of=3)
    assert best_of.main([str(path)]) == 0
    result = json.loads((path / "result.json").read_text())
    assert names_of(result) <= documented()
    first, *_, last = result["by_k"]
    assert [row["k"] for row in result["by_k"]] == [1, 2, 4]
    assert first["score_mean"] < result["by_k"][1]["score_mean"] < last["score_mean"]
    assert first["kl"] == first["kl_heuristic"] == 0 and 0 < last["kl"] < last["kl_heuristic"]
    parts = (path / "parts.jsonl").read_bytes()
    samples = [sample for line in parts.splitlines()[1:] for sample in json.loads(line)["found"]["samples"]]
    every = torch.tensor([sample["score"] for sample in samples])
    assert every.shape == (5, 4)
    assert first["score_mean"] == pytest.approx(float(every.mean()), abs=1e-6)
    assert last["score_mean"] == pytest.approx(float(every.max(1).values.mean()), abs=1e-6)
    best = every.argmax(1).tolist()
    judged = sum(sample["test_score"][place] for sample, place in zip(samples, best, strict=True)) / 5
    assert last["test_score_mean"] == pytest.approx(judged, abs=1e-6)
    threes = list(itertools.combinations(range(4), 3))
    medians = [[sorted(some, key=score.__getitem__)[1] for some in threes] for score in every.tolist()]
    middle = {
        name: sum(sample[name][place] for sample, places in zip(samples, medians, strict=True) for place in places) / 20
        for name in ("score", "test_score", "length")
    }
    assert result["median"]["k"] == 3 and last["score_mean"] > middle["score"]
    assert {name: result["median"][f"{name}_mean"] for name in middle} == pytest.approx(middle, abs=1e-6)
    picture = (path / "best_of.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and json.loads((path / "best_of.json").read_text())["series"]
    logged = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2, 3] and set(logged[0]) <= documented()

    kept = [read.messages[-1]["content"] for read in read_demonstrations(path / "replies.jsonl")]
    assert kept == [sample["replies"][chosen(sample["score"], 4, 3)] for sample in samples]

    again = folder(tmp_path / "again", **settings, median_of=3)
    (again / "parts.jsonl").write_bytes(b"\n".join(parts.split(b"\n")[:2]) + b'\n{"part": "prom')
    assert best_of.main([str(again)]) == 0
    found = json.loads((again / "result.json").read_text())
    assert found | {"seconds": 0} == result | {"seconds": 0}
    assert (again / "replies.jsonl").read_bytes() == (path / "replies.jsonl").read_bytes()
    assert (again / "best_of.png").read_bytes() == picture


def test_replies_that_all_end_early_are_chosen_from(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their tables are then the first columns of larger ones, which do not lie in one piece."""
    monkeypatch.setattr("training.sampling.engine.stop_tokens", lambda *_: frozenset(range(0, 264, 2)))
    path = folder(tmp_path / "run", model=str(tiny_policy), preference_model=str(pm_path), max_new_tokens=60)
    assert best_of.main([str(path)]) == 0
    assert json.loads((path / "result.json").read_text())["by_k"][-1]["length_mean"] < 50


def test_settings_may_not_change_under_parts(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    path = folder(tmp_path / "run", 2, model=str(tiny_policy), preference_model=str(pm_path), k=[1, 2])
    assert best_of.main([str(path)]) == 0
    (path / "result.json").unlink()
    assert best_of.main([str(path), "--k", "1,3"]) == 2
    assert "k was [1, 2] when" in json.loads((path / "failure.json").read_text())["reason"]


def test_a_policy_against_another_reads_its_replies(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    other, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        other.get_output_embeddings().weight[40:80] *= 2
    save_policy(tmp_path / "other", other, tokenizer)
    common = {"model": str(tiny_policy), "preference_model": str(pm_path), "k": [2]}
    results = []
    for name, opponent in (("a", ""), ("b", str(tmp_path / "other"))):
        path = folder(tmp_path / name, 2, opponent=opponent, **common)
        assert best_of.main([str(path)]) == 0
        results.append(json.loads((path / "parts.jsonl").read_text().splitlines()[1])["found"]["samples"][0])
    assert results[0]["score"] == results[1]["score"]
    assert results[0]["rival_score"] != results[1]["rival_score"]


def test_the_policy_that_answers_with_the_best_of_k(tiny_policy: Path, pm_path: Path) -> None:
    pm, tokenizer = PreferenceModel.load(pm_path)
    base, asked = Policy.load(tiny_policy), [[{"role": "user", "content": text}] for text in ("ash?", "elm")]
    sampling = Sampling(max_new_tokens=8)
    replies = BestOf(base, pm, 4).reply(asked, [5, 6], sampling)
    every = base.reply([asked[1]] * 4, sample_seeds(6, 0, 4), sampling)
    found = scores(pm, tokenizer, [asked[1]] * 4, every)
    assert replies.texts[1] == every.texts[int(found.argmax())]
    assert float(scores(pm, tokenizer, asked, replies)[1]) == pytest.approx(float(found.max()), abs=1e-5)
    turned = rows_of(replies, torch.tensor([1]))
    assert turned.texts == [replies.texts[1]] and bool(turned.generated.mask.any(0).all())


def test_what_is_chosen() -> None:
    assert chosen([1.0, 5.0, 3.0, 9.0], 3, 0) == 1
    assert chosen([1.0, 5.0, 3.0, 9.0], 4, 3) == 2
    assert len({*sample_seeds(0, 0, 64), *sample_seeds(0, 1, 64), *sample_seeds(1, 0, 64)}) == 192
    assert sample_seeds(0, 3, 64)[:4] == sample_seeds(0, 3, 4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"k": [0, 4]}, "k must be numbers from 1"),
        ({"k": []}, "k must be numbers"),
        ({"median_of": 4}, "median_of must be an odd number"),
        ({"preference_model": ""}, "preference_model is missing"),
        ({"max_new_tokens": 250}, "no prompt fits"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, tiny_policy: Path, pm_path: Path, settings: dict, reason: str):
    path = folder(tmp_path / "run", **({"model": str(tiny_policy), "preference_model": str(pm_path)} | settings))
    assert best_of.main([str(path)]) == 2
    assert reason in json.loads((path / "failure.json").read_text())["reason"]


@pytest.mark.parametrize(("text", "reason"), [(None, "is missing"), ("\n", "holds no prompt"), ("{}", "line 1")])
def test_prompts_that_are_none(tmp_path: Path, tiny_policy: Path, pm_path: Path, text: str | None, reason: str):
    path = folder(tmp_path / "run", model=str(tiny_policy), preference_model=str(pm_path))
    (path / "data/prompts.jsonl").unlink()
    if text is not None:
        (path / "data/prompts.jsonl").write_text(text)
    assert best_of.main([str(path)]) == 2
    assert reason in json.loads((path / "failure.json").read_text())["reason"]


def test_two_processes_give_what_one_gives(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    settings = {"model": str(tiny_policy), "preference_model": str(pm_path), "threads": 1}
    one, two = (RunFolder(folder(tmp_path / name, **settings)) for name in ("one", "two"))
    assert best_of.main([str(one.path)]) == 0
    assert together(2, lambda: best_of.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)
    lines = [(each.path / "replies.jsonl").read_text().splitlines() for each in (one, two)]
    assert [json.loads(line)["messages"] for line in lines[0]] == [json.loads(line)["messages"] for line in lines[1]]
    assert len(lines[1]) == 5 and len(two.metrics()) == 3
