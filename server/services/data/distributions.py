"""Which kind of model wrote what people judged: base, rs or online (Bai et al. 2022, section 2.3).

Accuracy of a preference model is told apart by it, since better replies are harder to tell from each other (section 4.5).
"""

from __future__ import annotations

DISTRIBUTIONS = ("base", "rs", "online")  # in the order in which the paper came to collect them
OF_ORIGIN = {"initial": "base", "registered": "base", "best_of": "rs", "round": "online"}


def distribution(*origins: str | None) -> str | None:
    """The latest among the distributions of replies, by their snapshots' origins; None where no snapshot wrote any.

    A reply of a person or of an import has no origin and does not count.
    """
    found = [OF_ORIGIN[origin] for origin in origins if origin is not None]
    return max(found, key=DISTRIBUTIONS.index, default=None)
