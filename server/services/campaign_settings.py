"""Every setting of a campaign: its bounds or choices, the same as the table's, in words that a form or a command can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from babel.numbers import list_currencies

from server.errors import BadInput
from server.models.campaigns import ASKED, CONTINUATIONS, MODES, PAIRINGS, PURPOSES

STATUSES = ("open", "paused", "closed")
WAYS = ("chat", "pairs")  # the ways that people can work in now


@dataclass(frozen=True)
class NumberRule:
    """The bounds of a numeric setting; the same as the table's CHECK, in words that a form can show."""

    kind: type
    low: float
    high: float
    above_low: bool = False  # low itself is not allowed
    optional: bool = False

    def sentence(self, field: str) -> str:
        """What a person who typed something else should type."""
        number = "a whole number" if self.kind is int else "a number"
        span = (
            f"above {self.low:g} and at most {self.high:g}" if self.above_low else f"from {self.low:g} to {self.high:g}"
        )
        return f"{field.replace('_', ' ')} must be {number} {span}{', or empty' if self.optional else ''}."


NUMBERS = {
    "grades": NumberRule(int, 1, 4),
    "overlap": NumberRule(int, 1, 20),
    "quota": NumberRule(int, 1, 1_000_000_000, optional=True),
    "pay_per_hour": NumberRule(Decimal, 0, 999_999, optional=True),
    "temperature": NumberRule(float, 0, 2, above_low=True),
    "top_p": NumberRule(float, 0, 1, above_low=True),
    "max_new_tokens": NumberRule(int, 1, 4096),
    "max_turns": NumberRule(int, 1, 100),
    "max_message_chars": NumberRule(int, 1, 100_000),
    "lease_minutes": NumberRule(int, 1, 1440),
    "undo_seconds": NumberRule(int, 0, 86_400),
    "prepared": NumberRule(int, 0, 100),
    "check_rate": NumberRule(float, 0, 0.5),
    "too_fast_seconds": NumberRule(float, 0, 600),
}
CHOICES = {
    "mode": MODES,
    "status": STATUSES,
    "continuation": CONTINUATIONS,
    "way": WAYS,
    "purpose": PURPOSES,
    "pairing": PAIRINGS,
    "justification": ASKED,
}
SWITCHES = ("ties", "both_bad", "shares_checks", "leaderboard")
SETTINGS = (*NUMBERS, *CHOICES, *SWITCHES, "currency")
# What the answers mean by: these stay once there are any.
FIXED = {
    "mode": "mode", "grades": "strength scale", "way": "way of giving feedback", "purpose": "purpose",
    "pairing": "pairing of models", "ties": "offer of a tie", "both_bad": "offer of “both are bad”",
}  # fmt: skip
_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their types, or BadInput naming the field and its bounds in plain words."""
    found: dict[str, Any] = {}
    for field, value in given.items():
        if field in CHOICES:
            if value not in CHOICES[field]:
                raise BadInput(f"{field} must be one of {', '.join(CHOICES[field])}, not {value!r}.", field=field)
            found[field] = value
        elif field in NUMBERS:
            found[field] = _number(field, value, NUMBERS[field])
        elif field in SWITCHES:
            found[field] = _switch(field, value)
        elif field == "currency":
            found[field] = checked_currency(value)
        else:
            raise BadInput(f"A campaign has no setting {field!r}; it has {', '.join(SETTINGS)}.", field=field)
    return found


def checked_currency(code: Any) -> str:
    """An ISO 4217 code in capitals; BadInput for any other."""
    text = str(code).strip().upper()
    if text not in list_currencies("en"):
        raise BadInput(f"currency must be a code of ISO 4217, like USD or EUR, not {code!r}.", field="currency")
    return text


def _number(field: str, value: Any, rule: NumberRule) -> int | float | Decimal | None:
    text = str(value).strip() if value is not None else ""
    if not text and rule.optional:
        return None
    try:
        number = rule.kind(text)
        fits = rule.low <= number <= rule.high and not (rule.above_low and number == rule.low)
    except (ValueError, InvalidOperation) as error:
        raise BadInput(rule.sentence(field), field=field) from error
    if not fits:
        raise BadInput(rule.sentence(field), field=field)
    return number.quantize(Decimal("0.01")) if isinstance(number, Decimal) else number  # type: ignore[no-any-return]


def _switch(field: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _YES + _NO:
        raise BadInput(f"{field.replace('_', ' ')} must be yes or no, not {value!r}.", field=field)
    return text in _YES
