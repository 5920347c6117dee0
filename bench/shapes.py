"""The models that both sides get: Llama shapes with random weights, a tokenizer of whole words, and replies of given lengths.

Everything is written once to a folder (.bench/) and read by the processes of both sides, so weights and tokens are the same.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAD, EOS, BOS = 0, 1, 2
FIRST_WORD = 3
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@dataclass(frozen=True)
class Shape:
    """A Llama: the vocabulary head is the embedding; `group` query heads share a key and value head."""

    name: str
    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    group: int = 1

    @property
    def body(self) -> int:
        """Weights of all matrix products but the vocabulary head's."""
        attention = 2 * self.width * self.width * (1 + 1 / self.group)
        return int(self.layers * (attention + 3 * self.width * self.inner))

    @property
    def head(self) -> int:
        """Weights of the vocabulary head."""
        return self.width * self.vocabulary


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("1m", 128, 4, 4, 352, 2048),
        Shape("10m", 320, 6, 5, 864, 8192),
        Shape("50m", 512, 12, 8, 1536, 16384),
        Shape("124m", 768, 12, 12, 2048, 50257),
        Shape("0.5b", 896, 24, 14, 4864, 151_936, 7),  # Qwen2.5-0.5B
        Shape("7b", 4096, 32, 32, 11008, 32000),  # Llama 2 7B, but for the tied head
    )
}


class Models(NamedTuple):
    """Folders: two snapshots as our jobs read them, and the preference model as TRL's class."""

    policy: Path
    pm: Path
    classifier: Path


def models(shape: Shape) -> Models:
    """Write the models of a shape, or find them written."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from training.models.models import PreferenceModel
    from training.models.snapshots import save_policy

    root = ROOT / ".bench" / shape.name
    found = Models(root / "policy", root / "pm", root / "classifier")
    if (root / "whole").exists():
        return found
    shutil.rmtree(root, ignore_errors=True)
    config = LlamaConfig(
        hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // shape.group, intermediate_size=shape.inner, vocab_size=shape.vocabulary,
        max_position_embeddings=1024, tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS,
    )  # fmt: skip
    tokenizer = word_tokenizer(shape)
    torch.manual_seed(0)
    save_policy(found.policy, LlamaForCausalLM(config), tokenizer, seed=0)
    torch.manual_seed(1)
    save_policy(root / "second", LlamaForCausalLM(config), tokenizer, seed=1)
    pm, _ = PreferenceModel.from_policy(root / "second", seed=1)
    pm.save(found.pm, tokenizer)
    made = LlamaForSequenceClassification(LlamaConfig(**(config.to_dict() | {"num_labels": 1})))
    made.model.load_state_dict(pm.backbone.state_dict())
    made.score.weight.data.copy_(pm.head.weight.data)
    made.save_pretrained(found.classifier)
    tokenizer.save_pretrained(found.classifier)
    shutil.rmtree(root / "second")
    (root / "whole").touch()
    return found


def word_tokenizer(shape: Shape):  # noqa: ANN201 - transformers is imported late
    """Make a tokenizer whose every id but three is a word of its own, so that lengths are what we say."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<eos>": EOS, "<bos>": BOS} | {f"w{n}": n for n in range(FIRST_WORD, shape.vocabulary)}
    backend = Tokenizer(WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
    made.chat_template = TEMPLATE
    return made


def text(tokens: list[int]) -> str:
    """Return the words of these ids."""
    return " ".join(f"w{token}" for token in tokens)


def pairs(shape: Shape, count: int, seed: int = 0, lo: int = 32, hi: int = 256) -> list[tuple[list[int], ...]]:
    """Return (prompt, chosen, rejected) tokens; prompt and reply together lo..hi tokens, log-normal, 40% of it prompt."""
    draw, found = random.Random(seed), []
    words = lambda many: [draw.randrange(FIRST_WORD, shape.vocabulary) for _ in range(many)]
    for _ in range(count):
        whole = int(min(hi, max(lo, draw.lognormvariate(math.log((lo * hi) ** 0.5 * 1.15), 0.5))))
        prompt = min(max(8, int(whole * 0.4 * draw.uniform(0.5, 1.5))), whole - 8)
        chosen = whole - prompt
        rejected = max(int(min(hi - prompt, max(8, chosen * draw.lognormvariate(0, 0.4)))), lo - prompt, 2)
        found.append((words(prompt), [*words(chosen - 1), EOS], [*words(rejected - 1), EOS]))
    return found


def prompts(shape: Shape, count: int, lo: int, hi: int, seed: int = 0) -> list[list[int]]:
    """Return prompts of lo..hi tokens."""
    draw = random.Random(seed)
    return [[draw.randrange(FIRST_WORD, shape.vocabulary) for _ in range(draw.randint(lo, hi))] for _ in range(count)]


def write_lines(path: Path, rows: list[dict]) -> None:
    """Write JSON lines, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
