"""Data in which one text stands everywhere: a model would learn to know that text and nothing of why."""

from collections.abc import Hashable, Mapping, Sequence

from training.data.batches import Ranked
from training.data.feedback import Feedback
from training.failure import JobFailed
from training.lines.pmp import BAD, GOOD
from training.lines.records import Comparison

FEW = 8  # texts; among fewer it is no wonder when all are the same


def refuse_one_text(sides: Mapping[str, Sequence[Hashable]], what: str, advice: str) -> None:
    """Stop when one of the `sides` is the same in all its `what` (examples, demonstrations)."""
    for side, texts in sides.items():
        if len(texts) >= FEW and len(set(texts)) == 1:
            raise JobFailed(
                f"the {side} is the same in all {len(texts)} {what}: the model would learn that one text; {advice}"
            )


def refuse_one_sided(elements: Sequence[Ranked], objective: str, records: Sequence[Feedback] = ()) -> None:
    """Stop when the data show one side alone, or one text on a side; of binarised `records` the text without its tag."""
    if objective == "binary" and len({element.good for element in elements}) == 1:
        only = "good" if elements[0].good else "bad"
        raise JobFailed(
            f"every reply is marked {only}: binary discrimination needs good and bad ones; add the other kind"
        )
    if objective == "ranked":
        best, worst = ([tuple(element.replies[place]) for element in elements] for place in (0, -1))
        sides = {"best reply": best, "worst reply": worst}
    else:
        good, bad = (
            [tuple(element.replies[0]) for element in elements if element.good is mark] for mark in (True, False)
        )
        sides = {"good reply": good, "bad reply": bad}
    pairs = [record for record in records if isinstance(record, Comparison)]
    untagged: dict[str, Sequence[Hashable]] = {
        f"{side} of the pairs": [pair.chosen.removeprefix(tag) for pair in pairs if pair.chosen.startswith(tag)]
        for side, tag in (("better reply", GOOD), ("worse reply", BAD))
    }
    refuse_one_text(sides | untagged, "examples", "add comparisons in which other replies stand there")
