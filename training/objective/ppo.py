"""PPO: token rewards, advantages, the clipped surrogate, value error, PPO-ptx, KL estimators.  Shapes and sources: __init__.py."""

import torch
from torch import Tensor
from torch.nn import functional

# exp() of a log-ratio beyond this is meaningless as a probability ratio and overflows soon after.
LOG_RATIO_BOUND = 20.0


def token_rewards(
    score: Tensor, logp: Tensor, ref_logp: Tensor, mask: Tensor, kl_weight: float, *,
    estimator: str = "k1", unit: str = "token", share: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """r_t = -β k(π‖π₀) at every token, plus the score at the last one   ([Ouyang] eq. 2, [Zheng] eq. 19).  -> [B, T]

    `estimator` k1 = log(π/π₀) is the one whose optimum is the stated one; k2 and k3 pull elsewhere. `unit` "reply" takes
    the penalty of the whole reply off its last token, where [Bai] §4.1 has one timestep. `share` [B] multiplies β for each
    reply (group-invariant learning, groups.py). score [B]; logp, ref_logp, mask [B, T].
    Every reply holds at least one token, or its score would land on another column: ValueError otherwise.
    """
    length = mask.sum(1)
    if bool((length == 0).any()):
        raise ValueError("a reply without a token cannot be rewarded; leave it out of the batch")
    names = ("k1", "k2", "k3")
    penalty = kl_weight * kl_estimators(logp, ref_logp, mask)[names.index(estimator)]
    if share is not None:
        penalty = share[:, None] * penalty
    if unit == "reply":
        score, penalty = score - penalty.sum(1), torch.zeros_like(penalty)
    last = mask.shape[1] - 1 - mask.flip(1).to(torch.int8).argmax(1)
    return (-penalty).scatter_add(1, last[:, None], score[:, None].to(penalty.dtype))


def advantages(reward: Tensor, value: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = δ_t + γλ A_{t+1},  δ_t = r_t + γ V_{t+1} - V_t   ([PPO] eqs. 11-12, [GAE] eq. 16).  [B, T] -> [B, T]

    The value after the last token is 0. Columns under a False mask are passed over: they neither decay nor bootstrap.
    """
    reward, value = torch.where(mask, reward, 0.0), torch.where(mask, value, 0.0)
    ahead, next_value = torch.zeros_like(reward[:, 0]), torch.zeros_like(reward[:, 0])
    found = []
    for t in reversed(range(reward.shape[1])):
        here = mask[:, t]
        delta = reward[:, t] + gamma * next_value - value[:, t]
        ahead = torch.where(here, delta + gamma * lam * ahead, ahead)
        next_value = torch.where(here, value[:, t], next_value)
        found.append(torch.where(here, ahead, 0.0))
    return torch.stack(found[::-1], dim=1)


def returns(advantage: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """What the critic learns: A_t + V_t, 0 outside the mask.  [B, T] -> [B, T]"""
    return torch.where(mask, advantage + value, 0.0)


def whiten(x: Tensor, mask: Tensor, *, keep_mean: bool = False) -> Tensor:
    """Mean removed and divided by the standard deviation, both over the masked entries; 0 elsewhere.  [B, T] -> [B, T]

    `keep_mean` puts the mean back as it was, so that only the spread becomes 1, as [Ziegler]'s code has its rewards. Biased
    variance, as there; 1e-8 keeps a constant input finite.
    """
    valid = x[mask]
    mean = valid.mean()
    scaled = (x - mean) * torch.rsqrt(valid.var(unbiased=False) + 1e-8)
    return torch.where(mask, scaled + mean if keep_mean else scaled, 0.0)


def log_ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Log π_θ - log π_old, held within ±20 so that its exponential stays finite.  Any shape."""
    return (logp - old_logp).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def clipped_surrogate(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor, clip: float | None, tokens: int | None = None,
    dual_clip: float | None = None,
) -> Tensor:  # fmt: skip
    """-E[min(ρA, clip(ρ, 1-ε, 1+ε) A)]   ([PPO] eq. 7), a mean over tokens.  [B, T] -> []

    `clip` None is the plain ratio, -E[ρA] (eq. 6). `dual_clip` c > 1 also holds the gain above cA where A < 0, so that one
    token whose ratio ran away cannot rule the mean (Ye et al. 2020, 1912.09729, eq. 5).
    `tokens`: the token count of the whole minibatch when this is one of its parts; the parts then add up to its mean.
    """
    rho = log_ratio(logp[mask], old_logp[mask]).exp()
    gain = rho * advantage[mask]
    if clip is not None:
        gain = torch.minimum(gain, rho.clamp(1 - clip, 1 + clip) * advantage[mask])
    if dual_clip is not None:
        gain = torch.where(advantage[mask] < 0, torch.maximum(gain, dual_clip * advantage[mask]), gain)
    return -gain.sum() / (tokens or rho.numel())


def clip_fraction(logp: Tensor, old_logp: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Share of tokens whose ratio lies outside 1±ε.  [B, T] -> []"""
    rho = log_ratio(logp[mask], old_logp[mask]).exp()
    return ((rho - 1).abs() > clip).float().mean()


def value_error(
    value: Tensor, old_value: Tensor, target: Tensor, mask: Tensor, clip: float | None, tokens: int | None = None
) -> Tensor:
    """½ E[max((V-R)², (V_clip-R)²)],  V_clip = V_old + clamp(V-V_old, ±ε)   ([Zheng] §5.3, [Ziegler]).  [B, T] -> []

    `clip` None leaves the second term out; `tokens` as in `clipped_surrogate`.
    """
    new, old, goal = value[mask], old_value[mask], target[mask]
    error = (new - goal).square()
    if clip is not None:
        error = torch.maximum(error, (old + (new - old).clamp(-clip, clip) - goal).square())
    return 0.5 * error.sum() / (tokens or new.numel())


def value_clip_fraction(value: Tensor, old_value: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Share of tokens whose value moved by more than ε.  [B, T] -> []"""
    return ((value[mask] - old_value[mask]).abs() > clip).float().mean()


def pretraining_loss(logp: Tensor, mask: Tensor, weight: float, tokens: int | None = None) -> Tensor:
    """-γ E_x[log π(x)], what PPO-ptx adds ([Ouyang] eq. 2), a mean over tokens of pretraining text.  [B, T] -> []

    `tokens` as in `clipped_surrogate`, counted over the update's pretraining text alone.
    """
    return -weight * logp[mask].sum() / (tokens or int(mask.sum()))


def entropy_loss(entropy: Tensor, weight: float, tokens: int | None = None, sign: float = -1.0) -> Tensor:
    """-w E[H], or w |E[H] - H₀| where `sign` is that of E[H] - H₀ over the minibatch ([Zheng] App. B.3).  [N] -> []

    A part of a minibatch cannot know on which side of the threshold H₀ the whole stands: the caller says, and the constant
    w·H₀ is left out, so that parts add up. `tokens` as in `clipped_surrogate`.
    """
    return sign * weight * entropy.sum() / (tokens or entropy.numel())


def kl_estimators(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k1 = log(π/π₀), k2 = k1²/2, k3 = π₀/π - 1 + k1 at each sampled token, in nats; 0 elsewhere ([KL]).  [B, T]

    Under samples of π, k1 and k3 have the mean KL(π‖π₀); k1 can be negative, k3 cannot. Sum over T for a reply's KL.
    k1 is what the reward is charged with, unbounded as there; only the ratio inside k3 is held finite.
    """
    k1 = torch.where(mask, logp - ref_logp, 0.0)
    return k1, 0.5 * k1.square(), torch.expm1((-k1).clamp(max=LOG_RATIO_BOUND)) + k1


def entropy(logits: Tensor) -> Tensor:
    """-Σ p log p in nats of each distribution.  [..., V] -> [...]"""
    logp = functional.log_softmax(logits.float(), dim=-1)
    return -(logp.exp() * logp).sum(-1)


def explained_variance(value: Tensor, target: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V)/Var(R) over the masked entries: 1 perfect, 0 no better than a constant; 0 when R is constant."""
    goal = target[mask]
    spread = goal.var(unbiased=False)
    return float(1 - (goal - value[mask]).var(unbiased=False) / spread) if spread > 0 else 0.0


def adapted_kl_weight(weight: float, kl: float, target: float, episodes: int, horizon: float) -> float:
    """β (1 + clip(KL/target - 1, ±0.2) · n/horizon)   ([Ziegler] §2.2).

    `kl` and `target` in nats per reply (summed over tokens), `episodes` n since the last call, `horizon` in episodes.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return weight * (1.0 + error * episodes / horizon)
