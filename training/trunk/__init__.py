"""The trunk of a model over packed sequences: hidden states of exactly the Hugging Face module, the fastest way there is.

`trunk_for` gives the fused trunk where it knows the architecture exactly, and the module's own forward pass elsewhere.
"""

import os
from typing import Any, Protocol

from torch import Tensor

from training.trunk.fused import FusedTrunk, has_plain_head, is_fusible_trunk
from training.trunk.general import SHARE_PROMPTS, GeneralTrunk
from training.trunk.packing import Packed

__all__ = ["SHARE_PROMPTS", "FusedTrunk", "GeneralTrunk", "Trunk", "has_plain_head", "is_fusible_trunk", "trunk_for"]


class Trunk(Protocol):
    """A backbone that reads packed sequences; `shares` says whether a prompt is computed once for all its replies."""

    shares: bool

    def hidden(self, packing: Packed, columns: Tensor | None = None) -> Tensor:
        """The last hidden states at `columns` [M], or at all columns; differentiable in the backbone's parameters.  -> [M, d]"""


def trunk_for(backbone: Any, *, half: bool = False) -> Trunk:
    """The fused trunk where it computes exactly what `backbone` does, else the general one; `half`: products in bfloat16.

    WHETSTONE_FUSED=0 in the environment gives the general one always.
    """
    plain = os.environ.get("WHETSTONE_FUSED") == "0"
    return (GeneralTrunk if plain or not is_fusible_trunk(backbone) else FusedTrunk)(backbone, half=half)
