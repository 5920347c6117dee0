"""Win rates by hand, and a policy held against itself and against others."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.training.documented import documented
from training import evaluate
from training.measuring.contest import mean_ci95, room_for_prompts, win_rate
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, save_policy


def test_win_rate_counts_ties_half_with_the_wilson_interval() -> None:
    share, (low, high) = win_rate(torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 2.0, 1.0, 5.0]))
    assert share == 0.625
    assert low < 0.625 < high
    share, (low, high) = win_rate(torch.ones(100), torch.zeros(100))
    assert (share, high) == pytest.approx((1.0, 1.0))
    assert low == pytest.approx(100 / (100 + 1.96**2), abs=1e-5)  # Wilson at p = 1: n / (n + z²)


def test_mean_and_its_interval() -> None:
    mean, (low, high) = mean_ci95(torch.tensor([1.0, 3.0]))
    assert mean == 2.0
    assert high - mean == pytest.approx(1.959964) == mean - low  # deviation √2 over √2
    assert mean_ci95(torch.tensor([4.0])) == (4.0, [4.0, 4.0])


def folder(path: Path, **settings: object) -> Path:
    (path / "data").mkdir(parents=True)
    lines = [json.dumps({"prompt": f"Question {n}"}) for n in range(12)]
    (path / "data/prompts.jsonl").write_text("\n".join(lines))
    (path / "config.json").write_text(json.dumps({"max_new_tokens": 8, "slots": 4, **settings}))
    return path


def test_a_policy_against_itself(tmp_path: Path, tiny_policy: Path) -> None:
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=3)
    pm.save(tmp_path / "pm", tokenizer)
    path = folder(tmp_path / "run", model=str(tiny_policy), opponent=str(tiny_policy))
    assert evaluate.main([str(path), "--preference-model", str(tmp_path / "pm")]) == 0
    result = json.loads((path / "result.json").read_text())
    assert result["prompts"] == 12
    assert result["kl"] == pytest.approx(0, abs=1e-4)
    assert result["win_rate_ci95"][0] < 0.5 < result["win_rate_ci95"][1]
    assert 1 <= result["length_mean"] <= 8
    assert set(result) <= documented()


def test_the_kl_of_a_reply_is_its_log_ratio(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    """k1 of single replies falls on both sides of 0, where k2 and k3 never do; the means agree."""
    other, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        other.get_output_embeddings().weight[40:80] *= 1.2
    save_policy(tmp_path / "other", other, tokenizer)
    path = folder(
        tmp_path / "run", model=str(tiny_policy), opponent=str(tmp_path / "other"), preference_model=str(pm_path)
    )
    assert evaluate.main([str(path)]) == 0
    (part,) = [json.loads(line) for line in (path / "parts.jsonl").read_text().splitlines()[1:]]
    found = part["found"]
    assert min(found["kl"]) < 0 < max(found["kl"]) and min(found["kl_k3"]) >= 0
    result = json.loads((path / "result.json").read_text())
    assert result["kl"] == pytest.approx(sum(found["kl"]) / 12)
    assert result["kl_k3"] == pytest.approx(sum(found["kl_k3"]) / 12)


def test_a_run_that_is_killed_goes_on_with_the_next_part(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        other.get_output_embeddings().weight[40:80] *= 1.5
    save_policy(tmp_path / "other", other, tokenizer)
    given = {
        "model": str(tmp_path / "other"),
        "opponent": str(tiny_policy),
        "preference_model": str(pm_path),
        "threads": 1,
    }
    folders = [folder(tmp_path / name, part_prompts=5, **given) for name in ("whole", "killed")]
    for path in folders:
        with (path / "data/prompts.jsonl").open("a") as file:
            file.write("\n" + json.dumps({"prompt": "x" * 999}))
    assert evaluate.main([str(folders[0])]) == 0
    result = json.loads((folders[0] / "result.json").read_text())
    assert result["prompts"] == 12 and result["left_out"] == {"shortened": 0, "over_long": 1}
    assert "prompts: left out 1 too long for a context" in capsys.readouterr().err
    lines = (folders[0] / "parts.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["part"] for line in lines[1:-1]] == ["prompts 0", "prompts 5", "prompts 10"]
    kept = json.loads(lines[1])
    kept["found"]["score"] = [1e6] * 5  # told from what would be measured anew
    # killed in the second part, while it wrote
    (folders[1] / "parts.jsonl").write_bytes(
        lines[0].replace(b"whole", b"killed") + b"\n" + json.dumps(kept).encode() + b"\n" + lines[2][:9]
    )
    assert evaluate.main([str(folders[1])]) == 0
    again = json.loads((folders[1] / "result.json").read_text())
    assert again["score_after"] > 1e5 and again["win_rate"] >= 5 / 12
    same = {"kl", "kl_ci95", "score_before", "length_mean", "perplexity", "eos_share", "prompts"}
    assert {name: again[name] for name in same} == {name: result[name] for name in same}


def test_a_setting_that_a_begun_run_refuses_is_not_kept(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    given = {"model": str(tiny_policy), "opponent": str(tiny_policy), "preference_model": str(pm_path), "threads": 1}
    path = folder(tmp_path / "run", part_prompts=5, **given)
    assert evaluate.main([str(path)]) == 0
    (path / "result.json").unlink()
    before = (path / "config.json").read_text()
    assert evaluate.main([str(path), "--opponent", str(tmp_path / "other")]) == 2
    assert "opponent was" in json.loads((path / "failure.json").read_text())["reason"]
    assert (path / "config.json").read_text() == before
    assert evaluate.main([str(path)]) == 0


def test_parts_do_not_change_what_is_found_and_the_plot_shows_the_share_that_is_lost(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    given = {"model": str(tiny_policy), "opponent": str(tiny_policy), "preference_model": str(pm_path), "threads": 1}
    results = []
    for part in (5, 100):
        path = folder(tmp_path / str(part), part_prompts=part, **given)
        assert evaluate.main([str(path)]) == 0
        results.append(json.loads((path / "result.json").read_text()))
    for name, value in results[0].items():
        if name not in ("seconds", "left_out"):
            assert results[1][name] == pytest.approx(value, abs=1e-5), name
    drawn = json.loads((path / "evaluate.json").read_text())["series"][0]
    assert (path / "evaluate.png").stat().st_size > 1000
    lost = [share for gained, share in zip(drawn["x"], drawn["y"], strict=True) if gained < 0]
    assert max(lost, default=0.0) == pytest.approx(1 - results[1]["win_rate"])


def test_the_divergence_from_another_policy_is_positive(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    other, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        other.get_output_embeddings().weight[40:80] *= 2
    save_policy(tmp_path / "other", other, tokenizer)
    path = folder(
        tmp_path / "run", model=str(tiny_policy), opponent=str(tmp_path / "other"), preference_model=str(pm_path)
    )
    assert evaluate.main([str(path)]) == 0
    result = json.loads((path / "result.json").read_text())
    assert result["kl"] > 0.1 and result["kl_k3"] > 0.1
    assert result["kl_ci95"][0] < result["kl"] < result["kl_ci95"][1]


def test_an_opponent_that_reads_other_tokens_is_refused(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    model, tokenizer = load_policy(tiny_policy)
    save_policy(tmp_path / "other", model, tokenizer)
    words = json.loads((tmp_path / "other/tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (tmp_path / "other/tokenizer.json").write_text(json.dumps(words))
    (tmp_path / "other/manifest.json").unlink()
    path = folder(
        tmp_path / "run", model=str(tiny_policy), opponent=str(tmp_path / "other"), preference_model=str(pm_path)
    )
    assert evaluate.main([str(path)]) == 2
    assert "the opponent reads other tokens" in json.loads((path / "failure.json").read_text())["reason"]


def test_the_shortest_context_decides_how_long_a_prompt_may_be() -> None:
    long, short = SimpleNamespace(max_position_embeddings=512), SimpleNamespace(max_position_embeddings=256)
    assert room_for_prompts([long, short], 100) == 155
    assert room_for_prompts([long], 100) == 411


def test_a_missing_directory_is_named(tmp_path: Path, tiny_policy: Path) -> None:
    path = folder(tmp_path / "run", model=str(tiny_policy))
    assert evaluate.main([str(path)]) == 2
    assert "opponent" in json.loads((path / "failure.json").read_text())["reason"]
