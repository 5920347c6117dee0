"""Elo from wins, by maximum likelihood.  M players; shapes and sources: __init__.py."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# [Bai] §2.4: P(A beats B) = 1 / (1 + 10^((E_B - E_A)/400)), so one nat in log-odds is 400/ln 10 = 173.7 points.
POINTS_A_NAT = 400 / math.log(10)


def wins(margin: Tensor) -> Tensor:
    """1 where a margin is above 0, 0 where it is below, ½ where there is none: a tie, which a coin would decide.  [...] -> [...]"""
    return (torch.sign(margin) + 1) / 2


def wins_log_likelihood(wins: Tensor, strength: Tensor) -> Tensor:
    """Log P = -Σ_ij N_ij log(1 + e^{r_j - r_i}), N_ij how often i beat j   ([Bai] App. B.5).  [M, M], [M] -> []"""
    difference = strength[:, None] - strength[None, :]
    return (wins * functional.logsigmoid(difference)).sum()


def _reach(wins: Tensor) -> Tensor:
    """Whether each has beaten each, directly or through third ones; everybody reaches themselves.  [M, M] -> [M, M] bool"""
    reach = (wins > 0) | torch.eye(len(wins), dtype=torch.bool)
    for _ in range(len(wins)):
        reach = (reach.double() @ reach.double()) > 0
    return reach


def comparable(wins: Tensor, reference: int = 0) -> list[int]:
    """The players whose difference from the reference has a bound: both have beaten the other, also through third ones.

    What they won from all others, or lost to them, says nothing of their strengths: the likeliest others are infinitely far
    away (Ford 1957).  [M, M] -> players, ascending
    """
    reach = _reach(wins)
    found: list[int] = (reach[reference] & reach[:, reference]).nonzero()[:, 0].tolist()
    return found


class Strengths(NamedTuple):
    """Log-odds of each player over the reference, in nats, with the inverse of the observed information."""

    strength: Tensor  # [M], 0 for the reference
    covariance: Tensor  # [M, M], 0 in row and column of the reference


def fitted_strengths(wins: Tensor, reference: int = 0) -> Strengths:
    """The strengths that make `wins` most likely, reference pinned at 0 (Bradley-Terry 1952).  [M, M] -> [M], [M, M]

    A tie counts half a win on each side; the diagonal is not read. ValueError where no finite maximum exists: when some
    players never beat one of the others, directly or through third ones (Ford 1957).
    """
    wins = wins.double().clone().fill_diagonal_(0.0)
    players = len(wins)
    if not bool(_reach(wins).all()):
        raise ValueError("some players never beat one of the others, so the difference between them has no bound")
    free = [player for player in range(players) if player != reference]
    r = torch.zeros(players, dtype=torch.float64)
    for _ in range(100):  # Newton's method on a concave function
        gradient, information = _derivatives(wins, r)
        step = torch.zeros(players, dtype=torch.float64)
        step[free] = torch.linalg.solve(information[free][:, free], gradient[free])
        before = wins_log_likelihood(wins, r)
        while float(wins_log_likelihood(wins, r + step)) < float(before) - 1e-9 * abs(float(before)):
            step = step / 2  # far from the maximum a whole step can overshoot
        r = r + step
        if float(step.abs().max()) < 1e-10:
            break
    covariance = torch.zeros(players, players, dtype=torch.float64)
    _, information = _derivatives(wins, r)
    inverse = torch.linalg.inv(information[free][:, free])
    covariance[torch.tensor(free)[:, None], torch.tensor(free)[None, :]] = inverse
    return Strengths(r, covariance)


def _derivatives(wins: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the log-likelihood, and its negative second derivative.  [M], [M, M]"""
    p = torch.sigmoid(r[:, None] - r[None, :])
    games = wins + wins.T
    gradient = (wins - games * p).sum(1)
    weight = games * p * (1 - p)
    return gradient, torch.diag(weight.sum(1)) - weight


def clustered_covariance(wins: Tensor, fitted: Strengths, reference: int = 0) -> Tensor:
    """Covariance of the strengths when the games of one prompt depend on each other.  [P, M, M] -> [M, M]

    H⁻¹ (Σ_p g_p g_pᵀ) H⁻¹ with H the information of all games and g_p the gradient of the p-th prompt's (Huber 1967, Liang
    and Zeger 1986), times P/(P-1): a player's one reply to a prompt meets every other's, so games are fewer than they look.
    """
    prompts = len(wins)
    if prompts < 2:
        raise ValueError("one prompt says nothing about how much prompts differ")
    p = torch.sigmoid(fitted.strength[:, None] - fitted.strength[None, :])
    games = wins.double() + wins.double().transpose(1, 2)
    off = 1 - torch.eye(len(p), dtype=torch.float64)
    gradient = ((wins.double() - games * p) * off).sum(2)  # [P, M]
    gradient[:, reference] = 0.0
    return fitted.covariance @ (gradient.T @ gradient) @ fitted.covariance * prompts / (prompts - 1)
