"""Settings of the distill job."""

import dataclasses
from typing import Literal

from training.config.fitting import FitConfig
from training.config.loading import above_zero, at_least, shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(FitConfig):
    """Settings of `python -m training.distill`; HH A.1 = Bai et al. 2022 (2204.05862), appendix A.1."""

    teacher: str = ""  # directory of the policy that answers behind the prompt; required
    prompt: str = ""  # file of the prompt C: a text, or messages in a .json; required
    student: str = ""  # directory of the policy that is to answer so without it; empty = starts as the teacher; ours
    bins: int = 50  # likeliest words with a bin of their own; one more bin holds all others (HH A.1)
    # texts of data/train.jsonl; or replies of the teacher to data/prompts.jsonl; HH A.1 or ours
    source: Literal["data", "teacher"] = "data"
    learn: Literal["all", "replies"] = "all"  # HH A.1: every token of a text; or those of its last reply alone
    batch_sequences: int = 32  # HH A.1
    learning_rate: float = 0.0  # 0 = 0.05 (HH A.1) of what fitting.chosen_learning_rate gives for the width
    schedule: Literal["cosine", "linear", "constant"] = "linear"  # HH A.1: linearly to 0
    final_share: float = 0.0  # HH A.1: to 0, which would be the rate of the update after the last
    warmup_share: float = 0.0  # HH A.1 names none
    # of a text without the prompt; 0 = what both contexts hold. Longer ones are left out, counted (ours)
    max_tokens: int = 0
    held_out: float = 0.05  # share of conversations or texts kept for the test when data/ has no test file; ours
    # directory of the teacher's log-probabilities, to share among students; empty = in the run folder; ours
    cache: str = ""
    shard_sequences: int = 256  # sequences of one file of it, which is also what a kill can lose; ours
    max_new_tokens: int = 112  # of replies that the teacher samples; starter
    temperature: float = 1.0  # of those replies; ours
    sample_prompts: int = 64  # at most so many held-out prompts are answered to compare perplexities; ours
    slots: int = 64  # replies written at once; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 1, "bins", "batch_sequences", "shard_sequences", "max_new_tokens", "sample_prompts", "slots")
        at_least(self, 0, "max_tokens")
        shares(self, "held_out")
        above_zero(self, "temperature")
