"""TRL's side of bench/preference.py, run in .venv-peers: RewardTrainer as it comes, or in its best setting for the size."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer

from bench.sides import Turns


class InTurns(TrainerCallback):
    """Stops where a pass ends until the next turn."""

    def __init__(self, turns: Turns, updates: int) -> None:
        self.turns, self.updates = turns, updates

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_more: Any) -> None:
        """One update is done."""
        if state.global_step % self.updates == 0:
            self.turns.end()
            self.turns.begin()


def settings_of(asked: dict[str, Any]) -> dict[str, Any]:
    """What is changed from TRL's defaults, beyond what makes the work the same."""
    if asked["setting"] == "trl-default":  # bfloat16 and recomputed activations
        return {"train_sampling_strategy": "sequential"}
    grouped = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    return {
        "bf16": asked["half"],  # the faster one for TRL, see bench/preference.py
        "gradient_checkpointing": False,
        **grouped,
    }


def main() -> None:
    """Train until nobody asks for another turn."""
    asked = json.loads(sys.argv[1])
    turns = Turns()
    rows = [json.loads(line) for line in (Path(asked["folder"]) / "trl.jsonl").read_text().splitlines()]
    chosen = settings_of(asked)
    grouped = chosen["train_sampling_strategy"] == "group_by_length"
    if grouped:  # each pass over the same pairs, sorted by the trainer
        rows = rows[: asked["batch"] * asked["updates"]]
    settings = RewardConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=asked["batch"], use_cpu=asked["device"] == "cpu", report_to=[],
        num_train_epochs=asked["passes"] if grouped else 1, save_strategy="no", disable_tqdm=True, max_length=None,
        learning_rate=asked["rate"], dataloader_pin_memory=asked["device"] == "cuda", **chosen,
    )  # fmt: skip
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(asked["model"], dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(asked["model"]),
        callbacks=[InTurns(turns, asked["updates"])],
    )
    trainer.train()


if __name__ == "__main__":
    main()
