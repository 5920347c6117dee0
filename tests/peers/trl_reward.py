"""TRL's RewardTrainer on given weights and batches; run in .venv-peers by the tests of this folder."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer


def trainer(asked: dict[str, Any], pairs: list[dict[str, Any]]) -> RewardTrainer:
    """A trainer in float32, with no checkpointing of activations and no shuffling."""
    settings = RewardConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_steps=1, max_length=None, dataloader_pin_memory=False,
        train_sampling_strategy="sequential", num_train_epochs=1, warmup_steps=0, center_rewards_coefficient=None,
        **asked["settings"],
    )  # fmt: skip
    return RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(asked["model"], dtype=torch.float32),
        args=settings, train_dataset=Dataset.from_list(pairs), processing_class=AutoTokenizer.from_pretrained(asked["tokenizer"]),
    )  # fmt: skip


def main(folder: Path) -> None:
    """Answer question.json."""
    asked = json.loads((folder / "question.json").read_text())
    found: dict[str, Tensor] = {}

    # one batch before anything is learnt, plain and with the margins
    for name in ("plain", "margin"):
        pairs = [
            {key: value for key, value in pair.items() if key != "margin" or name == "margin"}
            for pair in asked["pairs"]
        ]
        with_these = trainer(asked, pairs)
        batch = with_these.data_collator(pairs)
        with_these.model.eval()
        loss, outputs = with_these.compute_loss(with_these.model, batch, return_outputs=True)
        found[f"{name}_loss"] = loss.detach()
        found["scores"] = outputs.logits.detach().squeeze(-1)  # chosen, then rejected

    pairs = [{key: value for key, value in pair.items() if key != "margin"} for pair in asked["pairs"]]
    learnt = trainer(asked, pairs)
    learnt.train()
    found |= {name: value.detach().contiguous() for name, value in learnt.model.state_dict().items()}
    save_file(found, folder / "answer.safetensors")
    (folder / "answer.json").write_text(json.dumps(learnt.state.log_history))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
