"""What PPO changes: a policy, its critic and their optimizers; one update reads like the paper.

The critic is a network of its own ("pm": it starts as a copy of the preference model; "policy": as a copy of the initial
policy with a head of zeros), or one linear head on the policy's last hidden state ("shared"). Policy and critic take a step
each minibatch; the loss of a minibatch is a mean over all its reply tokens, however many forward passes it takes, and the
gradient of pretraining text (PPO-ptx) is added to it before the step.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training import objective
from training.config import PolicyConfig
from training.models.average import WeightAverage
from training.models.checkpoint import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from training.models.models import PreferenceModel
from training.ppo.group_invariant import GroupHead
from training.ppo.updates import NotANumber, Updates, minibatches
from training.processes import distributed, ranks
from training.processes.device import in_half
from training.processes.sharding import Level, clip_gradients, gathered, learning, whole
from training.reading.pretraining_text import PretrainingText
from training.sampling.rollouts import Experience, Rollout, even_parts, values_and_states
from training.sampling.sampling import ReplyStates, log_probs, reply_states


class _Judged(NamedTuple):
    """One forward pass over some replies; what belongs to a network that did not run is None."""

    value: Tensor | None  # [B, R]
    features: Tensor | None  # [B, d] the critic's state before each reply's last token
    logp: Tensor | None  # [B, R]
    states: ReplyStates | None


class Learner:
    """Policy and critic with their optimizers, changed in place."""

    def __init__(
        self, policy: Any, critic: nn.Module, config: PolicyConfig, texts: PretrainingText | None = None, *,
        policy_level: Level | None = None, critic_level: Level | None = None,
    ) -> None:  # fmt: skip
        """`policy_level`, `critic_level`: of what is in shards."""
        self.policy, self.critic, self.config, self.texts = policy, critic, config, texts
        self.policy_level, self.critic_level = policy_level, critic_level
        self.half = in_half(config.precision, policy.device, int(policy.config.hidden_size))
        self.policy_adam = self._adam(policy, config.learning_rate, config.adam_eps)
        self.critic_adam = self._adam(critic, config.critic_learning_rate, config.critic_adam_eps)
        self.average = WeightAverage(policy, config.weight_average) if config.weight_average else None
        self.groups: GroupHead | None = None
        if config.groups:
            width = critic.width if isinstance(critic, PreferenceModel) else policy.config.hidden_size
            self.groups = GroupHead(width, config.groups, config.seed).to(policy.device)
            self.group_adam = self._adam(self.groups, config.critic_learning_rate, config.critic_adam_eps)

    def _adam(self, module: nn.Module, rate: float, eps: float) -> torch.optim.Adam:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        betas = (self.config.adam_beta1, self.config.adam_beta2)
        sharded = any(isinstance(parameter, DTensor) for parameter in trained)
        # neither the fused nor the grouped steps take shards and whole weights together
        return torch.optim.Adam(
            trained, lr=rate, betas=betas, eps=eps, fused=not sharded, foreach=False if sharded else None
        )

    @property
    def shared(self) -> bool:
        """Whether the critic is a head on the policy's trunk."""
        return isinstance(self.critic, nn.Linear)

    def set_rate(self, share: float) -> None:
        """Scale all learning rates to `share` of their configured height."""
        config = self.config
        rates = [(self.policy_adam, config.learning_rate), (self.critic_adam, config.critic_learning_rate)]
        if self.groups is not None:
            rates.append((self.group_adam, config.critic_learning_rate))
        for optimizer, rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def read(self, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
        """V_φ at the state before each reply token, and p_φ(g|x,y) where there are groups.  -> [B, R], [B, M]"""
        with whole(self.policy if self.shared else self.critic), torch.inference_mode():
            return self._read(rollout)

    def _read(self, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
        value = torch.zeros(rollout.mask.shape, device=rollout.tokens.device)
        label = value.new_zeros(len(value), self.config.groups) if self.groups is not None else None
        for index in even_parts(rollout):
            judged = self._forward(rollout.rows(index), learn_policy=False)
            assert judged.value is not None
            assert judged.features is not None
            value[index, : judged.value.shape[1]] = judged.value
            if self.groups is not None and label is not None:
                label[index] = self.groups(judged.features)
        return distributed.added(value), None if label is None else distributed.added(label)

    def _forward(self, rollout: Rollout, *, learn_policy: bool, critic: bool = True) -> _Judged:
        """Run policy and critic over some replies. The policy runs only where it learns or lends its trunk."""
        states = logp = None
        if learn_policy or self.shared:
            with torch.set_grad_enabled(learn_policy and torch.is_grad_enabled()):
                states = reply_states(
                    self.policy, rollout.tokens, rollout.prompt_length, rollout.mask, self.config.temperature,
                    half=self.half,
                )  # fmt: skip
                logp = log_probs(states, rollout.mask)
        if not critic:
            return _Judged(None, None, logp, states)
        if isinstance(self.critic, PreferenceModel):
            value, read = values_and_states(self.critic, rollout, half=self.half)
        else:
            assert states is not None
            read = states.hidden.float()
            found = self.critic(read)[:, 0]
            value = torch.zeros(rollout.mask.shape, device=found.device).masked_scatter(rollout.mask, found)
        return _Judged(value, read[rollout.mask.sum(1).cumsum(0) - 1], logp, states)

    def update(
        self, experience: Experience, order: torch.Generator, critic_only: bool, where: str, turn: int = 0
    ) -> Updates:
        """Learn from one buffer: `inner_epochs` passes in minibatches, ended early when the policy has moved far.

        `critic_only` leaves the policy as it is and the critic unclipped. What is not a number stops the run and names
        `where`. `turn` counts the buffers that the policy learnt from before: which pretraining text comes follows from it.
        """
        done, config = Updates(), self.config
        met = turn * config.inner_epochs * round(config.ptx_ratio * config.iteration_replies)
        for epoch in range(config.inner_epochs):
            shuffled = torch.randperm(len(experience.advantage), generator=order).to(experience.advantage.device)
            for number, index in enumerate(minibatches(shuffled, config.minibatch_replies)):
                place = f"{where}, epoch {epoch + 1}, minibatch {number + 1}"
                before = done.approx_kl, done.tokens
                self._step(experience.rows(index), done, critic_only, place, index.tolist(), met)
                met += round(config.ptx_ratio * len(index))
                moved = (done.approx_kl - before[0]) / (done.tokens - before[1])
                if not critic_only and config.approx_kl_stop > 0 and moved > config.approx_kl_stop:
                    done.stopped_early = True
                    return done
        return done

    def _step(
        self, batch: Experience, done: Updates, critic_only: bool, place: str, replies: list[int], met: int
    ) -> None:
        config, tokens = self.config, int(batch.rollout.mask.sum())
        sign = -1.0 if critic_only else self._entropy_sign(batch.rollout)
        pull = self._group_pull(batch)
        # what groups learn from once all parts are through, where nothing of theirs reaches into the critic
        features = self._no_features(len(replies)) if self.groups is not None and pull is None else None
        before, policy_norm = replace(done), 0.0
        for learn_policy, learn_critic in self._passes(critic_only):
            with self._in_turn(learn_policy):
                for index in even_parts(batch.rollout):
                    part = batch.rows(index)
                    mask = part.rollout.mask
                    judged = self._forward(part.rollout, learn_policy=learn_policy, critic=learn_critic)
                    loss = torch.zeros((), device=mask.device)
                    if learn_policy:
                        surrogate = self._policy_loss(judged, part, tokens, sign)
                        done.policy_loss += float(surrogate.detach()) * tokens
                        loss = loss + surrogate
                        self._watch(judged, part, done)
                    if learn_critic:
                        assert judged.features is not None
                        loss = loss + self._critic_loss(judged, part, done, tokens, critic_only)
                        if features is not None:
                            features[index] = judged.features.detach().float()
                        if self.groups is not None and pull is not None:
                            loss = loss + (pull[index] * self.groups(judged.features)).sum()
                    if not bool(loss.isfinite()):
                        wrong = [replies[row] for row in index.tolist()]
                        raise self._not_a_number("the loss", judged, part, place, wrong)
                    loss.backward()
                if learn_policy:
                    self._learn_texts(round(config.ptx_ratio * len(replies)), met, done, place)
            if learn_policy:
                policy_norm = self._descend(self.policy_adam, self.policy, place, replies)
                if self.average is not None:
                    self.average.observe()
        done.meet(before)
        done.policy_grad_norm += policy_norm
        done.critic_grad_norm += self._descend(self.critic_adam, self.critic, place, replies)
        if self.groups is not None:
            if features is not None:
                # a quotient of sums over the minibatch, which shares of it would not add up to: the first process does it
                label = self.groups(distributed.added(features))
                if ranks.leads():
                    objective.group_loss(
                        batch.earned, label, config.group_critic_weight, config.group_balance
                    ).backward()  # type: ignore[no-untyped-call]
            self._descend(self.group_adam, self.groups, place, replies)
        done.tokens += tokens
        done.minibatches += 1

    def _passes(self, critic_only: bool) -> list[tuple[bool, bool]]:
        """Which of policy and critic learn in each pass over a minibatch.

        Networks of their own take turns: the gradients and the kept states of one at a time are in memory.
        """
        if self.shared or critic_only:
            return [(not critic_only, True)]
        return [(True, False), (False, True)]

    def _in_turn(self, learn_policy: bool) -> AbstractContextManager[None]:
        """What the passes over a minibatch run within, where their model is in shards."""
        if self.shared and not learn_policy:
            return whole(self.policy)  # it is only read: the head alone learns
        return learning(self.policy_level if learn_policy else self.critic_level)

    def _no_features(self, count: int) -> Tensor:
        width = self.critic.width if isinstance(self.critic, PreferenceModel) else self.policy.config.hidden_size
        return torch.zeros(count, width, device=self.policy.device)

    def _policy_loss(self, judged: _Judged, part: Experience, tokens: int, sign: float) -> Tensor:
        """The surrogate of a part, and the entropy bonus where it is switched on."""
        assert judged.logp is not None
        assert judged.states is not None
        config = self.config
        anchor = judged.logp.detach() if config.importance_sampling == "off" else part.anchor
        loss = objective.clipped_surrogate(
            judged.logp,
            anchor,
            part.advantage,
            part.rollout.mask,
            config.clip or None,
            tokens,
            config.dual_clip or None,
        )
        if config.entropy_weight:
            loss = loss + objective.entropy_loss(judged.states.entropy, config.entropy_weight, tokens, sign)
        return loss

    def _entropy_sign(self, rollout: Rollout) -> float:
        """-1 where the minibatch's entropy is to rise, 1 where it stands above its threshold; a pass of its own if there is one."""
        config = self.config
        if not config.entropy_weight or not config.entropy_threshold:
            return -1.0
        total = 0.0
        with whole(self.policy), torch.no_grad():
            for index in even_parts(rollout):
                states = self._forward(rollout.rows(index), learn_policy=True, critic=False).states
                assert states is not None
                total += float(states.entropy.sum())
        total = distributed.summed({"entropy": total})["entropy"]
        return 1.0 if total / int(rollout.mask.sum()) > config.entropy_threshold else -1.0

    def _group_pull(self, batch: Experience) -> Tensor | None:
        """What the group loss of the whole minibatch pulls each label by, where it reaches into the critic.  -> [B, M]

        The loss is no sum over replies, and the critic's graph lives for one part at a time: the pull is found first, in
        passes of their own. Detached features can wait until all parts are through.
        """
        if self.groups is None or self.config.group_features == "detached":
            return None
        label = self.read(batch.rollout)[1]
        assert label is not None
        return objective.label_gradient(
            batch.earned, label.clone(), self.config.group_critic_weight, self.config.group_balance
        )

    def _learn_texts(self, count: int, met: int, done: Updates, place: str) -> None:
        """Add the gradient of γ E[log π] on pretraining text, in forward passes of its own."""
        if self.texts is None or not count:
            return
        rows = self.texts.rows(met, count, self.policy.device)
        tokens, loss = int(rows.mask.sum()), 0.0
        for index in even_parts(rows):
            part = rows.rows(index)
            states = reply_states(self.policy, part.tokens, part.prompt_length, part.mask, half=self.half)
            logp = log_probs(states, part.mask)
            share = objective.pretraining_loss(logp, part.mask, self.config.ptx_weight, tokens)
            share.backward()
            loss += float(share.detach())
        if not math.isfinite(loss):
            raise NotANumber(f"the loss of the pretraining text is not a number at {place}; lower learning_rate", [])
        done.ptx_loss += loss / self.config.ptx_weight

    def _descend(self, optimizer: torch.optim.Optimizer, module: nn.Module, place: str, replies: list[int]) -> float:
        """One step along the gradient of all processes, clipped unless that is off; the norm it had before."""
        distributed.add_gradients(module.parameters())
        norm = clip_gradients(module.parameters(), self.config.max_grad_norm or math.inf)
        if not math.isfinite(norm):
            raise NotANumber(f"a gradient is not a number at {place}; lower learning_rate", replies)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _not_a_number(self, what: str, judged: _Judged, part: Experience, place: str, replies: list[int]) -> NotANumber:
        """The error that names the replies whose own numbers are at fault, or all of the part where none alone is."""
        found = [("the value", judged.value), ("the log-probability", judged.logp), ("the advantage", part.advantage)]
        for name, numbers in found:
            if numbers is not None:
                wrong = (~numbers.isfinite()).any(1).tolist()
                if any(wrong):
                    what, replies = f"{what} ({name})", [row for row, bad in zip(replies, wrong, strict=True) if bad]
                    break
        return NotANumber(f"{what} is not a number at {place}; lower learning_rate", replies)

    def _critic_loss(self, judged: _Judged, part: Experience, done: Updates, tokens: int, critic_only: bool) -> Tensor:
        """The value loss of a part; what is watched of it is added to `done`."""
        assert judged.value is not None
        config, mask = self.config, part.rollout.mask
        # A critic that is still being fitted alone has no earlier opinion worth staying near: the clip would stop it short.
        value_clip = None if critic_only else config.value_clip or None
        error = objective.value_error(judged.value, part.old_value, part.target, mask, value_clip, tokens)
        done.value_loss += float(error.detach()) * tokens
        if value_clip:
            moved = objective.value_clip_fraction(judged.value, part.old_value, mask, value_clip)
            done.value_clip_fraction += float(moved) * int(mask.sum())
        return config.value_weight * error if self.shared and not critic_only else error

    @torch.no_grad()
    def _watch(self, judged: _Judged, part: Experience, done: Updates) -> None:
        """Add up what is watched of one part: KL(old‖new), ratios, clips, entropy, the sampler's gap; reply tokens only."""
        assert judged.logp is not None
        assert judged.states is not None
        config, mask, old_logp = self.config, part.rollout.mask, part.rollout.old_logp
        tokens = int(mask.sum())
        # Under samples of the old policy KL(old‖new) = E[ρ - 1 - log ρ], the third estimator with the sides exchanged.
        done.approx_kl += float(objective.kl_estimators(old_logp, judged.logp, mask)[2].sum())
        ratio = objective.log_ratio(judged.logp[mask], part.anchor[mask]).exp()
        done.ratio += float(ratio.sum())
        done.ratio_max = max(done.ratio_max, float(ratio.max()))
        if config.clip:
            done.clip_fraction += float(objective.clip_fraction(judged.logp, part.anchor, mask, config.clip)) * tokens
        if done.minibatches == 0:  # of the policy that sampled; the whole vocabulary is dear, one minibatch is enough
            done.sampler_gap = max(done.sampler_gap, float((judged.logp - old_logp)[mask].abs().max()))
            done.entropy += float(judged.states.entropy.detach().sum())
            done.entropy_tokens += tokens

    def servable(self) -> dict[str, Tensor]:
        """The weights that would be served: the average where there is one, else the policy's own."""
        if self.average is not None:
            return {f"served.{name}": gathered(weight) for name, weight in self.average.weights.items()}
        return module_tensors(self.policy, "served")

    def wear(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights that `servable` gave into the policy."""
        restore_module(self.policy, "served", weights)

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs of the learner."""
        found = {
            **module_tensors(self.policy, "policy"),
            **module_tensors(self.critic, "critic"),
            **optimizer_tensors(self.policy_adam, "policy_adam"),
            **optimizer_tensors(self.critic_adam, "critic_adam"),
        }
        if self.average is not None:
            found |= self.average.tensors()
        if self.groups is not None:
            found |= module_tensors(self.groups, "groups") | optimizer_tensors(self.group_adam, "group_adam")
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        restore_module(self.policy, "policy", tensors)
        restore_module(self.critic, "critic", tensors)
        restore_optimizer(self.policy_adam, "policy_adam", tensors)
        restore_optimizer(self.critic_adam, "critic_adam", tensors)
        if self.average is not None:
            self.average.restore(tensors)
        if self.groups is not None:
            restore_module(self.groups, "groups", tensors)
            restore_optimizer(self.group_adam, "group_adam", tensors)
