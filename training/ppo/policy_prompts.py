"""The prompts of a PPO run: which are trained on, which are held out, and which come in which iteration."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data.prompts import held_places, mixed, read_prompts, read_prompts_with_modes, rendered, taken
from training.failure import JobFailed
from training.lines.lines import data_file
from training.processes import ranks
from training.runs.telling import tell_unfit


class PolicyPrompts:
    """data/prompts.jsonl and data/held_out.jsonl as tokens; without the second a share of the first is held out."""

    def __init__(self, data: Path, tokenizer: Any, room: int, share: float, weights: Mapping[str, float]) -> None:
        """`weights`: shares of the modes (prompt_weights), empty to take the prompts as they stand."""
        read = read_prompts_with_modes(data / "prompts.jsonl")
        prompts = [prompt for prompt, _ in read]
        if data_file(data, "held_out") is not None:
            kept, held_out = list(range(len(prompts))), read_prompts(data / "held_out.jsonl")
        else:
            kept, out = held_places(prompts, share)
            held_out = [prompts[place] for place in out]
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.train, self.left_out = rendered(tokenizer, [prompts[place] for place in kept], room)
        self.held_out, self.left_out_held_out = rendered(tokenizer, held_out, room)
        tell_unfit("prompts", self.left_out)
        tell_unfit("held-out prompts", self.left_out_held_out)
        trained = set(map(tuple, self.train))
        self.held_out_trained = sum(tuple(prompt) in trained for prompt in self.held_out)
        if self.held_out_trained and ranks.leads():
            print(
                f"warning: {self.held_out_trained} of {len(self.held_out)} held-out prompts are trained on too, so what is "
                "measured on them tells nothing of other prompts; take them out of data/prompts.jsonl",
                file=sys.stderr,
            )
        if not self.train or not self.held_out:
            raise JobFailed(
                f"{len(self.train)} prompts to train on and {len(self.held_out)} held out fit into {room} tokens; "
                "at least one of each is needed, with different first messages"
            )
        self.by_mode = {
            mode: rendered(tokenizer, [prompts[place] for place in kept if read[place][1] == mode], room)[0]
            for mode in self.weights
        }
        for mode, found in self.by_mode.items():
            if not found:
                there = sorted({read[place][1] or "none" for place in kept})
                raise JobFailed(
                    f"prompt_weights asks for prompts of the mode {mode!r} and data/prompts.jsonl has none that fit; "
                    f"the modes there are: {', '.join(there)}"
                )

    @property
    def count(self) -> int:
        """How many different prompts training can meet: none of a mode that is given no weight."""
        return sum(map(len, self.by_mode.values())) if self.weights else len(self.train)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, held-out ones included."""
        return max(map(len, [*self.train, *self.held_out]))

    def take(self, seed: int, begin: int, count: int) -> list[list[int]]:
        """The prompts at places begin … begin+count-1 of the endless row that training meets."""
        if not self.weights:
            return [self.train[place] for place in taken(len(self.train), seed, begin, count)]
        sizes = {mode: len(found) for mode, found in self.by_mode.items()}
        return [self.by_mode[mode][place] for mode, place in mixed(sizes, self.weights, seed, begin, count)]
