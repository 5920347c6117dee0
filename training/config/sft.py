"""Settings of the sft job."""

import dataclasses
from typing import Any, Literal

from training.config.fitting import FitConfig
from training.config.loading import BadConfig, above_zero, at_least, shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(FitConfig):
    """Settings of `python -m training.sft`; IG = Ouyang et al. 2022, PM = Zheng et al. 2023.

    A preset replaces the defaults below by a paper's (SFT_PRESETS); what config.json names itself goes before both.
    """

    model: str = ""  # directory of the policy to finetune; required
    # ours: what the starter needs, of all papers
    preset: Literal["starter", "instructgpt", "instructgpt_rl_init", "moss"] = "starter"
    epochs: int = 4  # ours: the score hardly rises after two on the starter (LAB.md), larger models went on to 16 (IG)
    batch_sequences: int = 16  # demonstrations an update; the loss is a mean over their reply tokens; ours, IG 32
    turns: Literal["last", "all"] = "last"  # IG: the demonstration is the last reply; PM's dialogues teach all of them
    max_tokens: int = 0  # a whole example; 0 = the model's context. Oldest turns go first, counted; ours
    dropout: float = 0.0  # on what each block adds to the residual stream (IG 3.5: 0.2)
    # share of data/pretraining.jsonl in each update's loss, and in the sequences of the run (IG C.3: 0.1)
    pretraining_share: float = 0.0
    held_out: float = 0.05  # share of conversations kept for the test when data/ has no test file (HH 2.3)
    # -- which of its epochs' models is kept
    preference_model: str = ""  # directory; its score of sampled replies decides (IG C.1). Empty: held-out loss decides
    select_updates: int = 0  # look every so many updates; 0 = after each epoch; ours
    selection_prompts: int = 64  # at most so many held-out prompts are answered at each look; ours
    max_new_tokens: int = 112  # starter: its longest replies
    temperature: float = 1.0  # of those replies; ours
    slots: int = 64  # replies written at once; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 1, "batch_sequences", "selection_prompts", "max_new_tokens", "slots")
        at_least(self, 0, "max_tokens", "select_updates")
        shares(self, "held_out")
        above_zero(self, "temperature")
        if self.dropout and self.gradient_checkpointing:
            raise BadConfig(
                "gradient_checkpointing would drop other states the second time; set dropout to 0, or it to false"
            )
        for name in ("dropout", "pretraining_share"):
            if not 0 <= getattr(self, name) < 1:
                raise BadConfig(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")


# What each paper fixes. Absolute learning rates of models a thousand times larger do not transfer, so none is set
# (IG: 9.65e-6 for the SFT models, 5e-6 and 1.04e-5 for the RL initial ones; PM: 9.5e-6).
SFT_PRESETS: dict[str, dict[str, Any]] = {
    "starter": {},
    # Ouyang et al. 2022 §3.5, C.1: 16 epochs, cosine to a tenth without warm-up, residual dropout 0.2, batch 32; the model
    # is selected by the reward model's score, since the loss is at its best after one epoch and people's choices are not.
    "instructgpt": {
        "epochs": 16, "schedule": "cosine", "final_share": 0.1, "warmup_share": 0.0, "dropout": 0.2,
        "batch_sequences": 32, "turns": "last", "adam_beta2": 0.95,
    },
    # C.3: what PPO starts from is another SFT: 2 epochs, a tenth pretraining text mixed in; no dropout is mentioned.
    "instructgpt_rl_init": {
        "epochs": 2, "schedule": "cosine", "final_share": 0.1, "warmup_share": 0.0, "batch_sequences": 32,
        "turns": "last", "pretraining_share": 0.1, "adam_beta2": 0.95,
    },
    # Zheng et al. 2023 §5.1: dialogues, 2 epochs, cosine to a tenth, 1,024 a batch.
    "moss": {
        "epochs": 2, "schedule": "cosine", "final_share": 0.1, "batch_sequences": 1024, "turns": "all",
    },
}  # fmt: skip
