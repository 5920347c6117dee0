"""The hidden judge's measure: its interval by hand, its prompts, and a policy against itself."""

import math
from pathlib import Path

import pytest

from simulation import measure
from simulation.demo import _row
from simulation.measure import WinRate, held_out_prompts, mean_share, win_rate
from tests.training.documented import documented
from training.models import snapshots
from training.sampling import variants
from training.starter.prompts import read_pool

STARTER = Path(__file__).resolve().parents[2] / "training" / "starter" / "model"


def test_the_interval_by_hand() -> None:
    z = 1.959964
    assert mean_share([1.0] * 100) == (1.0, (pytest.approx(100 / (100 + z * z)), pytest.approx(1.0)))
    # 50 won and 50 lost: a coin tossed 99 times varies as their sample variance of 100/99 · 1/4 says
    share, (low, high) = mean_share([0.0, 1.0] * 50)
    assert share == 0.5
    assert high - low == pytest.approx(2 * z * math.sqrt(0.25 / 99 + z * z / (4 * 99 * 99)) / (1 + z * z / 99))
    # two pairs a prompt, one won of each: no prompt differs from another, and still nothing is certain
    share, (low, high) = mean_share([0.5] * 100)
    assert share == 0.5 and low < 0.42 and high > 0.58
    # half of the prompts at 1/2 and the others won: less spread than a coin's, so a narrower interval
    narrow, wide = mean_share([0.5, 1.0] * 50)[1], mean_share([0.0, 1.0, 1.0, 1.0] * 25)[1]
    assert narrow[1] - narrow[0] < 0.7 * (wide[1] - wide[0])


def test_the_prompts_are_those_that_no_policy_is_trained_on() -> None:
    prompts = held_out_prompts("helpful")
    trained = {row["text"] for row in read_pool() if row["split"] == "train"}
    assert len(prompts) == len(set(prompts)) == 220
    assert not trained & set(prompts)
    assert len(held_out_prompts()) > len(prompts)


def test_a_policy_against_itself_is_even() -> None:
    found = win_rate(str(STARTER), str(STARTER), held_out_prompts()[:24], seed=1)
    assert found.prompts == 24
    assert found.ci95[0] < 0.5 < found.ci95[1]
    assert 0 < found.share < 1  # the two sides draw with seeds of their own


def test_each_policy_is_loaded_once_for_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = snapshots.load_policy

    def counted(path: str, *args: object, **more: object) -> object:
        loads.append(path)
        return load(path, *args, **more)

    for module in (measure, variants):
        monkeypatch.setattr(module, "load_policy", counted, raising=False)
    win_rate(str(STARTER), str(STARTER), held_out_prompts()[:2], samples=3)
    assert loads == [str(STARTER)] * 2


def test_every_number_of_a_row_is_explained() -> None:
    assert set(_row(0, 0, None, WinRate(0.5, (0.4, 0.6), 10, 1.0), 3.0)) <= documented()
