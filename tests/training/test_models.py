"""The preference model scores a conversation on its end token, whatever lies around it."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.data.batches import Ranked
from training.data.padding import right_padded
from training.models.models import PreferenceModel
from training.models.snapshots import BadSnapshot, check_snapshot, load_policy, write_manifest

PAD, END = 258, 257
PAIRS = [
    Ranked(list(range(5)), ([*range(7), END], [*range(50, 53), END]), (1, 2)),
    Ranked(list(range(30, 39)), ([*range(20), END], [END]), (1, 2)),
    Ranked(list(range(60, 90)), ([1, END], [*range(50, 55), END], [*range(3), END]), (1, 2, 3)),
]


@pytest.fixture
def model(tiny_policy: Path) -> PreferenceModel:
    return PreferenceModel.from_policy(tiny_policy, seed=1)[0]


@torch.no_grad()
def test_padding_is_inert_on_either_side_with_any_content(any_policy: Path):
    model, _ = PreferenceModel.from_policy(any_policy, seed=1)
    rows = [pair.prompt + pair.replies[0] for pair in PAIRS]
    ends = torch.tensor([len(row) - 1 for row in rows])
    alone = torch.cat([model.raw_scores(torch.tensor([row]), torch.tensor([len(row) - 1])) for row in rows])
    for filler in (PAD, 7):
        padded = right_padded(rows, "cpu", filler)[0]
        assert torch.allclose(model.raw_scores(padded, ends), alone, atol=1e-5)
        mask = torch.arange(padded.shape[1])[None] <= ends[:, None]
        assert torch.allclose(model.raw_scores(padded, ends, mask), alone, atol=1e-5)
    width = max(map(len, rows))
    left = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    assert torch.allclose(model.raw_scores(left, torch.full((3,), width - 1), mask), alone, atol=1e-5)


@torch.no_grad()
def test_values_hold_the_score_in_the_end_column_and_do_not_look_ahead(model: PreferenceModel):
    model.shift, model.scale = 0.5, 2.0
    row = torch.tensor([PAIRS[0].prompt + PAIRS[0].replies[0]])
    end = torch.tensor([row.shape[1] - 1])
    values = model.values(row)
    assert values.shape == row.shape
    assert torch.allclose(values[:, -1], model.scores(row, end))
    assert torch.allclose(model.scores(row, end), (model.raw_scores(row, end) - 0.5) / 2.0)
    assert torch.allclose(model.values(row[:, :6]), values[:, :6], atol=1e-5)


def test_a_preference_model_is_not_taken_for_a_policy(tiny_policy: Path, tmp_path: Path):
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=1)
    (tmp_path / "pm").mkdir()
    model.save(tmp_path / "pm", tokenizer)
    with pytest.raises(BadSnapshot, match="holds a preference model, not a policy"):
        load_policy(tmp_path / "pm")


def test_the_head_starts_with_the_width_and_seed_it_should(tiny_policy: Path):
    heads = [PreferenceModel.from_policy(tiny_policy, seed=seed)[0].head for seed in (1, 1, 2)]
    assert torch.equal(heads[0].weight, heads[1].weight) and not torch.equal(heads[0].weight, heads[2].weight)
    assert heads[0].bias.tolist() == [0.0]
    many = torch.cat([PreferenceModel.from_policy(tiny_policy, seed=s)[0].head.weight for s in range(20)])
    assert many.std().item() == pytest.approx(1 / math.sqrt(33), rel=0.1)  # 640 draws: the std is known to 3%


def test_a_saved_model_scores_the_same(any_policy: Path, tmp_path: Path):
    model, tokenizer = PreferenceModel.from_policy(any_policy, seed=1)
    model.shift, model.scale = -0.25, 3.0
    manifest = model.save(tmp_path / "pm", tokenizer, seed=1)
    again, _ = PreferenceModel.load(tmp_path / "pm")
    row, end = torch.tensor([PAIRS[0].prompt + PAIRS[0].replies[0]]), torch.tensor([12])
    assert torch.equal(again.scores(row, end), model.scores(row, end))
    assert manifest["kind"] == "pm" and "head.safetensors" in manifest["files"]


def test_what_is_no_whole_preference_model_is_refused(tiny_policy: Path, tmp_path: Path):
    with pytest.raises(BadSnapshot, match="holds a policy, not a preference model"):
        PreferenceModel.load(tiny_policy)
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=1)
    model.save(tmp_path, tokenizer)
    manifest = (tmp_path / "manifest.json").rename(tmp_path / "aside.json")
    for door in (PreferenceModel.load, load_policy, check_snapshot):
        with pytest.raises(BadSnapshot, match=r"has lost its manifest\.json"):
            door(tmp_path)
    manifest.rename(tmp_path / "manifest.json")
    head = load_file(tmp_path / "head.safetensors")
    save_file({"weight": head["weight"]}, tmp_path / "head.safetensors")
    with pytest.raises(BadSnapshot, match=r"head.safetensors is damaged"):
        PreferenceModel.load(tmp_path)
    write_manifest(tmp_path, kind="pm")
    with pytest.raises(BadSnapshot, match=r"the head of the preference model .* cannot be loaded"):
        PreferenceModel.load(tmp_path)


def test_language_loss_is_the_models_own(tiny_policy: Path):
    model, _ = PreferenceModel.from_policy(tiny_policy, seed=1, words=True)
    causal, _ = load_policy(tiny_policy)
    row = torch.tensor([PAIRS[0].prompt + PAIRS[0].replies[0]])
    expected = causal(row, labels=row).loss * (row.shape[1] - 1)
    assert torch.allclose(model.word_losses(model.hidden(row)[0, :-1], row[0, 1:]).sum(), expected, rtol=1e-5)
    bare, _ = PreferenceModel.from_policy(tiny_policy, seed=1)
    with pytest.raises(ValueError, match="words=True"):
        bare.word_losses(torch.zeros(1, 32), torch.zeros(1, dtype=torch.long))
