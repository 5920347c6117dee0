"""Hand-worked numbers of accuracy, interval, log loss and calibration."""

import math
import random

import pytest

from training.batches import Ranked
from training.calibration import (
    accuracy,
    expected_calibration_error,
    log_loss,
    probability,
    reliability_bins,
    wilson_interval,
)
from training.report import report


def test_a_tie_counts_half():
    assert accuracy([2.0, -1.0, 0.0, 0.5]) == 0.625


def test_wilson_interval():
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.40383, abs=1e-5), pytest.approx(0.59617, abs=1e-5))
    low, high = wilson_interval(1.0, 10)
    assert (low, high) == (pytest.approx(0.72247, abs=1e-5), pytest.approx(1.0))
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def test_log_loss_of_a_coin_of_three_to_one_and_of_extremes():
    assert log_loss([0.0]) == pytest.approx(math.log(2))
    assert log_loss([math.log(3)]) == pytest.approx(math.log(4 / 3))
    assert log_loss([-1000.0, 1000.0]) == pytest.approx(500.0)
    assert (probability(-1000.0), probability(1000.0)) == (0.0, 1.0)


def test_calibration_error_by_hand():
    # 3:1 odds stated four times (confidence 0.75), right three times: no gap; certain twice, right once: gap 1/2
    margins = [math.log(3)] * 3 + [-math.log(3)] + [50.0, -50.0]
    bins = reliability_bins(margins, 5)
    assert [b["count"] for b in bins] == [0, 0, 4, 0, 2]
    assert (bins[2]["confidence"], bins[2]["accuracy"]) == (pytest.approx(0.75), 0.75)
    assert bins[0]["confidence"] is None
    assert expected_calibration_error(bins) == pytest.approx(2 / 6 * 0.5)


def test_a_judge_that_states_its_true_odds_is_calibrated():
    draw = random.Random(0)
    margins = []
    for _ in range(20_000):
        margin = abs(draw.gauss(0, 2))
        margins.append(margin if draw.random() < probability(margin) else -margin)
    assert expected_calibration_error(reliability_bins(margins, 10)) < 0.015
    doubled = [2 * margin for margin in margins]  # twice as sure as it should be
    assert expected_calibration_error(reliability_bins(doubled, 10)) > 0.05


def test_the_report_splits_by_mode_and_strength():
    pairs = [
        Ranked([1], ([2], [3]), (1, 2), strength=strength, mode=mode)
        for strength, mode in ((2, "helpful"), (4, "helpful"), (4, None))
    ]
    found = report(pairs, [[1.0, 0.0], [2.0, 3.0], [0.0, -5.0]], 10)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["test_pairs"] == 3
    assert found["margin_mean"] == pytest.approx(5 / 3)
    assert {k: v["accuracy"] for k, v in found["accuracy_by_mode"].items()} == {"helpful": 0.5}
    assert {k: (v["pairs"], v["accuracy"]) for k, v in found["accuracy_by_strength"].items()} == {
        "2": (1, 1.0),
        "4": (2, 0.5),
    }


def test_without_a_pair_nothing_is_claimed():
    found = report([], [], 10)
    assert found["accuracy"] is None and found["accuracy_ci95"] is None and found["test_pairs"] == 0
