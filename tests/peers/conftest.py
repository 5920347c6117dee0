"""Our numbers beside TRL's: each side runs in its own environment, and the numbers travel as safetensors and JSON."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerBase

from tests.training import conftest as tiny
from training.models.models import PreferenceModel
from training.models.snapshots import save_policy

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv-peers"
PPO = PEERS / "ppo"

tokenizer = tiny.tokenizer
built_policies = tiny.built_policies
tiny_policy = tiny.tiny_policy


class Found(NamedTuple):
    """What a peer reported."""

    numbers: dict[str, Tensor]
    words: Any


@pytest.fixture(scope="session")
def ask() -> Callable[..., Found]:
    """Run one of the scripts of this folder with TRL: `ask(script, folder, question, ppo=False)`."""

    def run(script: str, folder: Path, question: Any, *, ppo: bool = False) -> Found:
        python = PEERS / "bin" / "python"
        assert python.exists(), "TRL is not installed: run `make peers` (or scripts/install.py --peers)"
        (folder / "question.json").write_text(json.dumps(question))
        quiet = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environ = os.environ | quiet | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PPO) if ppo else ""}
        done = subprocess.run(
            [python, "-m", f"tests.peers.{script}", folder], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return Found(load_file(folder / "answer.safetensors"), json.loads((folder / "answer.json").read_text()))

    return run


@pytest.fixture(scope="session")
def other_policy(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy: Path, tokenizer: PreTrainedTokenizerBase
) -> Path:
    """A policy near the tiny one, so that a KL between them is neither 0 nor absurd."""
    path = tmp_path_factory.mktemp("other") / "policy"
    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    save_policy(path, model, tokenizer, seed=11)
    return path


def save_as_classifier(model: PreferenceModel, path: Path) -> Path:
    """Write the same weights as the class that TRL reads; its head has no bias, so ours must be 0."""
    assert float(model.head.bias.detach().abs().max()) == 0
    config = model.backbone.config.to_dict() | {"num_labels": 1}
    made = LlamaForSequenceClassification(type(model.backbone.config)(**config))
    made.model.load_state_dict(model.backbone.state_dict())
    made.score.weight.data.copy_(model.head.weight.data)
    made.save_pretrained(path)
    return path


def same_weights(ours: PreferenceModel, theirs: dict[str, Tensor], prefix: str = "") -> float:
    """The largest difference between our weights and the classifier's."""
    backbone = {f"{prefix}model.{name}": value for name, value in ours.backbone.state_dict().items()}
    expected = backbone | {f"{prefix}score.weight": ours.head.weight.detach()}
    assert expected.keys() <= theirs.keys()
    return max(float((value - theirs[name]).abs().max()) for name, value in expected.items())
