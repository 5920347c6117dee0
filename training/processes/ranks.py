"""Which of a run's processes this one is, as torchrun and `accelerate launch` say it in the environment; loads no torch."""

import os


def size() -> int:
    """How many processes do this run together."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "MASTER_ADDR" in os.environ else 1


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def local_rank() -> int:
    """Its number among those of the same host: which of the host's accelerators is its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size() > 1 else 0


def leads() -> bool:
    """Whether this process alone writes files, metrics and the bar."""
    return rank() == 0
