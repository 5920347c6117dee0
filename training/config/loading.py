"""From config.json to a frozen config: what is missing takes its default, what is wrong is refused by name."""

import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar


class BadConfig(ValueError):
    """A setting that is unknown, of the wrong type or outside its range; the message names it."""


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise BadConfig for the first named setting below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise BadConfig(f"{name} must be at least {least}, not {getattr(config, name)}")


def above_zero(config: Any, *names: str) -> None:
    """Raise BadConfig for the first named setting that is not above 0."""
    for name in names:
        if getattr(config, name) <= 0:
            raise BadConfig(f"{name} must be above 0, not {getattr(config, name)}")


def shares(config: Any, *names: str) -> None:
    """Raise BadConfig for the first named setting outside [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise BadConfig(f"{name} must lie between 0 and 1, not {getattr(config, name)}")


def required(config: Any, *names: str) -> None:
    """Raise BadConfig for the first named setting that is empty: of a model or a file, which have no default."""
    for name in names:
        if not getattr(config, name):
            raise BadConfig(f"{name} is missing: name it in config.json or on the command line")


NEAR = 0.8  # of difflib: a slip of the finger; at less it finds something for every word
Config = TypeVar("Config")


def load_config(cls: type[Config], settings: Mapping[str, Any]) -> Config:
    """Build `cls` from `settings`; what is missing takes its default, an unknown key or a wrong type is a BadConfig."""
    kinds = typing.get_type_hints(cls)
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        near = " or ".join(map(repr, difflib.get_close_matches(unknown[0], kinds, 2, NEAR)))
        meant = f"did you mean {near}?" if near else f"{cls.__name__} knows {', '.join(sorted(kinds))}"
        raise BadConfig(f"unknown setting {unknown[0]!r}; {meant}")
    try:
        return cls(**{name: _fitting(name, value, kinds[name]) for name, value in settings.items()})
    except TypeError as missing:
        raise BadConfig(f"{cls.__name__}: {missing}") from missing


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind` (bool, int, float, str, Literal, tuple, dict, union of these) or raise BadConfig."""
    origin = typing.get_origin(kind)
    if isinstance(value, float) and not math.isfinite(value):
        raise BadConfig(f"{name} must be a number, not {value}")
    if origin is Literal:
        if value in typing.get_args(kind) and not isinstance(value, bool):
            return value
        raise BadConfig(f"{name} must be one of {', '.join(map(repr, typing.get_args(kind)))}, not {value!r}")
    if origin in {types.UnionType, typing.Union}:
        for option in typing.get_args(kind):
            if option is type(None) and value is None:
                return None
            if option is not type(None):
                try:
                    return _fitting(name, value, option)
                except BadConfig:
                    continue  # the next option of the union may fit
        raise BadConfig(f"{name} must be {' or '.join(map(_in_words, typing.get_args(kind)))}, not {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_fitting(name, item, typing.get_args(kind)[0]) for item in value)
    if origin is dict and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _fitting(f"{name}.{key}", item, typing.get_args(kind)[1]) for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python; a `true` where a number belongs is a mistake of whoever wrote the file
    if isinstance(value, kind if origin is None else origin) and isinstance(value, bool) == (kind is bool):
        return value
    raise BadConfig(f"{name} must be {_in_words(kind)}, not {value!r}")


def _in_words(kind: Any) -> str:
    """A type as a reader of config.json knows it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return f"a list of {_in_words(inner[0])}"
    if origin is dict:
        return f"an object of {_in_words(inner[1])}"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}.get(
        kind, str(kind)
    )


def beneath(
    begun: Mapping[str, Any], given: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the settings of the preset named in `given` or `begun` that neither of them sets itself.

    `begun` is config.json; one that a job has completed names every setting, so its preset cannot change any more.
    """
    preset = given.get("preset") or begun.get("preset", "starter")
    if preset not in presets:
        raise BadConfig(f"preset must be one of {', '.join(presets)}, not {preset!r}")
    first = begun.get("preset", "starter")
    if "job" in begun and preset != first:
        raise BadConfig(f"this folder was begun with the preset {first!r}; start a new one for {preset!r}")
    named = {name for name, value in given.items() if value is not None} | set(begun)
    return {name: value for name, value in presets[preset].items() if name not in named}
