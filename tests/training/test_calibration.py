"""Hand-worked numbers of accuracy, interval, log loss and calibration."""

import dataclasses
import math
import random

import pytest

from training.data.batches import Ranked
from training.measuring.calibration import (
    accuracy,
    chance_calibration_error,
    effective_count,
    expected_calibration_error,
    log_loss,
    probability,
    reliability_bins,
    wilson_interval,
)
from training.measuring.report import binary_report, report


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


def test_chance_alone_shows_a_calibration_error():
    # One bin of 50 pairs at 0.6: sqrt(2 · 0.24 / (50 π)) = 0.05528
    assert chance_calibration_error([{"count": 50, "confidence": 0.6}]) == pytest.approx(0.05528, abs=1e-5)
    # and in nine of ten cases at most 1.2816 · sqrt((1 - 2/π) · 0.24 / 50) = 0.05352 more
    assert chance_calibration_error([{"count": 50, "confidence": 0.6}], 0.9) == pytest.approx(0.10880, abs=1e-4)
    assert chance_calibration_error([{"count": 0, "confidence": None}]) == 0.0
    two = [{"count": 25, "confidence": 0.6}, {"count": 25, "confidence": 0.6}]
    assert chance_calibration_error(two) == pytest.approx(0.05528 * 2**0.5, abs=1e-5)


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


def test_the_report_splits_by_distribution():
    pairs = [Ranked([1], ([2], [3]), (1, 2), distribution=kind) for kind in ("base", "base", "online", None)]
    found = report(pairs, [[1.0, 0.0], [2.0, 3.0], [4.0, 1.0], [0.0, 5.0]], 10)["accuracy_by_distribution"]
    assert {kind: (of["pairs"], of["accuracy"]) for kind, of in found.items()} == {"base": (2, 0.5), "online": (1, 1.0)}
    assert found["base"]["accuracy_ci95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)  # Wilson's of 1 in 2, by hand


def test_pairs_of_one_ranking_count_as_what_they_tell_together():
    one_each = [1.0, -1.0, 1.0, 1.0]
    assert effective_count(one_each, [0, 1, 2, 3]) == 4
    # two rankings of three pairs that are right or wrong together tell as much as two pairs
    assert effective_count([1.0] * 3 + [-1.0] * 3, [0] * 3 + [1] * 3) == pytest.approx(2)
    # and by hand: share 1/2, groups off by +1/2 and -1/2 of their three: variance (1/4 + 1/4)/36, so 18, of 6 at most
    assert effective_count([1.0, 1.0, -1.0, 1.0, -1.0, -1.0], [0] * 3 + [1] * 3) == 6
    assert effective_count([2.0, 1.0, 1.0], [0, 0, 1]) == 2  # all right: no variance is seen
    together = report([Ranked([1], ([2], [3], [4]), (1, 2, 3))] * 4, [[3.0, 2.0, 1.0]] * 2 + [[1.0, 2.0, 3.0]] * 2, 10)
    assert together["test_pairs"] == 12 and together["accuracy"] == 0.5
    assert together["accuracy_ci95"] == list(wilson_interval(0.5, 4))


def test_pairs_of_one_conversation_count_as_what_they_tell_together():
    """Forty conversations of four comparisons, told right or wrong together: forty trials, in every part of the report."""
    pairs = [Ranked([1], ([2], [3]), (1, 2), strength=2, group=f"c{n // 4}") for n in range(160)]
    scores = [[1.0, 0.0] if n // 4 < 30 else [0.0, 1.0] for n in range(160)]
    found = report(pairs, scores, 10)
    assert found["accuracy_ci95"] == pytest.approx(wilson_interval(0.75, 40))
    assert (found["test_pairs"], found["independent_pairs"]) == (160, pytest.approx(40))
    assert found["accuracy_by_strength"]["2"]["accuracy_ci95"] == found["accuracy_ci95"]
    alone = report([dataclasses.replace(pair, group=None) for pair in pairs], scores, 10)
    assert alone["accuracy_ci95"] == pytest.approx(wilson_interval(0.75, 160))


def test_the_report_splits_by_turn_band_and_threshold():
    pairs = [Ranked([1], ([2], [3]), (1, 2), turn=turn) for turn in (1, 2, 10, 2)]
    scores = [[1.0, 0.9], [3.0, 3.3], [5.0, 2.0], [0.0, 9.0]]  # margins 0.1, -0.3, 3, -9
    found = report(pairs, scores, 10, bands=2, shift=1.0, scale=2.0)
    assert [(turn, part["pairs"], part["accuracy"]) for turn, part in found["accuracy_by_turn"].items()] == [
        ("1", 1, 1.0),
        ("2", 2, 0.0),
        ("10", 1, 1.0),
    ]
    bands = [(b["low"], b["high"], b["pairs"], b["accuracy"]) for b in found["accuracy_by_margin"]]
    assert bands == [(pytest.approx(0.1), pytest.approx(0.3), 2, 0.5), (3.0, 9.0, 2, 0.5)]
    # less 1 and halved, the lower score of each pair is -0.05, 1, 0.5 and -0.5
    counts = {part["threshold"]: (part["pairs"], part["accuracy"]) for part in found["accuracy_by_threshold"]}
    assert counts[-1.0] == (4, 0.5) and counts[0.5] == (2, 0.5) and counts[1.0] == (1, 0.0) and counts[1.5] == (0, None)
    plain = report(pairs, scores, 10, odds=False)
    assert plain["accuracy"] == 0.5 and plain["log_loss"] is None and plain["accuracy_by_threshold"] == []


def test_the_sign_of_a_score_tells_good_from_bad():
    marked = [Ranked([1], ([2],), (1,), good=good, group="c") for good in (True, False, False, True)]
    found = binary_report(marked, [math.log(3), math.log(3), -math.log(3), 0.0])
    assert found["binary_accuracy"] == pytest.approx(2.5 / 4) and found["test_replies"] == 4
    assert found["binary_log_loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(4) + math.log(2)) / 4)
    assert found["binary_accuracy_ci95"] == list(wilson_interval(2.5 / 4, 1))  # of one conversation
    assert binary_report([], [])["binary_accuracy"] is None


def test_without_a_pair_nothing_is_claimed():
    found = report([], [], 10)
    assert found["accuracy"] is None and found["accuracy_ci95"] is None and found["test_pairs"] == 0
