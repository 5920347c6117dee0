"""Gates on numbers worked by hand."""

from __future__ import annotations

import pytest

from server.services.rounds.round_settings import GateThresholds
from workers.gates import (
    all_passed,
    lower_bound,
    policy_gates,
    preference_gates,
    unseen_accuracy,
    why_held,
)

PM = {
    "accuracy": 0.7,
    "test_pairs": 100,
    "independent_pairs": 100.0,
    "pairs": 400,
    "online_accuracy": None,
    "calibration_error": 0.10,
    "calibration_bins": [],
}
POLICY = {
    "win_rate": 0.7, "win_rate_ci95": [0.6, 0.8], "kl": 9.0, "length_mean": 40.0, "length_mean_before": 32.0,
    "eos_share": 0.98, "perplexity": 1.5, "perplexity_before": 2.0,
}  # fmt: skip


def passed(gates: dict) -> dict[str, bool]:
    return {name: gate.passed for name, gate in gates.items()}


def test_wilson_by_hand():
    # p = 1/2, n = 100, z = 1.2816: (0.5 + 0.008212 - 1.2816 sqrt(0.0025 + 0.0000411)) / 1.016424 = 0.43644
    assert lower_bound(0.5, 100, 0.9) == pytest.approx(0.43644, abs=1e-4)
    assert lower_bound(1.0, 10, 0.9) == pytest.approx(0.8589, abs=1e-3)  # n / (n + z²)


def test_a_good_preference_model_passes():
    assert all_passed(preference_gates(PM, GateThresholds()))


@pytest.mark.parametrize(
    ("change", "stopped_by"),
    [
        ({"accuracy": 0.55}, {"accuracy"}),
        ({"calibration_error": 0.2}, {"calibration_error"}),
        ({"test_pairs": 19}, {"test_pairs", "accuracy", "calibration_error"}),
        (
            {"test_pairs": 0, "accuracy": None, "calibration_error": None},
            {"test_pairs", "accuracy", "calibration_error"},
        ),
    ],
)
def test_a_bad_one_is_held_by_name(change: dict, stopped_by: set[str]):
    gates = preference_gates(PM | change, GateThresholds())
    assert {name for name, ok in passed(gates).items() if not ok} == stopped_by
    assert not all_passed(gates)


def test_pairs_told_before_they_were_learnt_count_as_unseen():
    few = PM | {"accuracy": 0.6, "test_pairs": 30, "independent_pairs": 30.0, "pairs": 240, "online_accuracy": 0.65}
    assert unseen_accuracy(few) == (150, pytest.approx((18 + 78) / 150))
    assert preference_gates(few, GateThresholds())["accuracy"].passed
    assert not preference_gates(few | {"online_accuracy": None}, GateThresholds())["accuracy"].passed
    assert not preference_gates(few | {"online_accuracy": 0.5}, GateThresholds())["accuracy"].passed


def test_pairs_of_one_conversation_count_as_what_they_tell_together():
    # 0.56 of 400 pairs: 0.56 - 1.2816 sqrt(0.2464 / 400) is 0.528; of 80 independent ones 0.489
    shaky = PM | {"accuracy": 0.56, "test_pairs": 400, "independent_pairs": 400.0}
    assert preference_gates(shaky, GateThresholds())["accuracy"].value == pytest.approx(0.528, abs=1e-3)
    together = preference_gates(shaky | {"independent_pairs": 80.0}, GateThresholds())["accuracy"]
    assert together.value == pytest.approx(0.489, abs=2e-3) and not together.passed
    assert "as much as 80 independent ones" in together.note
    assert "independent" not in preference_gates(shaky, GateThresholds())["accuracy"].note


def test_too_few_pairs_say_so():
    gates = preference_gates(PM | {"test_pairs": 4}, GateThresholds())
    assert "only 4 held-out pairs: too few to decide" in why_held(gates)


def test_few_pairs_in_many_bins_are_not_blamed_for_noise():
    bins = [{"count": 3, "confidence": 0.55 + 0.05 * place} for place in range(8)]
    noisy = PM | {"test_pairs": 24, "accuracy": 0.8, "calibration_error": 0.25, "calibration_bins": bins}
    assert preference_gates(noisy, GateThresholds())["calibration_error"].passed


def test_a_good_policy_passes():
    assert all_passed(policy_gates(POLICY, GateThresholds(), unloadable=None))


@pytest.mark.parametrize(
    ("change", "stopped_by"),
    [
        ({"win_rate_ci95": [0.49, 0.7]}, "win_rate"),
        ({"kl": 61.0}, "kl"),
        ({"length_mean": 81.0}, "length_ratio_most"),
        ({"length_mean": 12.0}, "length_ratio_least"),
        ({"eos_share": 0.4}, "eos_share"),
        ({"perplexity": 1.01}, "perplexity_left"),
        ({"kl": float("nan")}, "kl"),
    ],
)
def test_a_bad_policy_is_held_by_name(change: dict, stopped_by: str):
    gates = policy_gates(POLICY | change, GateThresholds(), unloadable=None)
    assert [name for name, ok in passed(gates).items() if not ok] == [stopped_by]


def test_a_policy_that_cannot_be_loaded_is_held_with_the_reason():
    gates = policy_gates(POLICY, GateThresholds(), unloadable="model.safetensors is damaged")
    assert not gates["weights_load"].passed
    assert "model.safetensors is damaged" in why_held(gates)


def test_thresholds_are_the_round_s_own():
    assert not preference_gates(PM, GateThresholds(accuracy_above=0.65))["accuracy"].passed
    assert policy_gates(POLICY | {"kl": 61.0}, GateThresholds(kl=100), unloadable=None)["kl"].passed
