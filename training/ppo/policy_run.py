"""One PPO run: the models, what it has seen so far, one iteration of it, and how it begins, is saved and ends."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training import objective
from training.config import PolicyConfig
from training.data.prompts import evenly
from training.failure import JobFailed
from training.measuring.contest import against, reply_numbers, room_for_prompts
from training.models import lora
from training.models.checkpoint import first_unsound
from training.models.last_good import LastGood
from training.models.snapshots import stated_fingerprint
from training.ppo.collapse import CollapseAlarm
from training.ppo.group_invariant import group_numbers, penalty_share, policy_weights
from training.ppo.learner import Learner
from training.ppo.normaliser import ScoreNormaliser
from training.ppo.policy_models import load_models, write_policy
from training.ppo.policy_numbers import experience_numbers
from training.ppo.policy_prompts import PolicyPrompts
from training.ppo.rates import rate_share, too_short
from training.ppo.trial import finite, try_out
from training.ppo.updates import NotANumber, must_be_finite
from training.processes import distributed, ranks
from training.processes.device import device_of_choice
from training.processes.sharding import whole
from training.reading.pretraining_text import PretrainingText
from training.runs.cadence import Cadence
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.sampling.engine import Engine
from training.sampling.rollouts import (
    Experience,
    Occasion,
    Rollout,
    policy_logp,
    preference_scores,
    reply_seeds,
    sample,
)
from training.sampling.self_checks import check_start


class PolicyRun:
    """One PPO run: the models, what it has seen so far, and one iteration of it."""

    def __init__(self, folder: RunFolder, config: PolicyConfig) -> None:
        self.folder, self.config = folder, config
        models = load_models(config, device_of_choice())
        # as of the files that were loaded: a folder may hold another model before this run ends
        self.began_with = {
            "initial_policy": stated_fingerprint(config.model),
            "preference_model": stated_fingerprint(config.preference_model),
        }
        self.policy, self.reference, self.pm, self.tokenizer = (
            models.policy, models.reference, models.pm, models.tokenizer
        )  # fmt: skip
        self.end_id, self.copies = models.end_id, models.copies
        self.room = room_for_prompts([self.policy.config, self.pm.backbone.config], config.max_new_tokens)
        self.prompts = PolicyPrompts(folder.data, self.tokenizer, self.room, config.held_out, config.prompt_weights)
        self.texts: PretrainingText | None = None
        if config.ptx_weight:
            self.texts = PretrainingText.read(folder.data, self.tokenizer, config.ptx_tokens, config.seed)
        self.learner = Learner(
            self.policy, models.critic, config, self.texts,
            policy_level=models.policy_level, critic_level=models.critic_level,
        )  # fmt: skip
        self.half = self.learner.half  # one precision for policy, reference, preference model and critic
        # No wider than the longest prompt asks for: the context of a large model would be gigabytes of keys and values.
        self.width = self.prompts.longest + config.max_new_tokens
        with whole(self.policy):
            self.engine = Engine(self.policy, self.tokenizer, config.slots, self.width, half=self.half)
        self.engine.release()  # each use begins by refreshing it
        self.normaliser = ScoreNormaliser(config.score_normalisation, config.score_clip)
        self.kl_weight = config.kl_weight
        self.alarm = CollapseAlarm(
            window=config.collapse_window,
            length_factor=config.collapse_length,
            perplexity_factor=config.collapse_perplexity,
            kl_bound=config.collapse_kl,
            runaway_factor=config.collapse_runaway,
            cap=config.max_new_tokens,
            noise_bound=config.collapse_noise * math.log(self.policy.config.vocab_size),
        )
        self.last_good = LastGood(folder.path / "good", config.collapse_window)
        self.critic_losses: list[float] = []  # of the iterations in which the critic alone learnt
        self.critic_iterations = config.critic_pretraining  # of them, once it is known that they end sooner
        self.gaps: dict[str, float] = {}  # what the self-check at the very start found
        self.seconds = 0.0  # over all starts of this run
        self.last_reply: Rollout | None = None  # of the iteration before, for a trial of what it made of the weights

    @property
    def turns(self) -> int:
        """Iterations in which the policy learns."""
        return math.ceil(self.config.episodes / self.config.iteration_replies)

    @property
    def iterations(self) -> int:
        """All iterations of the run, as far as is known by now."""
        return self.critic_iterations + self.turns

    def iterate(self, iteration: int) -> dict[str, float]:
        """Sample, score and learn once; the numbers of it."""
        config, begin = self.config, time.monotonic()
        turn = iteration - self.critic_iterations
        done = max(turn, 0) * config.iteration_replies
        count = config.iteration_replies if turn < 0 else min(config.iteration_replies, config.episodes - done)
        prompts = self.prompts.take(config.seed, iteration * config.iteration_replies, count)
        try:
            numbers = self._learn(iteration, turn, prompts)
        except NotANumber as bad:
            raise self._stopped(iteration + 1, bad, prompts) from bad
        if turn < 0:
            self._end_pretraining(numbers["value_loss"])
        elif config.kl_target > 0:
            self.kl_weight = objective.adapted_kl_weight(
                self.kl_weight, numbers["kl"], config.kl_target, count, config.kl_horizon
            )
        seconds = time.monotonic() - begin
        self.seconds += seconds
        return {"episodes": done + count if turn >= 0 else 0, **numbers, "seconds": seconds}

    def _learn(self, iteration: int, turn: int, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
        config, where, pretraining = self.config, f"step {iteration + 1}", turn < 0

        # 1 replies of the present policy
        with whole(self.policy):
            self.engine.refresh(self.policy)
            rollout = sample(
                self.engine, prompts, reply_seeds(config.seed, iteration, len(prompts)),
                config.max_new_tokens, config.temperature,
            )  # fmt: skip
            self.engine.release()  # nobody samples before the weights have changed
        must_be_finite(rollout.old_logp, f"the sampler's log-probability at {where}", "lower learning_rate")
        rollout, sampler_gap = self._as_learnt(rollout)
        mask, logp = rollout.mask, rollout.old_logp
        must_be_finite(logp, f"the policy's log-probability at {where}", "lower learning_rate")

        # 2 scores, on a common scale; a reply that was cut is worth less
        raw_score = preference_scores(self.pm, rollout, self.end_id, half=self.half)
        must_be_finite(raw_score, f"the preference model's score at {where}", "train it again")
        self.normaliser.observe(raw_score)
        score = self._score(raw_score, rollout)

        # 3 rewards; in group-invariant learning the penalty is strong on the group that earns most
        ref_logp = policy_logp(self.reference, rollout, config.temperature, half=self.half)
        must_be_finite(ref_logp, f"the initial policy's log-probability at {where}", "check its files")
        value, label = self.learner.read(rollout)
        reward, groups = self._rewards(score, rollout, ref_logp, None), dict[str, float]()
        if config.group_kl and label is not None:
            penalised = penalty_share(reward.sum(1), label, config.group_floor)
            groups["group_kl_share"] = float(penalised.mean())
            reward = self._rewards(score, rollout, ref_logp, penalised)
        earned = reward.sum(1)

        # 4 advantages and what the critic should have said
        paid = objective.whiten(reward, mask, keep_mean=True) if config.whiten_rewards else reward
        plain = objective.advantages(paid, value, mask, config.gamma, config.lam)
        target = objective.returns(plain, value, mask)
        advantage = objective.whiten(plain, mask) if config.whiten_advantages else plain
        if config.advantage_clip:
            advantage = advantage.clamp(-config.advantage_clip, config.advantage_clip)
        if config.group_policy_weight:
            weight, beta = policy_weights(config, earned, label)
            advantage = weight[:, None] * advantage
            groups |= {"group_weight_least": float(weight.min()), "group_weight_most": float(weight.max())}
            groups["group_policy_weight"] = beta

        # 5 update
        share = 1.0 if pretraining else rate_share(config, turn, self.turns)
        self.learner.set_rate(share)
        order = torch.Generator().manual_seed(reply_seeds(config.seed, iteration, 1)[0] % 2**63)
        anchor = ref_logp if config.importance_sampling == "reference" else logp
        experience = Experience(rollout, advantage, target, value, anchor, earned)
        updates = self.learner.update(experience, order, pretraining, where, max(turn, 0))
        self.last_reply = rollout.rows(rollout.tokens.new_zeros(1))
        if label is not None:
            after = self.learner.read(rollout)[1]
            assert after is not None
            groups |= group_numbers(earned, label, after)

        numbers = {
            "critic_only": float(pretraining),
            **experience_numbers(rollout, raw_score, reward, value, target, plain, ref_logp),
            "kl_weight": self.kl_weight,
            "learning_rate": 0.0 if pretraining else share * config.learning_rate,
            **reply_numbers(rollout),
            **updates.means(ptx=self.texts is not None and not pretraining),
            **groups,
        }
        if self.half:
            numbers["sampler_gap"] = sampler_gap
        if pretraining:  # no forward of the policy was needed; -E[log π] estimates the same from its samples
            numbers["entropy"] = -float(logp[mask].mean())
        return numbers

    def _as_learnt(self, rollout: Rollout) -> tuple[Rollout, float]:
        """The rollout with the log-probabilities that the ratio is to, and the sampler's largest gap from them.

        In half precision two kernels round apart, so the passes that learn say themselves what the policy thought.
        """
        if not self.half:
            return rollout, 0.0
        logp = policy_logp(self.policy, rollout, self.config.temperature, half=True)
        return replace(rollout, old_logp=logp), float((logp - rollout.old_logp)[rollout.mask].abs().max())

    def _score(self, raw_score: Tensor, rollout: Rollout) -> Tensor:
        config, score = self.config, self.normaliser.normalise(raw_score)
        if config.missing_end == "replace":
            return torch.where(rollout.ended, score, -config.missing_end_penalty)
        return score - config.missing_end_penalty * (~rollout.ended).float()

    def _rewards(self, score: Tensor, rollout: Rollout, ref_logp: Tensor, share: Tensor | None) -> Tensor:
        config = self.config
        return objective.token_rewards(
            score, rollout.old_logp, ref_logp, rollout.mask, self.kl_weight,
            estimator=config.kl_estimator, unit=config.kl_unit, share=share,
        )  # fmt: skip

    def _end_pretraining(self, value_loss: float) -> None:
        """Let the policy learn from the next iteration on, once the critic's loss has stopped falling."""
        patience = self.config.critic_pretraining_patience
        self.critic_losses.append(value_loss)
        if patience and len(self.critic_losses) > patience:
            best = min(self.critic_losses[:-patience])
            if min(self.critic_losses[-patience:]) > 0.99 * best:
                self.critic_iterations = len(self.critic_losses)

    def self_check(self) -> dict[str, float]:
        """Compare sampler, training forward and reference before anything is learnt."""
        count = min(16, len(self.prompts.train))
        prompts = self.prompts.train[:count]
        temperature = self.config.temperature
        with whole(self.policy):
            self.engine.refresh(self.policy)
            seeds = reply_seeds(self.config.seed, Occasion.SELF_CHECK, count)
            rollout = sample(self.engine, prompts, seeds, 24, temperature)
            self.engine.release()
        return check_start(self.policy, self.reference, self.pm, rollout, temperature, half=self.half)

    def save(self, step: int) -> None:
        """Write a checkpoint from which `load` goes on as if nothing had happened; JobFailed where nothing could go on from it."""
        self._try_out(step)
        state = {
            "normaliser": self.normaliser.state(),
            "kl_weight": self.kl_weight,
            "alarm": self.alarm.state(),
            "critic_losses": self.critic_losses,
            "critic_iterations": self.critic_iterations,
            "gaps": self.gaps,
            "seconds": self.seconds,
        }
        self.folder.save_checkpoint(step, self.learner.tensors(), state)

    def load(self) -> int:
        """Go on from the checkpoint; the steps that are done, 0 without one."""
        saved = self.folder.load_checkpoint()
        if saved is None:
            return 0
        self.learner.restore(saved.tensors)
        self.normaliser.restore(saved.state["normaliser"])
        self.kl_weight, self.seconds = saved.state["kl_weight"], saved.state["seconds"]
        self.critic_losses, self.critic_iterations = saved.state["critic_losses"], saved.state["critic_iterations"]
        self.gaps = saved.state["gaps"]
        self.alarm.restore(saved.state["alarm"])
        return saved.step

    def run(self) -> dict[str, Any]:
        """All iterations that are left, then the new policy and what it is worth."""
        config = self.config
        done = self.load()
        if not done:
            for warning in too_short(config, self.turns) if ranks.leads() else ():
                print(f"warning: {warning}", file=sys.stderr)
            self.gaps = self.self_check()
        cadence = Cadence(config.checkpoint_seconds, config.checkpoint_steps, together=config.sharding == "full")
        step = done
        with Bar("policy", self.iterations) as bar:
            while step < self.iterations:
                numbers = self.iterate(step)
                step += 1
                self.folder.log(step=step, of=self.iterations, **numbers)
                self._watch(step, numbers)
                if cadence.due(step, self.iterations):
                    with cadence.saving():
                        self.save(step)
                bar.at(step, f"score {numbers['score_mean']:.2f}  KL {numbers['kl']:.1f}")
        return self.finish(step)

    def _watch(self, step: int, numbers: Mapping[str, float]) -> None:
        """Stop a policy that has collapsed, and hand out the one from before the window in which it did."""
        if not self.config.collapse_alarm:
            return
        reason = self.alarm.observe(
            length=numbers["length_mean"],
            perplexity=numbers["perplexity"],
            kl_per_token=numbers["kl_per_token"],
            perplexity_initial=numbers["perplexity_initial"],
        )
        if reason is None:
            self.last_good.keep(step, lambda: self._servable(step))
            return
        given = self._hand_out(step)
        distributed.barrier()  # a process that leaves takes the one that writes with it
        raise JobFailed(f"step {step}: {reason}. {given or 'No policy but the initial one is from before that'}")

    def _hand_out(self, step: int) -> str:
        """Make the policy from before the window that ends with `step` model/; words for it, none where there is none."""
        found = self.last_good.before(step)
        if found is None:
            return ""
        self.learner.wear(found[1])
        self._write_model(found[0])
        return f"model/ holds the policy of step {found[0]}, from before that"

    def _servable(self, step: int) -> dict[str, Tensor]:
        self._try_out(step)
        return self.learner.servable()

    def _try_out(self, step: int) -> None:
        """Stop before weights that make no numbers are kept anywhere."""
        if self.last_reply is None:
            return
        try:
            try_out(self.learner, self.last_reply, f"step {step}")
        except NotANumber as bad:
            raise self._stopped(step, bad, []) from bad

    def _stopped(self, step: int, bad: NotANumber, prompts: Sequence[Sequence[int]]) -> JobFailed:
        """What a number that is none ends the run with: which, whose, and what is left.

        One of several processes may be alone in having found it; the others would not come to hand anything out.
        """
        given = self._hand_out(step) if ranks.size() == 1 else ""
        kept = ", whose last checkpoint is kept" if self.folder.checkpoint.exists() else ""
        reason = f"{bad.named(prompts, self.tokenizer)}. Other settings need a new folder beside this one{kept}"
        return JobFailed(f"{reason}. {given}" if given else reason)

    def finish(self, step: int) -> dict[str, Any]:
        """Measure the policy of iteration `step` on held-out prompts and write it to model/."""
        config, begin = self.config, time.monotonic()
        average = self.learner.average
        with nullcontext() if average is None else average.in_place():
            found = self._measure(evenly(self.prompts.held_out, config.evaluation_prompts))
            wrong = first_unsound(self.policy) or next((name for name in found if not finite(found[name])), None)
            if wrong is None:
                self._write_model(step)
        if wrong is not None:  # a policy of no numbers is worth no model/, and a result cannot say them
            bad = NotANumber(f"{wrong} is not a number after step {step}, on held-out prompts; lower learning_rate", [])
            raise self._stopped(step, bad, [])
        self.last_good.forget()
        self.seconds += time.monotonic() - begin
        return {
            "episodes": self._episodes(step),
            "iterations": step,
            **{name: number for name, number in found.items() if name != "prompts"},
            "held_out_prompts": found["prompts"],
            "held_out_trained": self.prompts.held_out_trained,
            "train_prompts": self.prompts.count,
            "left_out": self.prompts.left_out,
            "left_out_held_out": self.prompts.left_out_held_out,
            **(
                {"pretraining_texts": self.texts.texts, "pretraining_pieces": len(self.texts.pieces)}
                if self.texts
                else {}
            ),
            **lora.sizes(self.policy, copies=self.copies),
            "self_check": self.gaps,
            "seconds": self.seconds,
        }

    def _measure(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        config = self.config
        with whole(self.reference), lora.seen(self.reference):
            rival = Engine(self.reference, self.tokenizer, config.slots, self.width, half=self.half)
        rival.release()
        with Bar("evaluation", 2 * len(prompts)) as bar:
            return against(
                self.policy, self.engine, self.reference, rival, self.pm, self.end_id, prompts, config.seed,
                config.max_new_tokens, config.temperature, bar.at, half=self.half,
            )  # fmt: skip

    def _episodes(self, step: int) -> int:
        return min(self.config.episodes, max(step - self.critic_iterations, 0) * self.config.iteration_replies)

    def _write_model(self, step: int) -> None:
        """Write the policy as it stands in memory."""
        write_policy(self.folder, self.config, self.policy, self.tokenizer, self._episodes(step), self.began_with)
