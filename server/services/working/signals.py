"""What the browser noticed while somebody worked: evidence for admins, stored beside the answer, and never a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.errors import BadInput
from server.language import _
from server.models import Campaign

# Milliseconds that the item was in sight, and of those the ones in which somebody was active; characters that were typed
# and that were pasted into its boxes.
MEASURED = ("visible_ms", "active_ms", "typed_chars", "pasted_chars")
_MOST = 10**9


def checked(given: Mapping[str, Any] | None, campaign: Campaign, milliseconds: int) -> dict[str, Any]:
    """The signals to store: what was measured, and whether the answer came faster than the campaign holds possible.

    BadInput for a name that is not in the closed list or a value that is no count.
    """
    found: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name not in MEASURED:
            raise BadInput(_("There is no signal {name}.", name=name[:40]), field="signals")
        if type(value) is not int or not 0 <= value <= _MOST:
            raise BadInput(_("The signal {name} must be a whole number, not negative.", name=name), field="signals")
        found[name] = value
    if milliseconds < campaign.too_fast_seconds * 1000:
        found["too_fast"] = True
    return found
