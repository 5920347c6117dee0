"""What may be set for one round, checked when it is asked for and not when it fails an hour later.

The settings of the training jobs (`preference.*`, `policy.*`) are checked by the worker before it freezes a dataset: only
`training` knows their names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from server.errors import BadInput
from server.services.data.dataset_selection import DatasetSelection, parse_selection


@dataclass(frozen=True)
class GateThresholds:
    """What a round's models must reach to be deployed without a person's word."""

    minimum_test_pairs: int = 20  # with fewer, no accuracy says anything: at 20 its 95% interval is some 40 points wide
    accuracy_above: float = 0.5  # the lower bound of held-out accuracy must be above chance
    accuracy_confidence: float = 0.9  # of that one-sided bound, and of what chance may add to the calibration error
    calibration_error: float = 0.15  # at most, after taking off what chance alone gives with so few pairs
    kl: float = (
        60.0  # nats a reply from the initial policy; beyond it scores are mostly over-optimisation (2204.05862, 4.3)
    )
    win_rate: float = 0.5  # lower 95% bound, under the preference model, against the initial policy
    length_ratio_least: float = 0.4  # mean length of replies over the initial policy's
    eos_share: float = 0.5  # of replies that end by themselves; the rest were cut at max_new_tokens
    perplexity_left: float = 0.05  # of (perplexity - 1); near 0 it says the same thing to everyone
    length_ratio_most: float = 2.5  # longer is the commonest way to please a preference model for nothing


@dataclass(frozen=True)
class RoundSettings:
    """Everything about a round that differs from the defaults may be given as `section.name`."""

    initial: str | None = None  # name of the initial policy; else the one from which the open campaigns' policies grew
    continue_from_last: bool = False  # the paper retrains from the initial policy every time (2204.05862, 4.5)
    minimum_comparisons: int = 20  # usable ones; with fewer nothing is learnt and no gate can judge
    share: float = 1.0  # of the traffic that the new policy gets; the rest stays with those that serve now
    campaigns: tuple[str, ...] = ()  # slugs to deploy to; empty: every open one served by the same initial policy
    dataset: DatasetSelection = field(default_factory=DatasetSelection)
    gates: GateThresholds = field(default_factory=GateThresholds)
    preference: dict[str, Any] = field(default_factory=dict)  # settings of `python -m training.preference`
    policy: dict[str, Any] = field(default_factory=dict)  # settings of `python -m training.policy`


# What the worker fills in; nobody may point a job at another model or folder.
_OWN = {"preference": {"model"}, "policy": {"model", "preference_model"}}


def parse_settings(given: dict[str, Any]) -> RoundSettings:
    """Read stored or wanted settings; BadInput names the one that is unknown or cannot be used."""
    known = {item.name: item for item in fields(RoundSettings)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"There is no round setting {name!r}; known are {', '.join(known)}.", field=name)
        if name == "dataset":
            values[name] = parse_selection(_section(name, value))
        elif name == "gates":
            values[name] = _gates(_section(name, value))
        elif name in _OWN:
            values[name] = _section(name, value)
            for own in _OWN[name] & set(value):
                raise BadInput(
                    f"{name}.{own} is filled in by the round itself and cannot be set.", field=f"{name}.{own}"
                )
        else:
            values[name] = _plain(name, value)
    return RoundSettings(**values)


def _section(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{name} holds several settings; give them as {name}.NAME.", field=name)
    return value


def _plain(name: str, value: Any) -> Any:
    if name == "campaigns" and isinstance(value, str):
        value = [value]
    fitting = {
        "initial": isinstance(value, str) or value is None,
        "continue_from_last": isinstance(value, bool),
        "minimum_comparisons": _whole(value) and value >= 1,
        "share": _number(value) and 0 < value <= 1,
        "campaigns": isinstance(value, list) and all(isinstance(slug, str) for slug in value),
    }[name]
    if not fitting:
        raise BadInput(f"{name} cannot be {value!r}.", field=name)
    return tuple(value) if isinstance(value, list) else value


def _gates(given: dict[str, Any]) -> GateThresholds:
    known = [item.name for item in fields(GateThresholds)]
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"There is no gate {name!r}; known are {', '.join(known)}.", field=f"gates.{name}")
        if not _number(value):
            raise BadInput(f"gates.{name} must be a number, not {value!r}.", field=f"gates.{name}")
    found = GateThresholds(**given)
    if not 0.5 <= found.accuracy_confidence < 1:
        raise BadInput("gates.accuracy_confidence must lie between 0.5 and 1.", field="gates.accuracy_confidence")
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_assignments(lines: list[str]) -> dict[str, Any]:
    """Turn `policy.episodes=500` lines, as the command line and the start form take them, into nested settings."""
    found: dict[str, Any] = {}
    for line in lines:
        path, equals, text = line.partition("=")
        section, dot, name = path.strip().partition(".")
        if not equals or not section or (dot and not name):
            raise BadInput(f"{line!r} is no setting; write NAME=VALUE, such as policy.episodes=500.", field="settings")
        value = _value(text.strip())
        if not dot:
            found[section] = value
        elif isinstance(found.setdefault(section, {}), dict):
            found[section][name] = value
    return found


def _value(text: str) -> Any:
    """Numbers, true, false, null and lists as JSON; everything else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
