"""What is asked for one candidate, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from server.language import later
from training.lines.records import Message

# What the person in the chat is told; the candidate's row has the reason with names and paths for who runs the installation.
TOLD_NOT_LOADED = later(
    "The model that should answer could not be loaded. Whoever runs this site finds the reason in its log; try again later."
)
TOLD_AWAY = later("The model that should answer cannot be reached at the moment. Try again in a minute.")
TOLD_BROKEN = later(
    "The model stopped while it was answering. Try again; if it happens twice, whoever runs this site should look at its log."
)


@dataclass(frozen=True)
class Source:
    """The snapshot that shall write: a row's content, without its session."""

    id: int
    name: str
    backend: str
    path: str | None
    endpoint: dict[str, Any] | None
    manifest: dict[str, Any] = field(repr=False)
    kind: str = "policy"
    best_of: BestOf | None = None

    @property
    def streams(self) -> bool:
        """Whether its text can be shown while it is written."""
        if self.best_of is not None:  # which of its replies it will be is known in the end
            return False
        return self.backend == "local" or bool((self.endpoint or {}).get("streams", True))


@dataclass(frozen=True)
class BestOf:
    """What a best-of snapshot answers with: the one of `k` replies of `policy` that `pm` scores highest."""

    policy: Source
    pm: Source
    k: int


@dataclass(frozen=True)
class Ask:
    """One candidate to be written."""

    candidate_id: int
    turn_id: int
    position: int
    attempt: int  # 1 the first time; more after a crash or a person's retry
    claim: str
    source: Source
    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Written:
    """A whole reply. `log_probability`: nats, summed over its `token_count` tokens, the end token among them."""

    text: str
    log_probability: float | None
    token_count: int | None
    finish_reason: str
    notes: dict[str, Any] = field(default_factory=dict)  # joins the candidate's sampling settings


@dataclass(frozen=True)
class Failed:
    """No reply: the reason for who runs the installation, and what the person is told."""

    reason: str
    told: str


Outcome = Written | Failed


class CannotAnswer(Exception):
    """This snapshot cannot write this reply; carries both sentences of a Failed."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(reason)
        self.failed = Failed(reason, told)
