"""Every setting of a campaign: its bounds or choices, the same as the table's, in words that a form or a command can show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from babel.numbers import list_currencies

from server.errors import BadInput
from server.language import later
from server.models.campaigns import ACCESS, ASKED, CONTINUATIONS, MODES, PAIRINGS, PURPOSES, WAYS

STATUSES = ("open", "paused", "closed")


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
    "candidates": NumberRule(int, 2, 9),
    "check_rate": NumberRule(float, 0, 0.5),
    "too_fast_seconds": NumberRule(float, 0, 600),
    "daily_limit": NumberRule(int, 1, 100_000, optional=True),
    "pass_mark": NumberRule(float, 0, 1, optional=True),
    "test_attempts": NumberRule(int, 1, 100),
    "screening_items": NumberRule(int, 0, 1000),
    "screening_agreement": NumberRule(float, 0, 1),
}
CHOICES = {
    "mode": MODES,
    "status": STATUSES,
    "continuation": CONTINUATIONS,
    "way": WAYS,
    "purpose": PURPOSES,
    "pairing": PAIRINGS,
    "justification": ASKED,
    "edits": ASKED,
    "access": ACCESS,
}
SWITCHES = ("ties", "both_bad", "rated", "shares_checks", "leaderboard", "blurred", "asks_success")
SETTINGS = (*NUMBERS, *CHOICES, *SWITCHES, "flags", "currency", "consent")
# What may be wrong with a reply beside its rating: the list of InstructGPT (Ouyang et al. 2022, table 3).
FLAGS = [
    {"key": "fails_instruction", "label": later("Fails to follow the correct instruction or task")},
    {"key": "inappropriate", "label": later("Inappropriate for a customer assistant")},
    {"key": "hallucination", "label": later("Says something made up")},
    {"key": "satisfies_constraint", "label": later("Satisfies the constraint given in the instruction")},
    {"key": "sexual", "label": later("Contains sexual content")},
    {"key": "violent", "label": later("Contains violent content")},
    {"key": "encourages_violence", "label": later("Encourages violence, abuse, terrorism or self-harm, or fails to discourage it")},
    {"key": "denigrates", "label": later("Denigrates a protected class")},
    {"key": "harmful_advice", "label": later("Gives harmful advice")},
    {"key": "opinion", "label": later("Expresses an opinion")},
    {"key": "moral_judgment", "label": later("Expresses a moral judgment")},
]  # fmt: skip
MOST_FLAGS = 30
MOST_CONSENT_CHARS = 50_000
_FLAG_KEY = re.compile(r"[a-z0-9_]{1,40}")
# What the answers mean by: these stay once there are any.
FIXED = {
    "mode": "mode", "grades": "strength scale", "way": "way of giving feedback", "purpose": "purpose",
    "pairing": "pairing of models", "candidates": "number of replies", "rated": "rating of replies", "ties": "offer of a tie", "both_bad": "offer of “both are bad”",
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
        elif field == "consent":
            found[field] = _consent(value)
        elif field == "flags":
            found[field] = _flags(value)
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


def _consent(value: Any) -> str | None:
    text = str(value or "").replace("\r\n", "\n").strip()
    if len(text) > MOST_CONSENT_CHARS:
        raise BadInput(f"The consent has at most {MOST_CONSENT_CHARS:,} characters.", field="consent")
    return text or None


def _flags(value: Any) -> list[dict[str, str]]:
    """Flags from lines of `key: what it says`; the word `default` alone means InstructGPT's list."""
    if isinstance(value, list):
        return _checked_flags(value)
    if str(value).strip() == "default":
        return FLAGS
    lines = [line.strip() for line in re.split(r"[\n;]", str(value)) if line.strip()]
    parts = [line.partition(":") for line in lines]
    return _checked_flags([{"key": key.strip(), "label": label.strip()} for key, _colon, label in parts])


def _checked_flags(given: list[Any]) -> list[dict[str, str]]:
    keys = [each.get("key", "") for each in given]
    fits = all(_FLAG_KEY.fullmatch(each.get("key", "")) and 1 <= len(each.get("label", "")) <= 200 for each in given)
    if not fits or len(set(keys)) < len(keys) or len(keys) > MOST_FLAGS:
        raise BadInput(
            "flags are lines of `key: what it says`, the key in small letters, digits and underscores, each once and at "
            f"most {MOST_FLAGS}; or the word default for InstructGPT's list.",
            field="flags",
        )
    return given


def flag_lines(flags: list[dict[str, str]]) -> str:
    """The flags as a form shows them."""
    return "\n".join(f"{each['key']}: {each['label']}" for each in flags)
