"""Items as lines of text: one JSON object a line; a bad line is named with its number, and then none is taken."""

from __future__ import annotations

import json
from collections.abc import Iterable

from server.errors import BadInput
from server.services.items.items import Item, item_of


def read(lines: Iterable[str]) -> list[Item]:
    """The items of the lines, empty ones aside; BadInput names the first bad line and says why."""
    found = []
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("\ufeff").strip()
        if not text:
            continue
        try:
            found.append(item_of(json.loads(text)))
        except json.JSONDecodeError as error:
            raise BadInput(
                f"Line {number} is not JSON: {error.msg} at character {error.colno}.", field="lines"
            ) from error
        except RecursionError as error:
            raise BadInput(f"Line {number} is nested too deeply.", field="lines") from error
        except BadInput as error:
            raise BadInput(f"Line {number} {error.message}", field="lines") from error
    if not found:
        raise BadInput("There is no item in it; write one a line.", field="lines")
    return found
