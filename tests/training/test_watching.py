"""The score normaliser and the collapse alarm: small state, kept across restarts."""

import json
import math
from pathlib import Path

import pytest
import torch

from training.config import PolicyConfig
from training.experiments import world
from training.experiments.length_bug import CAP
from training.ppo.collapse import CollapseAlarm
from training.ppo.normaliser import ScoreNormaliser

DOCS = Path(__file__).parents[2] / "docs"


def test_running_moments_equal_those_of_all_scores_at_once() -> None:
    normaliser = ScoreNormaliser("running", bound=0.0)
    for batch in ([1.0, 2.0], [6.0], [7.0, 9.0]):
        normaliser.observe(torch.tensor(batch))
    assert normaliser.mean == pytest.approx(5.0)
    assert normaliser.deviation == pytest.approx((46 / 5) ** 0.5)  # deviations -4 -3 1 2 4
    assert normaliser.normalise(torch.tensor([5.0])).item() == pytest.approx(0.0)


def test_clip_scale_and_none() -> None:
    for how, expected in (("running", [-0.5, 0.5]), ("scale", [0.5, 0.5]), ("none", [0.5, 0.5])):
        normaliser = ScoreNormaliser(how, bound=0.5)
        normaliser.observe(torch.tensor([2.0, 4.0]))
        assert normaliser.normalise(torch.tensor([2.0, 4.0])).tolist() == expected
    scale = ScoreNormaliser("scale", bound=0.0)
    scale.observe(torch.tensor([2.0, 4.0]))
    assert scale.normalise(torch.tensor([2.0, 4.0])).tolist() == [2.0, 4.0]


def test_equal_scores_do_not_divide_by_zero_and_state_survives() -> None:
    normaliser = ScoreNormaliser("running", bound=5.0)
    normaliser.observe(torch.full((4,), 3.0))
    assert normaliser.normalise(torch.tensor([3.5])).item() == pytest.approx(0.5)
    other = ScoreNormaliser("running", bound=5.0)
    other.restore(normaliser.state())
    normaliser.observe(torch.tensor([1.0, 8.0]))
    other.observe(torch.tensor([1.0, 8.0]))
    assert other.state() == normaliser.state()


def alarm() -> CollapseAlarm:
    return CollapseAlarm(
        window=2, length_factor=1.5, perplexity_factor=0.5, kl_bound=0.4, runaway_factor=2.5, cap=200, noise_bound=4.0
    )


def test_longer_surer_and_farther_at_once_is_a_collapse() -> None:
    watch = alarm()
    assert watch.observe(20, 3.0, 0.0, 3.0) is None and watch.observe(20, 3.0, 0.0, 3.0) is None
    assert watch.observe(100, 1.1, 9.0, 3.0) is None  # one iteration is no window
    other = alarm()
    other.restore(watch.state())
    reason = other.observe(60, 1.2, 0.5, 3.0)
    assert reason is not None and "20 to 80 tokens" in reason and "kl_weight" in reason


@pytest.mark.parametrize(("length", "perplexity", "kl"), [(25, 1.2, 0.9), (40, 2.5, 0.9), (60, 1.2, 0.1)])
def test_less_than_that_is_none(length: float, perplexity: float, kl: float) -> None:
    watch = alarm()
    for numbers in ((20, 3.0, 0.0, 3.0), (20, 3.0, 0.0, 3.0)):
        watch.observe(*numbers)
    assert [watch.observe(length, perplexity, kl, 3.0) for _ in range(5)] == [None] * 5


def test_replies_that_run_away_are_a_collapse_however_sure() -> None:
    watch = alarm()
    for numbers in ((20, 3.0, 0.0, 3.0), (20, 3.0, 0.0, 3.0)):
        watch.observe(*numbers)
    assert watch.observe(60, 9.0, 0.9, 3.0) is None
    assert watch.observe(60, 9.0, 0.9, 3.0) is not None
    near = CollapseAlarm(
        1, length_factor=1.8, perplexity_factor=0.5, kl_bound=0.4, runaway_factor=2.5, cap=110, noise_bound=4
    )
    near.observe(80, 3.0, 0.0, 3.0)
    assert near.observe(98, 3.0, 0.9, 3.0) is None
    assert near.observe(99, 3.0, 0.9, 3.0) is not None


def test_replies_that_the_initial_policy_finds_noise_are_heard_before_the_first_window_is_over() -> None:
    """By hand: a token of the first replies costs the initial policy 1 nat, of the later ones 4 and 6, 5 on the mean."""
    watch = alarm()
    assert watch.observe(20, 2.0, 0.0, math.e) is None
    assert watch.observe(9, 8.0, 3.0, math.exp(4)) is None
    other = alarm()
    other.restore(watch.state())
    reason = other.observe(9, 8.0, 3.0, math.exp(6))
    assert reason is not None and "4.0 nats less likely" in reason and "learning_rate" in reason
    quiet = alarm()
    assert [quiet.observe(20, 2.0, 0.0, math.exp(nats)) for nats in (1, 4.9, 4.9, 4.9)] == [None] * 4


def test_it_hears_the_collapses_that_the_experiment_recorded_and_no_other() -> None:
    """Every run of docs/experiments/length_bug.json again; the arms without both the KL penalty and PPO-max's tricks lost their gold score."""
    told, defaults = json.loads((DOCS / "experiments" / "length_bug.json").read_text("utf-8")), PolicyConfig()
    heard: dict[str, list[bool]] = {}
    for seed in told["numbers"]:
        for arm, curves in seed.items():
            if "length" not in curves:
                continue
            watch = CollapseAlarm(
                defaults.collapse_window, defaults.collapse_length, defaults.collapse_perplexity, defaults.collapse_kl,
                defaults.collapse_runaway, CAP, defaults.collapse_noise * math.log(len(world.WORDS)),
            )  # fmt: skip
            rows = zip(curves["length"], curves["perplexity"], curves["kl"], strict=True)
            reasons = [  # entropy and KL make the cross-entropy
                watch.observe(length, perplexity, kl / length, perplexity * math.exp(kl / length))
                for length, perplexity, kl in rows
            ]
            heard.setdefault(arm, []).append(any(reasons))
    assert len(heard) == 8
    lost = ("vanilla", "norm and clip alone", "vanilla with KL, η 0.05", "ppo_max without KL")
    assert {arm: set(found) for arm, found in heard.items()} == {arm: {arm in lost} for arm in heard}
