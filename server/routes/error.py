"""The page of every error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from server.pages import Page


@dataclass(frozen=True)
class ErrorPage(Page):
    """What happened and what to do."""

    template: ClassVar[str] = "error.html"
    status: int
    message: str
    code: str
