"""Pretraining text for PPO-ptx: lines of text as pieces of tokens that a policy is asked to go on foretelling.

data/pretraining.jsonl or .jsonl.gz, a line each: {"text": "…"}. A text longer than a piece becomes several, each beginning
with the last token of the one before, so that every token is foretold once and none is cut away.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.data.padding import right_padded
from training.data.prompts import taken
from training.failure import JobFailed
from training.lines.lines import data_file, read_texts
from training.sampling.rollouts import Rollout
from training.sampling.sampling import reply_mask


class PretrainingText:
    """All pieces of the text; which of them an update meets is told by the seed and the update's place alone."""

    def __init__(self, pieces: Sequence[Sequence[int]], texts: int, seed: int) -> None:
        self.pieces, self.texts, self.seed = pieces, texts, seed

    @classmethod
    def read(cls, data: Path, tokenizer: Any, tokens: int, seed: int) -> "PretrainingText":
        """Read the file in `data`; JobFailed where it is missing or empty, BadRecord names a line that is no text."""
        path = data_file(data, "pretraining")
        if path is None:
            raise JobFailed(
                f"{data / 'pretraining.jsonl'} is missing and ptx_weight or pretraining_share asks for it; "
                'write a line of {"text": …} each into it, or set it to 0'
            )
        texts = read_texts(path)
        begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        pieces = []
        for text in texts:
            ids = [*begin, *map(int, tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])]
            ids.append(int(tokenizer.eos_token_id))
            pieces += [ids[at : at + tokens + 1] for at in range(0, len(ids) - 1, tokens)]
        return cls(pieces, len(texts), seed)

    def rows(self, begin: int, count: int, device: torch.device) -> Rollout:
        """The pieces at places begin … begin+count-1 of an endless row of shuffled passes.

        As a rollout whose prompts are single tokens, since what is wanted of them is the same: log π of all that follows.
        """
        some = [self.pieces[place] for place in taken(len(self.pieces), self.seed, begin, count)]
        tokens, length = right_padded(some, device)
        mask = reply_mask(length - 1)
        return Rollout(
            tokens, torch.ones_like(length), mask, torch.zeros(mask.shape, device=device), torch.ones_like(length) > 0
        )
