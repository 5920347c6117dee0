"""The preference job beside TRL's RewardTrainer: same weights, same batches, float32, to 1e-5."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoTokenizer

from tests.peers.conftest import Found, same_weights, save_as_classifier
from training import objective
from training.data.batches import Ranked, order, tokenised
from training.lines.records import comparison_of, read_records
from training.models.models import PreferenceModel
from training.preference import main
from training.reading.reading import Reader

pytestmark = pytest.mark.peers
WORDS = [
    "a",
    "small",
    "green",
    "dog",
    "sat",
    "by",
    "the",
    "old",
    "wall",
    "and",
    "told",
    "me",
    "why",
    "rain",
    "falls",
    "up",
]
# eps: with Adam's usual 1e-8 a gradient of rounding noise alone moves its weight by a full step, in either direction.
SETTINGS = {
    "batch_prompts": 4, "learning_rate": 1e-2, "schedule": "constant", "warmup_share": 0.0, "weight_decay": 0.01,
    "adam_beta2": 0.95, "adam_eps": 1e-3, "max_grad_norm": 1.0, "precision": "float32", "seed": 5, "threads": 1,
}  # fmt: skip


class Both(NamedTuple):
    """One run of the job, the same by TRL, and what both began with."""

    trl: Found
    ours: Path
    start: PreferenceModel
    pairs: list[Ranked]  # in the order in which both learnt them
    margins: list[float]


def comparisons(count: int) -> list[dict[str, Any]]:
    draw = random.Random(3)
    text = lambda most: " ".join(draw.choices(WORDS, k=draw.randint(1, most)))
    return [{"prompt": f"{n} {text(8)}", "chosen": f"{text(12)}.", "rejected": f"{text(12)}!"} for n in range(count)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_policy: Path, ask: Callable[..., Found]) -> Both:
    run, asked = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("asked")
    (run / "data").mkdir()
    for name, rows in (("train", comparisons(24)), ("test", comparisons(4))):
        (run / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.json").write_text(json.dumps(SETTINGS))
    assert main([str(run), "--model", str(tiny_policy)]) == 0

    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    read = list(read_records(run / "data" / "train.jsonl", comparison_of))
    pairs, dropped, _ = tokenised(read, tokenizer, max_tokens=256, weakest_strength=1)
    assert not dropped
    pairs = [pairs[number] for batch in order(len(pairs), 4, 5, 0) for number in batch]
    margins = [0.1 * (number % 7) for number in range(len(pairs))]
    start, _ = PreferenceModel.from_policy(tiny_policy, seed=5)
    question = {
        "model": str(save_as_classifier(start, asked / "start")),
        "tokenizer": str(tiny_policy),
        "pairs": [
            {"chosen_ids": pair.prompt + pair.replies[0], "rejected_ids": pair.prompt + pair.replies[1], "margin": margin}
            for pair, margin in zip(pairs, margins, strict=True)
        ],
        "settings": {
            "per_device_train_batch_size": 4, "learning_rate": 1e-2, "lr_scheduler_type": "constant",
            "weight_decay": 0.01, "adam_beta2": 0.95, "adam_epsilon": 1e-3, "max_grad_norm": 1.0,
        },
    }  # fmt: skip
    return Both(ask("trl_reward", asked, question), run, start, pairs, margins)


def scores(both: Both) -> torch.Tensor:
    """Of the chosen and the rejected replies, before anything is learnt.  -> [pairs, 2]"""
    return torch.tensor(Reader(both.start, pad=0, precision="float32").scores_of(both.pairs))


def test_the_scores_of_both_sides_agree(both: Both) -> None:
    scores = Reader(both.start, pad=0, precision="float32").scores_of(both.pairs)
    chosen, rejected = ([pair[side] for pair in scores] for side in (0, 1))
    torch.testing.assert_close(torch.tensor(chosen + rejected), both.trl.numbers["scores"], rtol=0, atol=1e-5)


def test_the_loss_agrees_with_a_margin_and_without(both: Both) -> None:
    chosen, rejected = torch.tensor(Reader(both.start, pad=0, precision="float32").scores_of(both.pairs)).T
    margin = torch.tensor(both.margins)
    for name, loss in (
        ("plain_loss", objective.preference_loss(chosen, rejected)),
        ("margin_loss", objective.preference_loss(chosen, rejected, margin)),
    ):
        torch.testing.assert_close(loss, both.trl.numbers[name], rtol=0, atol=1e-5)
    assert abs(both.trl.numbers["plain_loss"] - both.trl.numbers["margin_loss"]) > 1e-3


def test_every_step_of_the_job_has_trls_loss_accuracy_and_margin(both: Both) -> None:
    ours = [json.loads(line) for line in (both.ours / "metrics.jsonl").read_text().splitlines()]
    theirs = [step for step in both.trl.words if "loss" in step]
    assert len(ours) == len(theirs) == 6
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert mine["margin"] == pytest.approx(other["margin"], abs=1e-4)
        assert mine["accuracy"] == pytest.approx(other["accuracy"], abs=1e-6)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_the_weights_after_the_whole_job_are_trls(both: Both) -> None:
    learnt, _ = PreferenceModel.load(both.ours / "model")
    assert same_weights(both.start, both.trl.numbers) > 1e-3  # they learnt something
    assert same_weights(learnt, both.trl.numbers) < 1e-5
