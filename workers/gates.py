"""The checks between training and deployment: named numbers against named thresholds. Pure; no rows, no files.

A gate that too few pairs cannot decide says so and does not pass: a person decides then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from server.services.rounds.round_settings import GateThresholds
from training.measuring.calibration import chance_calibration_error, wilson_interval


@dataclass(frozen=True)
class Gate:
    """One check: `value` must stand in `rule` to `threshold`."""

    label: str
    value: float | None
    rule: str  # ">", ">=", "<="
    threshold: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value is there and on the right side."""
        if self.value is None or math.isnan(self.value):
            return False
        if self.rule == ">":
            return self.value > self.threshold
        return self.value >= self.threshold if self.rule == ">=" else self.value <= self.threshold

    def as_json(self) -> dict[str, Any]:
        """The form stored in the step."""
        return asdict(self) | {"passed": self.passed}


def preference_gates(result: Mapping[str, Any], wanted: GateThresholds) -> dict[str, Gate]:
    """Is the preference model better than chance on conversations it never saw, and does it know how sure it is?"""
    pairs = int(result["test_pairs"])
    few = f"only {pairs} held-out pairs: too few to decide" if pairs < max(1, wanted.minimum_test_pairs) else ""
    gates = {"test_pairs": Gate("Held-out pairs", float(pairs), ">=", wanted.minimum_test_pairs)}
    if few:
        undecided = ("accuracy", "Accuracy on unseen pairs, lower bound", ">", wanted.accuracy_above), (
            "calibration_error", "Calibration error", "<=", wanted.calibration_error
        )  # fmt: skip
        return gates | {name: Gate(label, None, rule, threshold, few) for name, label, rule, threshold in undecided}
    unseen, accuracy = unseen_accuracy(result)
    # those of one conversation go together; a run of an older version says nothing of it
    told = unseen * float(result.get("independent_pairs", pairs)) / pairs
    lower = lower_bound(accuracy, told, wanted.accuracy_confidence)
    by_chance = chance_calibration_error(result.get("calibration_bins") or [], wanted.accuracy_confidence)
    error = float(result["calibration_error"])
    return gates | {
        "accuracy": Gate(
            "Accuracy on unseen pairs, lower bound", lower, ">", wanted.accuracy_above,
            f"{result['accuracy']:.1%} of {pairs} held-out pairs; with {unseen - pairs} training pairs told before they were "
            f"learnt {accuracy:.1%} of {unseen}"
            + (f", which tell as much as {told:.0f} independent ones" if round(told) < unseen else "")
            + f"; one-sided bound at {wanted.accuracy_confidence:.0%}",
        ),
        "calibration_error": Gate(
            "Calibration error beyond chance", max(0.0, error - by_chance), "<=", wanted.calibration_error,
            f"{error:.3f} measured; a perfectly calibrated model shows up to {by_chance:.3f} on {pairs} pairs",
        ),
    }  # fmt: skip


def policy_gates(result: Mapping[str, Any], wanted: GateThresholds, *, unloadable: str | None) -> dict[str, Gate]:
    """Is the new policy preferred, still near the initial one, not much longer, and can it be served?

    `unloadable` is the reason why its directory cannot be served, None when it can.
    """
    win_lower, win_upper = result["win_rate_ci95"]
    ratio = _length_ratio(result)
    return {
        "weights_load": Gate("The new policy can be loaded", float(unloadable is None), ">=", 1.0, unloadable or ""),
        "win_rate": Gate(
            "Win rate under the preference model, lower bound", float(win_lower), ">=", wanted.win_rate,
            f"{result['win_rate']:.1%} against the initial policy, 95% interval {win_lower:.1%} to {win_upper:.1%}",
        ),
        "kl": Gate("KL from the initial policy, nats a reply", float(result["kl"]), "<=", wanted.kl),
        "length_ratio_least": Gate("Reply length over the initial policy's", ratio, ">=", wanted.length_ratio_least),
        "length_ratio_most": Gate("Reply length over the initial policy's", ratio, "<=", wanted.length_ratio_most),
        "eos_share": Gate("Replies that end by themselves", result.get("eos_share"), ">=", wanted.eos_share),
        "perplexity_left": Gate(
            "Variety left: (perplexity - 1) over the initial policy's", _variety(result), ">=", wanted.perplexity_left
        ),
    }  # fmt: skip


def _length_ratio(result: Mapping[str, Any]) -> float | None:
    before, after = result.get("length_mean_before"), result.get("length_mean")
    return None if not before or after is None else float(after) / float(before)


def _variety(result: Mapping[str, Any]) -> float | None:
    """0 when the policy has only one reply left to every prompt, 1 when it is as varied as the initial one."""
    before, after = result.get("perplexity_before"), result.get("perplexity")
    return None if before is None or after is None or before <= 1 else (float(after) - 1) / (float(before) - 1)


def unseen_accuracy(result: Mapping[str, Any]) -> tuple[int, float]:
    """(pairs, share told right) over the held-out pairs and the later half of the first epoch, told before being learnt.

    A few dozen held-out pairs alone cannot tell 65% from a coin; the other pairs are as unseen at that moment, and judged by
    a model that had learnt less, so that they flatter nothing.
    """
    held_out, online = int(result["test_pairs"]), result.get("online_accuracy")
    late = int(result["pairs"]) // 2 if online is not None else 0
    told_right = held_out * float(result["accuracy"]) + late * float(online or 0.0)
    return held_out + late, told_right / (held_out + late)


def lower_bound(share: float, count: float, confidence: float) -> float:
    """Wilson's one-sided lower bound of a proportion."""
    return wilson_interval(share, count, NormalDist().inv_cdf(confidence))[0]


def all_passed(gates: Mapping[str, Gate]) -> bool:
    """Whether nothing stands in the way."""
    return all(gate.passed for gate in gates.values())


def why_held(gates: Mapping[str, Gate]) -> str:
    """One sentence naming the gates that were not passed."""
    words = []
    for gate in gates.values():
        if not gate.passed:
            value = "not known" if gate.value is None else f"{gate.value:.3g}"
            words.append(
                f"{gate.label}: {value}, wanted {gate.rule} {gate.threshold:g}"
                + (f" ({gate.note})" if gate.note else "")
            )
    return "Held for a person. " + "; ".join(words) + "."
