"""The score normaliser and the collapse alarm: small state, kept across restarts."""

import pytest
import torch

from training.ppo.collapse import CollapseAlarm
from training.ppo.normaliser import ScoreNormaliser


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
    return CollapseAlarm(window=2, length_factor=1.5, perplexity_factor=0.5, kl_bound=0.4)


def test_longer_surer_and_farther_at_once_is_a_collapse() -> None:
    watch = alarm()
    assert watch.observe(20, 3.0, 0.0) is None and watch.observe(20, 3.0, 0.0) is None
    assert watch.observe(100, 1.1, 9.0) is None  # one iteration is no window
    other = alarm()
    other.restore(watch.state())
    reason = other.observe(60, 1.2, 0.5)
    assert reason is not None and "20 to 80 tokens" in reason and "kl_weight" in reason


@pytest.mark.parametrize(("length", "perplexity", "kl"), [(25, 1.2, 0.9), (60, 2.5, 0.9), (60, 1.2, 0.1)])
def test_two_of_three_are_not(length: float, perplexity: float, kl: float) -> None:
    watch = alarm()
    for numbers in ((20, 3.0, 0.0), (20, 3.0, 0.0)):
        watch.observe(*numbers)
    assert [watch.observe(length, perplexity, kl) for _ in range(5)] == [None] * 5
