"""Every equation of PPO and of preference once more: in NumPy, float64, one token at a time, from the papers' sums and not from our code.

Advantages here are the sum over future errors ([GAE] eq. 16) and not the recursion; whitening is two passes; losses are loops.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training import objective

Array = NDArray[np.float64]
ROWS, COLUMNS = 7, 11


@pytest.fixture(params=range(4))
def drawn(request: pytest.FixtureRequest) -> dict[str, Array]:
    """Random numbers of a rollout; the padding holds rubbish that no result may show."""
    random = np.random.default_rng(request.param)
    found = {
        name: random.normal(size=(ROWS, COLUMNS)) for name in ("reward", "value", "old_value", "target", "gain", "new")
    }
    for name in ("logp", "ref_logp", "old_logp"):
        found[name] = -random.exponential(1.5, size=(ROWS, COLUMNS))
    found["score"] = random.normal(size=ROWS)
    lengths = [1, COLUMNS, *random.integers(1, COLUMNS + 1, size=ROWS - 2)]
    found["mask"] = np.array([[column < length for column in range(COLUMNS)] for length in lengths])
    for name in set(found) - {"mask", "score"}:
        found[name] = np.where(found["mask"], found[name], 1e3)
    return found


def tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(array)


def tokens(drawn: dict[str, Array]) -> list[tuple[int, int]]:
    return [(row, t) for row in range(ROWS) for t in range(COLUMNS) if drawn["mask"][row, t]]


def length(drawn: dict[str, Array], row: int) -> int:
    return sum(bool(real) for real in drawn["mask"][row])


def agree(ours: torch.Tensor, expected: Array | float) -> None:
    assert np.allclose(ours.detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def test_token_rewards(drawn: dict[str, Array]) -> None:
    expected = np.zeros((ROWS, COLUMNS))
    for row, t in tokens(drawn):
        expected[row, t] = -0.37 * (drawn["logp"][row, t] - drawn["ref_logp"][row, t])
        if t == length(drawn, row) - 1:
            expected[row, t] += drawn["score"][row]
    given = (tensor(drawn[name]) for name in ("score", "logp", "ref_logp", "mask"))
    agree(objective.token_rewards(*given, 0.37), expected)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.97, 0.0)])
def test_advantages_and_returns(drawn: dict[str, Array], gamma: float, lam: float) -> None:
    expected, goals = np.zeros((ROWS, COLUMNS)), np.zeros((ROWS, COLUMNS))
    for row, t in tokens(drawn):
        reward, value, end = drawn["reward"][row], drawn["value"][row], length(drawn, row)
        for later in range(t, end):  # Σ (γλ)^l δ_{t+l}
            after = value[later + 1] if later + 1 < end else 0.0
            expected[row, t] += (gamma * lam) ** (later - t) * (reward[later] + gamma * after - value[later])
        goals[row, t] = expected[row, t] + value[t]
    value, mask = tensor(drawn["value"]), tensor(drawn["mask"])
    found = objective.advantages(tensor(drawn["reward"]), value, mask, gamma, lam)
    agree(found, expected)
    agree(objective.returns(found, value, mask), goals)


def test_whitening(drawn: dict[str, Array]) -> None:
    here = [drawn["gain"][place] for place in tokens(drawn)]
    mean = math.fsum(here) / len(here)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in here) / len(here) + 1e-8)
    expected = np.zeros((ROWS, COLUMNS))
    for place in tokens(drawn):
        expected[place] = (drawn["gain"][place] - mean) / spread
    agree(objective.whiten(tensor(drawn["gain"]), tensor(drawn["mask"])), expected)


def test_clipped_surrogate_and_clip_fraction(drawn: dict[str, Array]) -> None:
    total, outside = 0.0, 0
    for place in tokens(drawn):
        ratio, gain = math.exp(drawn["logp"][place] - drawn["old_logp"][place]), drawn["gain"][place]
        total += min(ratio * gain, min(max(ratio, 0.8), 1.2) * gain)
        outside += ratio > 1.2 or ratio < 0.8
    logp, old_logp, gain, mask = (tensor(drawn[name]) for name in ("logp", "old_logp", "gain", "mask"))
    agree(objective.clipped_surrogate(logp, old_logp, gain, mask, 0.2), -total / len(tokens(drawn)))
    share = float(objective.clip_fraction(logp, old_logp, mask, 0.2))
    assert share == pytest.approx(outside / len(tokens(drawn)))


@pytest.mark.parametrize("clip", [None, 0.2])
def test_value_error(drawn: dict[str, Array], clip: float | None) -> None:
    total = 0.0
    for place in tokens(drawn):
        new, old, goal = drawn["new"][place], drawn["old_value"][place], drawn["target"][place]
        error = (new - goal) ** 2
        if clip is not None:
            error = max(error, (min(max(new, old - clip), old + clip) - goal) ** 2)
        total += error / 2
    given = (tensor(drawn[name]) for name in ("new", "old_value", "target", "mask"))
    agree(objective.value_error(*given, clip), total / len(tokens(drawn)))


def test_kl_estimators(drawn: dict[str, Array]) -> None:
    expected = np.zeros((3, ROWS, COLUMNS))
    for place in tokens(drawn):
        ratio = math.exp(drawn["ref_logp"][place] - drawn["logp"][place])  # π₀/π
        for number, found in enumerate((-math.log(ratio), math.log(ratio) ** 2 / 2, ratio - 1 - math.log(ratio))):
            expected[(number, *place)] = found
    found = objective.kl_estimators(*(tensor(drawn[name]) for name in ("logp", "ref_logp", "mask")))
    for ours, theirs in zip(found, expected, strict=True):
        agree(ours, theirs)


def test_entropy_and_explained_variance(drawn: dict[str, Array]) -> None:
    logits = drawn["gain"][drawn["mask"].all(1)]
    for row, ours in zip(logits, objective.entropy(tensor(logits)), strict=True):
        weights = [math.exp(x) for x in row]
        shares = [weight / math.fsum(weights) for weight in weights]
        assert float(ours) == pytest.approx(-math.fsum(p * math.log(p) for p in shares), rel=1e-5)  # in float32
    spread = lambda of: math.fsum((x - math.fsum(of) / len(of)) ** 2 for x in of) / len(of)
    goals = [drawn["target"][place] for place in tokens(drawn)]
    left = [drawn["target"][place] - drawn["value"][place] for place in tokens(drawn)]
    ours = objective.explained_variance(*(tensor(drawn[name]) for name in ("value", "target", "mask")))
    assert ours == pytest.approx(1 - spread(left) / spread(goals))


def test_preference_and_kwise_loss(drawn: dict[str, Array]) -> None:
    score, other = drawn["score"], drawn["score"][::-1].copy()
    expected = math.fsum(math.log(1 + math.exp(b - a)) for a, b in zip(score, other, strict=True)) / ROWS
    agree(objective.preference_loss(tensor(score), tensor(other)), expected)

    scores = drawn["gain"][:, :4].copy()
    ranks = np.random.default_rng(9).integers(1, 4, size=scores.shape)
    present = drawn["mask"][:, :4]
    groups = []
    for row in range(ROWS):
        pairs = [
            math.log(1 + math.exp(scores[row, j] - scores[row, i]))
            for i in range(4)
            for j in range(4)
            if present[row, i] and present[row, j] and ranks[row, i] < ranks[row, j]
        ]
        groups += [math.fsum(pairs) / len(pairs)] if pairs else []
    agree(
        objective.kwise_loss(tensor(scores), torch.from_numpy(ranks), tensor(present)), math.fsum(groups) / len(groups)
    )


def test_the_adaptive_kl_weight() -> None:
    for kl in (0.1, 5.5, 6.0, 7.0, 40.0):
        error = min(max((kl - 6.0) / 6.0, -0.2), 0.2)
        assert objective.adapted_kl_weight(0.15, kl, 6.0, 64, 10_000) == pytest.approx(
            0.15 + 0.15 * error * 64 / 10_000
        )
