"""Numbers of rows as they stand in addresses; what no bigint column can hold names nothing."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor

LARGEST = 2**63 - 1

RowId = Annotated[int, Path(ge=1, le=LARGEST)]


def row_id(text: str) -> int | None:
    """The row a query names; None when it is empty or names no row."""
    return int(text) if text.isdecimal() and len(text) < 20 and 0 < int(text) <= LARGEST else None


class _InAddress(Convertor[int]):
    """For a path with `{turn_id:row}`: no more digits than a row's number can have, since Python refuses to read thousands of them."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("row", _InAddress())
