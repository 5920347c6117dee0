"""A local snapshot's weights, compared with the hashes of its row and put into an engine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from server.services.snapshots import registry
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.models.snapshots import BadSnapshot, load_policy, render
from training.sampling.engine import Engine, Request
from workers.reply.asks import TOLD_NOT_LOADED, CannotAnswer, Source
from workers.reply.stream import Pen

log = logging.getLogger("whetstone.reply")

MAX_SLOTS = 64  # replies written at once by one engine; more wait
MAX_LENGTH = 4096  # tokens of prompt and reply together, where the model can take more
# Keys and values of one engine. Memory that no reply has reached yet is not occupied.
TABLE_BYTES = 2 * 2**30


@dataclass
class Writing:
    """A reply that an engine is writing. `ids` without the end token; `tokens` counts it."""

    pen: Pen
    notes: dict[str, Any]
    ids: list[int] = field(default_factory=list)
    tokens: int = 0
    log_probability: float = 0.0


@dataclass
class Resident:
    """A snapshot in memory and what it is writing."""

    source: Source
    engine: Engine
    tokenizer: Any
    writing: dict[Pen, Writing] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        """Nothing is asked of it now."""
        return self.engine.idle


@dataclass
class Scorer:
    """A preference model in memory."""

    source: Source
    pm: PreferenceModel
    tokenizer: Any
    used: float = field(default_factory=time.monotonic)


def load_source(source: Source, artifacts: Path) -> Resident | Scorer:
    """Check and load a policy or a preference model; CannotAnswer says what is wrong with the files."""
    started = time.monotonic()
    folder = artifacts / (source.path or "")
    try:
        problem = registry.difference(folder, source.manifest)
        if problem:
            raise CannotAnswer(f"Snapshot {source.name} cannot be loaded: {problem}.", TOLD_NOT_LOADED)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        # The hashes were compared with the row's just now, which is more than the folder's own manifest could say.
        if source.kind == "pm":
            pm, tokenizer = PreferenceModel.load(folder, dtype, verify=False)
            log.info("Loaded %s in %.1f s.", source.name, time.monotonic() - started)
            return Scorer(source, pm.to(device), tokenizer)
        model, tokenizer = load_policy(folder, dtype, verify=False)
    except (BadSnapshot, OSError, MemoryError) as error:
        raise CannotAnswer(f"Snapshot {source.name} cannot be loaded: {error}.", TOLD_NOT_LOADED) from error
    length, slots = table_size(model.config)
    engine = Engine(model.to(device), tokenizer, slots=slots, max_length=length)
    _warm_up(engine, tokenizer)
    log.info("Loaded %s in %.1f s: %d slots of %d tokens.", source.name, time.monotonic() - started, slots, length)
    return Resident(source, engine, tokenizer)


def table_size(config: Any) -> tuple[int, int]:
    """(tokens a slot, slots) of an engine's key-value table that fits TABLE_BYTES."""
    length = min(context_of(config), MAX_LENGTH)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    column = 2 * config.num_hidden_layers * heads * size * 4  # keys and values, 4 bytes a number
    return length, max(2, min(MAX_SLOTS, TABLE_BYTES // (column * length)))


def _warm_up(engine: Engine, tokenizer: Any) -> None:
    """Let the first person not pay for what a first pass sets up."""
    engine.submit(Request("warm-up", render(tokenizer, [{"role": "user", "content": "Hello"}])[-64:], max_new_tokens=4))
    while not engine.idle:
        engine.step()
