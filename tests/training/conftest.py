"""Tiny random models of several families with one byte-level tokenizer; built once a session, copied per test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from training.models.models import PreferenceModel
from training.models.snapshots import save_policy

TEMPLATE = (
    "<|bos|>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, Callable[[dict], PreTrainedConfig]] = {
    "llama": lambda common: LlamaConfig(**WIDE, num_key_value_heads=2, max_position_embeddings=256, **common),
    "qwen2": lambda common: Qwen2Config(**WIDE, num_key_value_heads=2, max_position_embeddings=256, **common),
    "qwen3": lambda common: Qwen3Config(
        **WIDE, num_key_value_heads=2, head_dim=8, max_position_embeddings=256, **common
    ),
    "gpt2": lambda common: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **common),
    "gemma": lambda common: GemmaConfig(
        **WIDE, num_key_value_heads=1, head_dim=8, max_position_embeddings=256, **common
    ),
}
WINDOWED = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "sliding_window": 32}
# Windows of attention in every second block and bent logits (Gemma 2), two rotations (Gemma 3).
EVERY_FAMILY = FAMILIES | {
    "gemma2": lambda common: Gemma2Config(**WIDE, **WINDOWED, **common),
    "gemma3": lambda common: Gemma3TextConfig(**WIDE, **WINDOWED, **common),
}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and five special ones; pad is not the end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        bos_token="<|bos|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def built_policies(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Callable[[str], Path]:
    """Build a family's tiny policy directory on first use; tests must not change it."""
    root = tmp_path_factory.mktemp("policies")

    def build(family: str) -> Path:
        path = root / family
        if not path.exists():
            common = {
                "vocab_size": 264,  # some tokenizer classes add a token of their own on loading
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "bos_token_id": tokenizer.bos_token_id,
                "initializer_range": 0.15,  # wide enough that a wrong mask or position changes the numbers visibly
            }
            torch.manual_seed(7)
            save_policy(path, AutoModelForCausalLM.from_config(EVERY_FAMILY[family](common)), tokenizer, seed=7)
        return path

    return build


@pytest.fixture(scope="session")
def tiny_policy(built_policies: Callable[[str], Path]) -> Path:
    """A Llama policy directory of some 20,000 weights; do not change it."""
    return built_policies("llama")


@pytest.fixture
def own_policy(tiny_policy: Path, tmp_path: Path) -> Path:
    """A copy of the tiny policy that a test may damage."""
    return Path(shutil.copytree(tiny_policy, tmp_path / "policy"))


@pytest.fixture(params=sorted(FAMILIES))
def any_policy(request: pytest.FixtureRequest, built_policies: Callable[[str], Path]) -> Path:
    """Each family's policy directory in turn; do not change it."""
    return built_policies(request.param)


@pytest.fixture(scope="session")
def pm_path(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random preference model: it prefers something, whatever that is; do not change it."""
    path = tmp_path_factory.mktemp("pm") / "model"
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=3)
    pm.save(path, tokenizer)
    return path
