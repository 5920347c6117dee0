"""What PPO changes: a policy, its critic and their optimizers; one update reads like the paper.

The critic is a network of its own that starts as a copy of the preference model ("separate"), or one linear head on the
policy's last hidden state that starts at zero ("shared"). Policy and critic take a step each minibatch; the loss of a
minibatch is a mean over all its reply tokens, however many forward passes it takes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training import objective
from training.checkpoint import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from training.config import PolicyConfig
from training.job import JobFailed
from training.models import PreferenceModel
from training.rollouts import Experience, Rollout, even_parts, old_values, values
from training.sampling import ReplyStates, log_probs, reply_states


@dataclass
class Updates:
    """Token-weighted sums over the minibatches of one iteration; `means` divides them."""

    tokens: int = 0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    approx_kl: float = 0.0
    clip_fraction: float = 0.0
    entropy: float = 0.0
    entropy_tokens: int = 0
    sampler_gap: float = 0.0  # largest |log π - log π_old| of a token before the first update
    policy_grad_norm: float = 0.0
    critic_grad_norm: float = 0.0
    minibatches: int = 0
    stopped_early: bool = False

    def means(self) -> dict[str, float]:
        """The metrics of the iteration."""
        tokens, minibatches = max(self.tokens, 1), max(self.minibatches, 1)
        per_token = ("policy_loss", "value_loss", "approx_kl", "clip_fraction")
        found = {name: getattr(self, name) / tokens for name in per_token}
        found["entropy"] = self.entropy / max(self.entropy_tokens, 1)
        found["sampler_gap"] = self.sampler_gap
        found |= {name: getattr(self, name) / minibatches for name in ("policy_grad_norm", "critic_grad_norm")}
        return found | {"minibatches": float(self.minibatches), "stopped_early": float(self.stopped_early)}


class _Judged(NamedTuple):
    """One forward pass over some replies; the last two are None where only a separate critic ran."""

    value: Tensor  # [B, R]
    logp: Tensor | None  # [B, R]
    states: ReplyStates | None


class Learner:
    """Policy and critic with their optimizers, changed in place."""

    def __init__(self, policy: Any, critic: nn.Module, config: PolicyConfig) -> None:
        self.policy, self.critic, self.config = policy, critic, config
        self.policy_adam = self._adam(policy, config.learning_rate)
        self.critic_adam = self._adam(critic, config.critic_learning_rate)

    def _adam(self, module: nn.Module, rate: float) -> torch.optim.Adam:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        betas = (0.9, self.config.adam_beta2)
        return torch.optim.Adam(trained, lr=rate, betas=betas, eps=self.config.adam_eps, fused=True)

    @property
    def shared(self) -> bool:
        """Whether the critic is a head on the policy's trunk."""
        return isinstance(self.critic, nn.Linear)

    def set_rate(self, share: float) -> None:
        """Scale both learning rates to `share` of their configured height."""
        for optimizer, rate in (
            (self.policy_adam, self.config.learning_rate), (self.critic_adam, self.config.critic_learning_rate),
        ):  # fmt: skip
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def values(self, rollout: Rollout) -> Tensor:
        """V_φ at the state before each reply token, without gradient.  -> [B, R]"""
        return old_values(lambda part: self._forward(part, learn_policy=False).value, rollout)

    def _forward(self, rollout: Rollout, *, learn_policy: bool) -> _Judged:
        """Run policy and critic over some replies. The policy runs only where it learns or lends its trunk."""
        states = logp = None
        if learn_policy or self.shared:
            with torch.set_grad_enabled(learn_policy and torch.is_grad_enabled()):
                temperature = self.config.temperature
                states = reply_states(self.policy, rollout.tokens, rollout.prompt_length, rollout.mask, temperature)
                logp = log_probs(states, rollout.mask)
        if isinstance(self.critic, PreferenceModel):
            return _Judged(values(self.critic, rollout), logp, states)
        assert states is not None
        read = self.critic(states.hidden.float())[:, 0]
        return _Judged(
            torch.zeros(rollout.mask.shape, device=read.device).masked_scatter(rollout.mask, read), logp, states
        )

    def update(self, experience: Experience, order: torch.Generator, critic_only: bool, where: str) -> Updates:
        """Learn from one rollout: `inner_epochs` passes in minibatches, ended early when the policy has moved far.

        `critic_only` leaves the policy as it is and the critic unclipped. A loss or gradient that is not a number stops the run and names `where`.
        """
        done, config = Updates(), self.config
        for epoch in range(config.inner_epochs):
            shuffled = torch.randperm(len(experience.advantage), generator=order).to(experience.advantage.device)
            for number, index in enumerate(shuffled.split(config.minibatch_replies)):
                place = f"{where}, epoch {epoch + 1}, minibatch {number + 1}"
                before = done.approx_kl, done.tokens
                self._step(experience.rows(index), done, critic_only, place)
                moved = (done.approx_kl - before[0]) / (done.tokens - before[1])
                if not critic_only and config.approx_kl_stop > 0 and moved > config.approx_kl_stop:
                    done.stopped_early = True
                    return done
        return done

    def _step(self, batch: Experience, done: Updates, critic_only: bool, place: str) -> None:
        config, tokens = self.config, int(batch.rollout.mask.sum())
        policy_loss = value_loss = 0.0
        # A critic that is still being fitted alone has no earlier judgement worth staying near: the clip would stop it short.
        value_clip = None if critic_only else config.value_clip or None
        for index in even_parts(batch.rollout):
            part = batch.rows(index)
            mask, old_logp = part.rollout.mask, part.rollout.old_logp
            judged = self._forward(part.rollout, learn_policy=not critic_only)
            error = objective.value_error(judged.value, part.old_value, part.target, mask, value_clip, tokens)
            value_loss += float(error.detach())
            loss = config.value_weight * error if self.shared and not critic_only else error
            if not critic_only:
                assert judged.logp is not None
                surrogate = objective.clipped_surrogate(
                    judged.logp, old_logp, part.advantage, mask, config.clip, tokens
                )
                policy_loss += float(surrogate.detach())
                loss = loss + surrogate
                self._watch(judged, part, done)
            loss.backward()
        if not math.isfinite(policy_loss + value_loss):
            raise JobFailed(f"the loss is not a number at {place}; lower learning_rate, the last checkpoint is intact")
        if not critic_only:
            done.policy_grad_norm += self._descend(self.policy_adam, self.policy, place)
        done.critic_grad_norm += self._descend(self.critic_adam, self.critic, place)
        done.tokens += tokens
        done.minibatches += 1
        done.policy_loss += policy_loss * tokens
        done.value_loss += value_loss * tokens

    def _descend(self, optimizer: torch.optim.Optimizer, module: nn.Module, place: str) -> float:
        """One step along the clipped gradient; the norm it had before."""
        norm = float(nn.utils.clip_grad_norm_(module.parameters(), self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise JobFailed(
                f"a gradient is not a number at {place}; lower learning_rate, the last checkpoint is intact"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def _watch(self, judged: _Judged, part: Experience, done: Updates) -> None:
        """Add up what is watched of one part: KL(old‖new), clipped ratios, entropy, the sampler's gap; reply tokens only."""
        assert judged.logp is not None
        assert judged.states is not None
        mask, old_logp = part.rollout.mask, part.rollout.old_logp
        tokens = int(mask.sum())
        # Under samples of the old policy KL(old‖new) = E[ρ - 1 - log ρ], the third estimator with the sides exchanged.
        done.approx_kl += float(objective.kl_estimators(old_logp, judged.logp, mask)[2].sum())
        done.clip_fraction += float(objective.clip_fraction(judged.logp, old_logp, mask, self.config.clip)) * tokens
        if done.minibatches == 0:  # of the policy that sampled; the whole vocabulary is dear, one minibatch is enough
            done.sampler_gap = max(done.sampler_gap, float((judged.logp - old_logp)[mask].abs().max()))
            done.entropy += float(judged.states.entropy.detach().sum())
            done.entropy_tokens += tokens

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs of the learner."""
        return {
            **module_tensors(self.policy, "policy"),
            **module_tensors(self.critic, "critic"),
            **optimizer_tensors(self.policy_adam, "policy_adam"),
            **optimizer_tensors(self.critic_adam, "critic_adam"),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        restore_module(self.policy, "policy", tensors)
        restore_module(self.critic, "critic", tensors)
        restore_optimizer(self.policy_adam, "policy_adam", tensors)
        restore_optimizer(self.critic_adam, "critic_adam", tensors)
