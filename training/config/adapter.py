"""Settings of low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), the same for every job that trains a model."""

import dataclasses
from typing import Literal

from training.config.loading import BadConfig, above_zero, at_least, shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Whether all weights are trained, or small adapters beside frozen ones."""

    lora_rank: int = 0  # 0 = all weights are trained; Hu et al. used 1 to 64, 8 and 16 serve most
    lora_alpha: int = 16  # the adapter's output is scaled by alpha / rank (Hu et al. 4.1)
    lora_dropout: float = 0.0  # on the adapters' input; ours: 0, as everywhere here
    # names of linear layers; auto = all those of the blocks (QLoRA, Dettmers et al. 2023)
    lora_targets: tuple[str, ...] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 0, "lora_rank")
        above_zero(self, "lora_alpha")
        shares(self, "lora_dropout")
        if not self.lora_targets or self.lora_dropout == 1:
            raise BadConfig("lora_targets must name a layer, and lora_dropout must be below 1")
