"""The world of the experiments with language models: conversations in a few hundred invented words.

Every word is one token, so a model of 100,000 weights reads it and a run takes seconds; the gold score of a reply is a formula.
Models are Llama models with random weights; an experiment that needs a policy which can speak pretrains it here (job sft).
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.job import INTERRUPTED
from training.models.snapshots import save_policy
from training.runs.progress import without_bars

SPECIAL = ("<pad>", "<bos>", "<end>", "<user>", "<assistant>")
TAGS = ("GOOD:", "BAD:")  # of binarised pairs
TEMPLATE = (
    "<bos>{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = tuple("".join(letters) for letters in itertools.product("bdfgklmnprst", "aeiou", "lmnrst"))  # 360 of them
Gold = Callable[[str, str], float]  # (prompt, reply) -> gold score


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, and the special ones."""
    known = [*SPECIAL, "<unknown>", *TAGS, *WORDS]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unknown>"))
    parts = [pre_tokenizers.Split(":", "merged_with_previous"), pre_tokenizers.WhitespaceSplit()]  # a tag, and words
    core.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = TEMPLATE
    return made


def random_policy(path: Path, *, seed: int, width: int = 64, layers: int = 2, context: int = 64) -> Path:
    """Write a policy directory of random weights; about 100,000 at the default width."""
    words = tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=context, tie_word_embeddings=True,
        pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    save_policy(path, LlamaForCausalLM(config), words, made_by="training.experiments.world", seed=seed)
    return path


def sentence(draw: random.Random, least: int, most: int, words: Sequence[str] = WORDS) -> str:
    """`least` to `most` random words."""
    return " ".join(draw.choices(words, k=draw.randint(least, most)))


def word_weights(seed: int | str) -> dict[str, float]:
    """A gold weight for every word, drawn from N(0, 1)."""
    draw = random.Random(f"weights {seed}")
    return {word: draw.gauss(0, 1) for word in WORDS}


def mixed(one: dict[str, float], other: dict[str, float], correlation: float) -> dict[str, float]:
    """Weights with the given correlation to `one`: ρ·one + √(1−ρ²)·other."""
    rest = math.sqrt(1 - correlation**2)
    return {word: correlation * one[word] + rest * other[word] for word in one}


def weighed(weights: dict[str, float]) -> Gold:
    """The gold score Σ weight / √length of a reply's words, whatever the prompt."""
    return lambda _prompt, reply: sum(weights[word] for word in reply.split()) / math.sqrt(len(reply.split()))


def preferred(draw: random.Random, gold: Gold, prompt: str, replies: Sequence[str], noise: float) -> list[str]:
    """The replies, best first, each gold score blurred by N(0, noise²)."""
    blurred = {reply: gold(prompt, reply) + draw.gauss(0, noise) for reply in replies}
    return sorted(blurred, key=lambda reply: -blurred[reply])


def comparison(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """One line of comparisons."""
    return {"prompt": [{"role": "user", "content": prompt}], "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}], **more}  # fmt: skip


def comparisons(seed: str, count: int, gold: Gold, noise: float) -> list[dict[str, Any]]:
    """Pairs of random replies, compared by `gold` with noise."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        prompt = sentence(draw, 3, 3)
        best, worst = preferred(draw, gold, prompt, [sentence(draw, 5, 8) for _ in range(2)], noise)
        found.append(comparison(prompt, best, worst))
    return found


def run_folder(path: Path, settings: dict[str, Any], **data: Iterable[Any]) -> Path:
    """Write config.json and data/<name>.jsonl for each of `data`; the folder."""
    (path / "data").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, lines in data.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "data" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return path


def result_of(main: Callable[[Sequence[str]], int], path: Path) -> dict[str, Any]:
    """Run a job's `main` on the folder to its end; its result.json, or RuntimeError with the job's own reason."""
    with without_bars():
        code = main([str(path)])
    if code == INTERRUPTED:
        raise KeyboardInterrupt  # a job answers Ctrl-C with an exit code; here the experiment is meant
    if code != 0:
        raise RuntimeError(json.loads((path / "failure.json").read_text(encoding="utf-8"))["reason"])
    found: dict[str, Any] = json.loads((path / "result.json").read_text(encoding="utf-8"))
    return found
