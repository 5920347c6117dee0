"""Settings that every job of supervised updates has: sft, distill, preference."""

import dataclasses
from typing import Literal

from training.config.adapter import AdapterConfig
from training.config.loading import BadConfig, above_zero, at_least, shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig(AdapterConfig):
    """How a model is fitted to examples; a job's own config adds what the examples are."""

    seed: int = 0  # ours
    # HH, IG and Secrets of RLHF all train preference models for one: pairs seen twice are learnt by heart
    epochs: int = 1
    learning_rate: float = 0.0  # 0 = from the width of the model, see fitting.chosen_learning_rate; measured
    warmup_share: float = 0.1  # share of the updates; replaces Adam's bias-corrected first large steps (N 17)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # IG C.2: cosine to a tenth
    final_share: float = 0.1  # of the learning rate at the end (IG C.2)
    weight_decay: float = 0.01  # PyTorch's
    adam_beta2: float = 0.95  # IG C.4
    adam_eps: float = (
        1e-8  # PyTorch's; TensorFlow's 1e-5 is of a form without bias correction, other early steps (N 17)
    )
    max_grad_norm: float = 1.0  # PM-code
    # of the matrix products; auto: see device.py; ours, measured
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # whether blocks are computed again in the backward pass, and keep their input alone: less memory, a third more work; ours
    gradient_checkpointing: bool = False
    # of several processes: all hold all weights, or each its part (FSDP2); ours
    sharding: Literal["none", "full"] = "none"
    checkpoint_seconds: float = 30.0  # between checkpoints; more where one takes long (runs/cadence.py); ours
    checkpoint_steps: int = 0  # > 0: every so many updates instead; ours
    threads: int = 0  # torch threads; 0 = as the environment says; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 0, "seed", "learning_rate", "weight_decay", "checkpoint_seconds", "checkpoint_steps", "threads")
        at_least(self, 1, "epochs")
        shares(self, "warmup_share", "final_share", "adam_beta2")
        above_zero(self, "adam_eps")
        if self.max_grad_norm <= 0:
            raise BadConfig("max_grad_norm must be above 0")
