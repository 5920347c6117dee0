"""One pair of a dataset version with the text it is about."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Member:
    """A pair to learn from; `person` is a pseudonym. One that comes of an edit has no comparison."""

    comparison_id: int | None
    split: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str
    strength: int | None
    mode: str
    conversation: str
    person: str | None
    round: int | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The canonical line that the version's hash is over."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
