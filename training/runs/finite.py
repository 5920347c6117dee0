"""Numbers that are none: a job that measures stops at the first one, says whose it is and which model is likely at fault.

Further on a NaN would count as a tie, or be the last thing that a run says before JSON refuses it.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from training.failure import JobFailed
from training.runs.named import model_directories

Whose = Callable[[int], str]  # in words, from the place in the list that the number stands in


class Wrong(NamedTuple):
    """A number that is none: its name, and its place in the outermost list around it."""

    name: str
    number: float
    place: int


def require_finite(found: Any, settings: Any, whose: Whose, kept: str = "") -> None:
    """JobFailed where a number in `found`, a JSON value, is not finite; `kept` says what is left of the run.

    `settings` name the models that it may come from. Their files are read only then.
    """
    wrong = next(_wrong(found, "a number", None), None)
    if wrong is not None:
        left = f" ({kept})" if kept else ""
        raise JobFailed(f"{wrong.name} is {wrong.number} for {whose(wrong.place)}: {_cause(settings)}{left}")


def _wrong(value: Any, name: str, place: int | None) -> Iterator[Wrong]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Wrong(name, value, place or 0)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _wrong(inner, key, place)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _wrong(inner, name, number if place is None else place)


def _cause(settings: Any) -> str:
    """What is likely wrong and what to do."""
    for root in model_directories(settings):
        weight = _first_unsound(root)
        if weight is not None:
            return (
                f"the weight {weight} in {root} is not finite, so that model gives no numbers; restore it from a copy or "
                "name another one, in a new folder"
            )
    exact = ' with "precision": "float32", or' if isinstance(settings, dict) and "precision" in settings else ""
    return (
        "the weights of every model that the settings name are finite, so what one of them computes overflows; "
        f"measure{exact} with another model, in a new folder"
    )


def _first_unsound(root: Path) -> str | None:
    """The first weight in the files of a model with a number that is not finite."""
    from safetensors import safe_open  # here: run folders are used without torch, and a job that goes well needs it not

    for file in sorted(root.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                if not bool(tensors.get_tensor(name).isfinite().all()):
                    return str(name)
    return None
