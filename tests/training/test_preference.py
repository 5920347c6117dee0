"""The preference job: it learns what can be learnt, goes on after a kill, and refuses what it cannot use."""

import json
import math
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.processes import killed, started, together
from training import preference
from training.config import PreferenceConfig
from training.data.batches import Ranked, order, tokenised
from training.failure import JobFailed
from training.lines.records import comparison_of, read_records
from training.models.models import PreferenceModel
from training.models.snapshots import check_snapshot, render, render_reply
from training.preference import main
from training.reading.reading import Reader
from training.runs.run_folder import RunFolder
from training.supervised.fitting import chosen_learning_rate, rate_share
from training.trunk import FusedTrunk
from training.trunk.packing import Group, Packed

WORDS = ["ash", "birch", "cedar", "dill", "elm", "fir"]


def comparisons(count: int, seed: int = 0, **beside: object) -> list[dict]:
    """Pairs in which the reply with an exclamation mark is the better one."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        good, bad = (" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(2))
        prompt = [{"role": "user", "content": f"{draw.choice(WORDS)} {number}"}]
        made.append(
            {
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": good + "!"}],
                "rejected": [{"role": "assistant", "content": bad + "."}],
                **beside,
            }
        )
    return made


def make_folder(path: Path, train: list[dict], test: list[dict] | None = None, **settings: object) -> Path:
    (path / "data").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"learning_rate": 3e-3, **settings}))
    (path / "data" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in train))
    if test is not None:
        (path / "data" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in test))
    return path


def timeless(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_visible_difference_is_learnt_and_reported(tmp_path: Path, tiny_policy: Path):
    test = comparisons(40, seed=1, mode="helpful", strength=3) + comparisons(20, seed=2, mode="red_team", strength=2)
    path = make_folder(tmp_path / "run", comparisons(320) + comparisons(5, strength=1), test)
    assert main([str(path), "--model", str(tiny_policy)]) == 0
    result = json.loads((path / "result.json").read_text())
    assert result["accuracy"] >= 0.95
    assert result["accuracy_ci95"][0] < result["accuracy"] <= result["accuracy_ci95"][1] <= 1
    assert result["log_loss"] < 0.3 and 0 <= result["calibration_error"] < 0.3
    assert (result["pairs"], result["test_pairs"], result["updates"]) == (320, 60, 20)
    assert result["dropped"] == {"train": {"weakest": 5}, "test": {}}
    assert {k: v["pairs"] for k, v in result["accuracy_by_mode"].items()} == {"helpful": 40, "red_team": 20}
    assert {k: v["pairs"] for k, v in result["accuracy_by_strength"].items()} == {"2": 20, "3": 40}
    lines = RunFolder(path).metrics()
    assert {*lines[0], *result, *result["calibration_bins"][0], *result["accuracy_by_mode"]["helpful"]} <= documented()
    assert [(line["step"], line["of"]) for line in lines] == [(n, 20) for n in range(1, 21)]
    filled = [each for each in result["calibration_bins"] if each["count"]]
    curve = json.loads((path / "calibration.json").read_text())["series"][0]
    assert (curve["x"], curve["y"]) == ([b["confidence"] for b in filled], [b["accuracy"] for b in filled])
    assert all(low <= share <= high for low, share, high in zip(curve["low"], curve["y"], curve["high"], strict=True))
    assert (path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    model, tokenizer = PreferenceModel.load(path / "model")
    scores = []
    for reply in ("elm!", "elm."):
        row = torch.tensor([render(tokenizer, [{"role": "user", "content": "fir"}]) + render_reply(tokenizer, reply)])
        scores.append(model.scores(row, torch.tensor([row.shape[1] - 1])).item())
    assert scores[0] > scores[1]
    assert check_snapshot(path / "model").provenance["accuracy"] == result["accuracy"]
    again = (path / "result.json").stat().st_mtime_ns
    assert main([str(path)]) == 0  # finished: nothing is done twice
    assert (path / "result.json").stat().st_mtime_ns == again


def test_scores_are_normalised_on_the_replies_of_training(tmp_path: Path, tiny_policy: Path):
    path = make_folder(tmp_path / "run", comparisons(48), [], model=str(tiny_policy))
    assert main([str(path)]) == 0
    result = json.loads((path / "result.json").read_text())
    assert result["accuracy"] is None and result["test_pairs"] == 0  # nothing measured, nothing claimed
    model, tokenizer = PreferenceModel.load(path / "model")
    pairs, _, _ = tokenised(
        read_records(path / "data/train.jsonl", comparison_of), tokenizer, max_tokens=256, weakest_strength=1
    )
    raw = torch.tensor(Reader(model, pad=tokenizer.pad_token_id).scores_of(pairs)).flatten()
    assert ((raw - model.shift) / model.scale).mean().item() == pytest.approx(0, abs=1e-4)
    assert ((raw - model.shift) / model.scale).std(correction=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_run_killed_twice_gives_the_numbers_of_an_uninterrupted_one(tmp_path: Path, tiny_policy: Path):
    train, test = comparisons(240), comparisons(20, seed=1)
    settings = {"checkpoint_steps": 4, "batch_prompts": 8, "threads": 1, "model": str(tiny_policy)}
    whole, other = (RunFolder(make_folder(tmp_path / name, train, test, **settings)) for name in ("whole", "killed"))
    assert together(1, lambda: main([str(whole.path)])) == [0]
    for lines in (6, 17):
        killed(other, started(1, lambda: main([str(other.path)])), lines)
    # as its owner would start it: nothing that a process keeps for itself reaches the numbers
    command = [sys.executable, "-m", "training.preference", str(other.path)]
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode == 0
    assert len(whole.metrics()) == 30
    assert timeless(whole.metrics()) == timeless(other.metrics())
    assert timeless([whole.result()]) == timeless([other.result()])
    for file in ("model.safetensors", "head.safetensors"):
        assert (whole.model / file).read_bytes() == (other.model / file).read_bytes()


def test_a_resume_in_the_same_process_continues_bit_for_bit(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    train = comparisons(64)
    settings = {"checkpoint_steps": 1, "batch_prompts": 8, "model": str(tiny_policy)}
    whole = make_folder(tmp_path / "whole", train, [], **settings)
    stopped = make_folder(tmp_path / "stopped", train, [], **settings)
    assert main([str(whole)]) == 0

    class Killed(BaseException):
        pass

    update = preference.Fit.update
    monkeypatch.setattr(
        preference.Fit,
        "update",
        lambda self, batch: update(self, batch) if self.step < 5 else (_ for _ in ()).throw(Killed),
    )
    with pytest.raises(Killed):
        main([str(stopped)])
    monkeypatch.undo()
    assert len(RunFolder(stopped).metrics()) == 5
    assert main([str(stopped)]) == 0
    assert timeless(RunFolder(whole).metrics()) == timeless(RunFolder(stopped).metrics())


@pytest.mark.parametrize(
    ("train", "settings", "reason"),
    [
        ([], {}, "train.jsonl holds no comparison"),
        ([{"chosen": "x"}], {}, "line 1 of train.jsonl: has no 'rejected'"),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 3,
            {},
            "none of the 3 comparisons can be learnt from: 3 with equal replies once tokenised",
        ),
        (comparisons(3, strength=1), {}, "none of the 3 comparisons can be learnt from: 3 of the weakest strength"),
        (comparisons(3), {"max_tokens": 5}, "3 longer than the model can read"),
        (comparisons(3), {"learning_rate": float("nan")}, "learning_rate must be a number, not nan"),
        (comparisons(3), {"mode_weights": {"a": float("inf")}}, "mode_weights.a must be a number, not inf"),
        (comparisons(3), {"shift_on": "demonstrations", "model": "/nowhere"}, "demonstrations.jsonl is missing"),
        (comparisons(3), {"epoch": 1}, "unknown setting 'epoch'"),
        (comparisons(3), {"model": ""}, "model is missing"),
        (comparisons(3), {"model": "/nowhere"}, "/nowhere is not a directory"),
    ],
)
def test_bad_input_is_refused_with_the_reason_on_disk(
    tmp_path: Path, tiny_policy: Path, train: list[dict], settings: dict, reason: str, capsys: pytest.CaptureFixture
):
    path = make_folder(tmp_path / "run", train, [], **({"model": str(tiny_policy)} | settings))
    assert main([str(path)]) == 2
    assert reason in json.loads((path / "failure.json").read_text())["reason"]
    assert reason in capsys.readouterr().err
    assert not (path / "result.json").exists()


def test_what_is_left_out_and_what_is_not_measured_is_said(
    tmp_path: Path, tiny_policy: Path, capsys: pytest.CaptureFixture
):
    long = comparisons(1)[0] | {"chosen": [{"role": "assistant", "content": "word " * 900}]}
    path = make_folder(tmp_path / "run", [*comparisons(9), long], [], model=str(tiny_policy), held_out=0.0)
    assert main([str(path)]) == 0
    told = capsys.readouterr().err
    assert "train data: left out 1 longer than the model can read" in told
    assert "no comparison is held out" in told


def test_conversations_that_learn_and_measure_are_counted_and_said(
    tmp_path: Path, tiny_policy: Path, capsys: pytest.CaptureFixture
):
    said = [line | {"conversation": number // 2} for number, line in enumerate(comparisons(24))]
    path = make_folder(tmp_path / "run", said[:20], said[17:], model=str(tiny_policy))
    assert main([str(path)]) == 0
    assert RunFolder(path).result()["shared_conversations"] == 2
    assert "warning: 2 conversations of the test are in training too" in capsys.readouterr().err
    path = make_folder(tmp_path / "apart", said[:20], said[20:], model=str(tiny_policy))
    assert main([str(path)]) == 0
    assert RunFolder(path).result()["shared_conversations"] == 0
    assert "are in training too" not in capsys.readouterr().err


def test_scores_shifted_on_nothing_are_refused_before_any_step(
    tmp_path: Path, tiny_policy: Path, capsys: pytest.CaptureFixture
):
    path = make_folder(tmp_path / "run", comparisons(9), [], model=str(tiny_policy), shift_on="held_out")
    assert main([str(path)]) == 2
    assert "nothing was held out" in capsys.readouterr().err
    assert not RunFolder(path).metrics()


def test_data_that_is_a_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "data" / "train.jsonl").mkdir(parents=True)
    assert main([str(tmp_path), "--model", "x"]) == 2
    assert "train.jsonl is not a file" in capsys.readouterr().err


def test_missing_data_or_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([str(tmp_path / "none")]) == 2
    assert "is not a directory" in capsys.readouterr().err
    assert main([str(tmp_path), "--model", "x"]) == 2
    assert "train.jsonl is missing" in json.loads((tmp_path / "failure.json").read_text())["reason"]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    weak = comparisons(1, strength=1)  # left out, so that the examples' numbers are not the lines'
    path = make_folder(
        tmp_path / "run", weak + comparisons(64), [], model=str(tiny_policy), batch_prompts=8, checkpoint_steps=2
    )
    update = preference.Fit.update

    def poisoned(self: preference.Fit, batch: list[int]) -> dict[str, float]:
        if self.step == 5:
            with torch.no_grad():
                self.model.head.weight[0, 0] = math.nan
        return update(self, batch)

    monkeypatch.setattr(preference.Fit, "update", poisoned)
    assert main([str(path)]) == 2
    reason = json.loads((path / "failure.json").read_text())["reason"]
    lines = ", ".join(str(number + 2) for number in order(64, 8, 0, 0)[5][:4])
    assert f"loss is nan at step 6 (lines {lines}, … of the training data)" in reason
    checkpoint = RunFolder(path).load_checkpoint()
    assert checkpoint is not None and checkpoint.step == 4
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
    monkeypatch.undo()
    assert main([str(path)]) == 0  # the failure is forgotten with the next start
    assert not (path / "failure.json").exists()


def test_the_self_check_finds_a_model_that_looks_at_its_company(tiny_policy: Path):
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=0)
    reader = Reader(model, pad=tokenizer.pad_token_id)
    pairs = [Ranked([1, 2], ([3, 4, 257], [5, 257]), (1, 2)), Ranked([6], ([7, 257], [8, 9, 10, 257]), (1, 2))]
    reader.self_check(pairs)

    def leak(_module, _inputs, found):
        found.last_hidden_state.add_(len(found.last_hidden_state) - 1)

    model.backbone.register_forward_hook(leak)
    with pytest.raises(JobFailed, match="self-check failed: replies read together score unlike each alone"):
        reader.self_check(pairs)


def test_the_self_check_finds_replies_that_see_each_other(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=0)
    reader = Reader(model, pad=tokenizer.pad_token_id)
    hidden = FusedTrunk.hidden
    one_row = lambda row: Packed(row.tokens, row.positions, (Group(0, 0, (len(row.tokens),)),))
    monkeypatch.setattr(FusedTrunk, "hidden", lambda self, row, columns: hidden(self, one_row(row), columns))
    with pytest.raises(JobFailed, match="self-check failed: replies read together score unlike each alone"):
        reader.self_check([Ranked([1, 2], ([3, 4, 257], [5, 257]), (1, 2))])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_reading_fused_or_plain_gives_the_same_scores_words_and_gradients(
    family: str, built_policies, monkeypatch: pytest.MonkeyPatch
):
    model, tokenizer = PreferenceModel.from_policy(built_policies(family), seed=0, words=True)
    elements = [Ranked([1, 2, 9], ([3, 4, 257], [5, 257], [7, 7, 8, 257]), (1, 2, 3)), Ranked([6], ([7, 257],), (1,))]
    found = []
    for fused in ("1", "0"):
        monkeypatch.setenv("WHETSTONE_FUSED", fused)
        for words in ("none", "best", "all"):
            model.zero_grad()
            read = Reader(model, pad=tokenizer.pad_token_id).read(elements, words=words)
            assert (read.words is None) == (words == "none")
            (read.scores.square().sum() + (0 if read.words is None else read.words.sum())).backward()
            gradients = [part.grad for part in model.parameters() if part.grad is not None]
            found.append([read.scores, *([] if read.words is None else [read.words]), *gradients])
    for fused_read, plain in zip(found[:3], found[3:], strict=True):
        for mine, other in zip(fused_read, plain, strict=True):
            assert (mine - other).abs().max() <= 1e-5 * (1 + other.abs().max())


def test_parts_of_packed_elements_are_even(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=0)
    reader = Reader(model, pad=tokenizer.pad_token_id)
    reader.budget = 100
    elements = [Ranked([1] * (size - 2), ([2], [3]), (1, 2)) for size in (40, 30, 30, 40, 300, 20)]
    assert [[element.tokens for element in part] for part in reader.parts(elements)] == [
        [40, 30, 30],
        [40],
        [300],
        [20],
    ]
    assert [len(part) for part in reader.parts(elements[:4])] == [2, 2]  # 70 and 70, not 100 and 40
    monkeypatch.setenv("WHETSTONE_FUSED", "0")  # rows: as many as fit at the length of the longest
    assert [[element.tokens for element in part] for part in reader.parts(elements)] == [[20, 30, 30], [40, 40], [300]]


def test_scores_of_come_in_the_order_given(tiny_policy: Path):
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=0)
    reader = Reader(model, pad=tokenizer.pad_token_id)
    pairs = [Ranked([n] * length, ([n, 257], [n, n, 257]), (1, 2)) for n, length in ((1, 50), (2, 3), (3, 90), (4, 7))]
    reader.budget = 120
    for pair, scores in zip(pairs, reader.scores_of(pairs), strict=True):
        assert scores == pytest.approx(reader.scores_of([pair])[0], abs=1e-5)


def test_the_learning_rate_rises_then_falls_to_its_share():
    config = PreferenceConfig(warmup_share=0.1, final_share=0.1)
    shares = [rate_share(step, 100, config) for step in range(1, 101)]
    assert shares[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert shares[-1] == pytest.approx(0.1) and shares[54] == pytest.approx(0.55)
    assert all(a >= b for a, b in pairwise(shares[9:]))
    assert rate_share(1, 1, config) == 1.0
    linear = PreferenceConfig(schedule="linear", warmup_share=0.0, final_share=0.0)
    assert [rate_share(step, 5, linear) for step in (1, 3, 5)] == pytest.approx([1.0, 0.6, 0.2])  # 0 is the next one's
    assert rate_share(50, 100, PreferenceConfig(schedule="constant")) == 1.0
    assert chosen_learning_rate(PreferenceConfig(learning_rate=7e-4), 4096) == 7e-4
    assert chosen_learning_rate(PreferenceConfig(), 4096) == 1e-5


def test_the_language_term_teaches_the_chosen_words(tmp_path: Path, tiny_policy: Path):
    path = make_folder(tmp_path / "run", comparisons(64), [], model=str(tiny_policy), lm_weight=1.0)
    assert main([str(path)]) == 0
    losses = [line["words_loss"] for line in RunFolder(path).metrics()]
    assert losses[0] > 4 and losses[-1] < losses[0] - 0.3  # a byte drawn at random costs ln 264 = 5.6
    assert set(RunFolder(path).metrics()[0]) <= documented()


def test_the_online_accuracy_is_over_pairs_not_over_batches(tmp_path: Path, tiny_policy: Path):
    settings = {"batch_prompts": 8, "epochs": 2, "learning_rate": 1e-6}  # so slow that the accuracies stay apart
    path = make_folder(tmp_path / "run", comparisons(44), [], model=str(tiny_policy), **settings)
    assert main([str(path)]) == 0
    late = RunFolder(path).metrics()[3:6]  # the first epoch has batches of 8, 8, 8, 8, 8 and 4 pairs
    expected = (8 * late[0]["accuracy"] + 8 * late[1]["accuracy"] + 4 * late[2]["accuracy"]) / 20
    assert RunFolder(path).result()["online_accuracy"] == pytest.approx(expected)
    assert expected != pytest.approx(sum(line["accuracy"] for line in late) / 3)  # or the test would say nothing
