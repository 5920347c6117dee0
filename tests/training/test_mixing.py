"""Pretraining text among demonstrations: how many texts an update has, and how much of its loss they are."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training import sft
from training.config import SftConfig, load_config
from training.data.examples import Example
from training.models.snapshots import load_policy
from training.reading.words import WordReader


def test_what_rounding_leaves_of_a_share_goes_to_the_next_update():
    config = load_config(SftConfig, {"epochs": 2, "batch_sequences": 12, "pretraining_share": 0.1})
    texts = [sum(number >= 48 for number in batch) for batch in sft.mixed(48, 5, config)]
    assert sum(texts) == 11 and set(texts) == {1, 2}  # 96 demonstrations and a tenth of all
    config = load_config(SftConfig, {"epochs": 1, "batch_sequences": 4, "pretraining_share": 0.1})
    assert [sum(number >= 48 for number in batch) for batch in sft.mixed(48, 5, config)] == [1] * 12


def test_texts_have_their_share_of_the_loss_however_long_they_are(tiny_policy: Path):
    reader = WordReader(load_policy(tiny_policy)[0])
    shown, texts = (
        [Example([5, 6], [1]), Example(list(range(5, 14)), list(range(4, 9)))],
        [Example(list(range(5, 95)), list(range(1, 90)))],
    )
    parameters = list(reader.model.parameters())

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, parameters)])

    lesson = sft.Lesson(reader, shown, texts, SftConfig(model="m", pretraining_share=0.1))
    lesson.fit = SimpleNamespace(step=0)
    lesson([0, 1, 2], [0, 1, 2])
    found = torch.cat([parameter.grad.flatten() for parameter in parameters])
    expected = 0.9 * gradient(reader.losses(shown).mean()) + 0.1 * gradient(reader.losses(texts).mean())
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    assert lesson.share_of_texts([[0, 1, 2]]) == pytest.approx(89 / (89 + 1 + 5))
