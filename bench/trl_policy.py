"""TRL's side of bench/policy.py, run in .venv-peers with TRL 1.12: PPOTrainer as it comes, or in float32."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from bench.sides import Turns


class InTurns(TrainerCallback):
    """Stops after each batch of episodes until the next turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_step_end(self, *_given: Any, **_more: Any) -> None:
        """One batch of episodes is learnt."""
        self.turns.end()
        self.turns.begin()


def main() -> None:
    """Train until nobody asks for another turn."""
    asked = json.loads(sys.argv[1])
    turns = Turns()
    policy, _, classifier = asked["models"]
    rows = [json.loads(line) for line in (Path(asked["folder"]) / "trl.jsonl").read_text().splitlines()]
    chosen = {} if asked["setting"] == "trl-default" else {"bf16": False, "gradient_checkpointing": False}
    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=asked["micro"],
        gradient_accumulation_steps=asked["episodes"] // asked["micro"], num_mini_batches=1, num_ppo_epochs=asked["passes"],
        total_episodes=1000 * asked["episodes"], response_length=asked["new"], local_rollout_forward_batch_size=asked["episodes"],
        num_sample_generations=0, use_cpu=asked["device"] == "cpu", report_to=[], save_strategy="no", disable_tqdm=True,
        stop_token=None, temperature=asked["temperature"], kl_coef=asked["kl_weight"], learning_rate=asked["rate"], **chosen,
    )  # fmt: skip
    dataset = Dataset.from_list(rows)
    load = lambda kind, path: kind.from_pretrained(path, dtype=torch.float32)
    trainer = PPOTrainer(
        args=settings,
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
        model=load(AutoModelForCausalLM, policy),
        ref_model=load(AutoModelForCausalLM, policy),
        reward_model=load(AutoModelForSequenceClassification, classifier),
        value_model=load(AutoModelForSequenceClassification, classifier),
        train_dataset=dataset,
        eval_dataset=dataset,
        callbacks=[InTurns(turns)],
    )
    trainer.train()


if __name__ == "__main__":
    main()
