"""Numbers of rows as they stand in addresses; what no bigint column can hold names nothing."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

LARGEST = 2**63 - 1

RowId = Annotated[int, Path(ge=1, le=LARGEST)]


def row_id(text: str) -> int | None:
    """The row a query names; None when it is empty or names no row."""
    return int(text) if text.isdecimal() and len(text) < 20 and 0 < int(text) <= LARGEST else None
