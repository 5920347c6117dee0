"""Texts to weighted token batches for the starter's own training."""

import random
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from training.starter.tokenizer import ASSISTANT, BOS, END, HUMAN, SYSTEM

HUMAN_WEIGHT = 0.15
"""What people say matters less than what the assistant says, but teaches the words."""


@dataclass(frozen=True)
class Example:
    """Tokens and the weight of each in the loss: [T] for one text, [B, T] for a batch."""

    tokens: torch.Tensor
    weights: torch.Tensor


def encode_chat(tokenizer: PreTrainedTokenizerFast, chat: list[dict[str, str]]) -> Example:
    """One chat as the chat template writes it; a reply's words and its end weigh 1."""
    marks = {"system": SYSTEM, "user": HUMAN, "assistant": ASSISTANT}
    tokens, weights = [tokenizer.convert_tokens_to_ids(BOS)], [0.0]
    for message in chat:
        said = tokenizer.encode(message["content"], add_special_tokens=False)
        weight = 1.0 if message["role"] == "assistant" else HUMAN_WEIGHT
        tokens += [tokenizer.convert_tokens_to_ids(marks[message["role"]]), *said]
        weights += [0.0, *[weight] * len(said)]
        if message["role"] == "assistant":
            tokens.append(tokenizer.convert_tokens_to_ids(END))
            weights.append(1.0)
    return Example(torch.tensor(tokens), torch.tensor(weights))


def encode_prose(tokenizer: PreTrainedTokenizerFast, text: str) -> Example:
    """A paragraph without roles."""
    tokens = [tokenizer.convert_tokens_to_ids(BOS), *tokenizer.encode(text, add_special_tokens=False)]
    return Example(torch.tensor(tokens), torch.tensor([0.0] + [HUMAN_WEIGHT] * (len(tokens) - 1)))


def _join(examples: list[Example]) -> Example:
    columns = ([example.tokens for example in examples], [example.weights for example in examples])
    return Example(*(pad_sequence(rows, batch_first=True) for rows in columns))


def batches(examples: list[Example], tokens: int, seed: int) -> list[Example]:
    """All examples once, in batches of about `tokens`.

    Texts of like length stand together, so that padding (on the right, weight 0, unseen under causal attention) is a
    few percent, and each text starts at position 0, as it will when the model answers.
    """
    rng = random.Random(seed)
    shuffled = examples[:]
    rng.shuffle(shuffled)
    pool, order = 2_048, []
    for start in range(0, len(shuffled), pool):
        near = sorted(shuffled[start : start + pool], key=lambda example: len(example.tokens))
        rows: list[Example] = []
        ready: list[Example] = []
        for example in near:
            if rows and (len(rows) + 1) * len(example.tokens) > tokens:
                ready.append(_join(rows))
                rows = []
            rows.append(example)
        if rows:
            ready.append(_join(rows))
        rng.shuffle(ready)
        order += ready
    return order
