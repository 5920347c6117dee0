"""How many tokens a model reads."""

from typing import Any

UNSTATED = 2048  # of a model whose config names no limit: what a table of keys and values, and a pass, are made for


def context_of(*configs: Any) -> int:
    """The tokens that the models of these configs all read: the least of their positions, UNSTATED where one names none."""
    return min(int(getattr(config, "max_position_embeddings", None) or UNSTATED) for config in configs)
