"""`python -m training.policy FOLDER`: PPO of a chat policy against a preference model (Bai et al. 2022 §4.1).

Reads data/prompts.jsonl (and data/held_out.jsonl, else a share of the prompts is held out); writes metrics.jsonl,
checkpoint/, model/ and result.json. One iteration: 1 sample replies, 2 score them, 3 rewards with the KL to the initial
policy, 4 advantages, 5 update. Everything drawn by lot comes from the seed and the iteration, so a run that was killed goes
on to the same numbers. Where this differs from the papers: the critic may be pretrained, and a policy that moved far from
the one that sampled ends the passes over a rollout early.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from training import objective
from training.collapse import CollapseAlarm
from training.config import BadConfig, PolicyConfig
from training.device import device_of_choice
from training.engine import Engine
from training.evaluate import against, reply_numbers, room_for_prompts
from training.job import JobFailed, run_job
from training.learner import Learner
from training.models import PreferenceModel
from training.normaliser import ScoreNormaliser
from training.presets import PRESETS
from training.progress import Bar
from training.prompts import evenly, hold_out, read_prompts, rendered, taken
from training.rollouts import Experience, policy_logp, preference_scores, reply_seeds, sample
from training.run_folder import RunFolder
from training.self_checks import check_start, check_tokenizers
from training.snapshots import check_snapshot, load_policy, save_policy


class PolicyRun:
    """One PPO run: the models, what it has seen so far, and one iteration of it."""

    def __init__(self, folder: RunFolder, config: PolicyConfig) -> None:
        self.folder, self.config = folder, config
        device = device_of_choice()
        self.policy, self.tokenizer = load_policy(config.model)
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.pm, pm_tokenizer = PreferenceModel.load(config.preference_model)
        self.pm.requires_grad_(False)
        check_tokenizers(self.tokenizer, pm_tokenizer)
        for model in (self.policy, self.reference, self.pm):
            model.to(device)
        self.end_id = int(self.tokenizer.eos_token_id)
        self.learner = Learner(self.policy, self._new_critic(device), config)
        self._read_prompts()
        self.engine = Engine(self.policy, self.tokenizer, config.slots, self.room + config.max_new_tokens)
        self.normaliser = ScoreNormaliser(config.score_normalisation, config.score_clip)
        self.kl_weight = config.kl_weight
        self.alarm = CollapseAlarm(
            config.collapse_window, config.collapse_length, config.collapse_perplexity, config.collapse_kl
        )
        self.iterations = config.critic_pretraining + math.ceil(config.episodes / config.rollout_replies)
        self.gaps: dict[str, float] = {}  # what the self-check at the very start found
        self.seconds = 0.0  # over all starts of this run

    def _new_critic(self, device: torch.device) -> nn.Module:
        if self.config.critic == "separate":
            return copy.deepcopy(self.pm).requires_grad_(True)
        head = nn.Linear(self.policy.config.hidden_size, 1)
        nn.init.zeros_(head.weight)  # a value head of its own begins at zero (Huang et al., detail 14)
        nn.init.zeros_(head.bias)
        return head.to(device)

    def _read_prompts(self) -> None:
        held_out_file = self.folder.data / "held_out.jsonl"
        prompts = read_prompts(self.folder.data / "prompts.jsonl")
        if held_out_file.exists():
            held_out = read_prompts(held_out_file)
        else:
            prompts, held_out = hold_out(prompts, self.config.held_out)
        self.room = room_for_prompts([self.policy.config, self.pm.backbone.config], self.config.max_new_tokens)
        self.prompts, self.left_out = rendered(self.tokenizer, prompts, self.room)
        self.held_out, _ = rendered(self.tokenizer, held_out, self.room)
        if not self.prompts or not self.held_out:
            raise JobFailed(
                f"{len(self.prompts)} prompts to train on and {len(self.held_out)} held out fit into {self.room} tokens; "
                "at least one of each is needed, with different first messages"
            )

    def iterate(self, iteration: int) -> dict[str, float]:
        """Sample, score and learn once; the numbers of it."""
        config, begin = self.config, time.monotonic()
        pretraining = iteration < config.critic_pretraining
        at = (iteration - config.critic_pretraining) * config.rollout_replies
        count = config.rollout_replies if pretraining else min(config.rollout_replies, config.episodes - at)
        where = f"step {iteration + 1}"

        # 1 replies of the present policy
        places = taken(len(self.prompts), config.seed, iteration * config.rollout_replies, count)
        self.engine.refresh(self.policy)
        rollout = sample(
            self.engine, [self.prompts[place] for place in places], reply_seeds(config.seed, iteration, count),
            config.max_new_tokens, config.temperature,
        )  # fmt: skip
        mask, logp = rollout.mask, rollout.old_logp

        # 2 scores, on a common scale; a reply that was cut is worth less
        raw_score = preference_scores(self.pm, rollout, self.end_id)
        if not bool(raw_score.isfinite().all()):
            raise JobFailed(f"the preference model's score is not a number at {where}; train it again")
        self.normaliser.observe(raw_score)
        score = self.normaliser.normalise(raw_score) - config.missing_end_penalty * (~rollout.ended).float()

        # 3 rewards
        ref_logp = policy_logp(self.reference, rollout, config.temperature)
        reward = objective.token_rewards(score, logp, ref_logp, mask, self.kl_weight)

        # 4 advantages and what the critic should have said
        value = self.learner.values(rollout)
        advantage = objective.advantages(reward, value, mask, config.gamma, config.lam)
        target = objective.returns(advantage, value, mask)
        explained = objective.explained_variance(value, target, mask)
        if config.whiten_advantages:
            advantage = objective.whiten(advantage, mask)

        # 5 update
        self.learner.set_rate(1.0 if pretraining else self._rate_share(iteration))
        order = torch.Generator().manual_seed(reply_seeds(config.seed, iteration, 1)[0] % 2**63)
        updates = self.learner.update(Experience(rollout, advantage, target, value), order, pretraining, where)

        k1, _, k3 = objective.kl_estimators(logp, ref_logp, mask)
        kl = float(k1.sum(1).mean())
        numbers = {
            "episodes": 0 if pretraining else at + count,
            "critic_only": float(pretraining),
            "score_mean": float(raw_score.mean()),
            "score_std": float(raw_score.std(unbiased=False)),
            "reward_mean": float(reward.sum(1).mean()),
            "kl": kl,
            "kl_k3": float(k3.sum(1).mean()),
            "kl_per_token": float(k1[mask].mean()),
            "kl_weight": self.kl_weight,
            "explained_variance": explained,
            **reply_numbers(rollout),
            **updates.means(),
        }
        if pretraining:  # no forward of the policy was needed; -E[log π] estimates the same from its samples
            numbers["entropy"] = -float(logp[mask].mean())
        elif config.kl_target > 0:
            self.kl_weight = objective.adapted_kl_weight(self.kl_weight, kl, config.kl_target, count, config.kl_horizon)
        seconds = time.monotonic() - begin
        self.seconds += seconds
        return numbers | {"seconds": seconds}

    def _rate_share(self, iteration: int) -> float:
        """Share of the full learning rate: a warm-up in equal steps, then constant or falling in equal steps.

        The tenth that the warm-up starts from and the tenth that the fall leads to are steps before the first iteration
        and after the last: no iteration is spent on them.
        """
        config, turn = self.config, iteration - self.config.critic_pretraining
        turns = self.iterations - config.critic_pretraining
        share = 1.0 if config.schedule == "constant" else 1.0 - 0.9 * turn / max(turns, 1)
        if turn < config.warmup_iterations:
            share *= 0.1 + 0.9 * (turn + 1) / (config.warmup_iterations + 1)
        return share

    def self_check(self) -> dict[str, float]:
        """Compare sampler, training forward and reference before anything is learnt."""
        count = min(16, len(self.prompts))
        prompts = self.prompts[:count]
        temperature = self.config.temperature
        rollout = sample(self.engine, prompts, reply_seeds(self.config.seed, 2**30, count), 24, temperature)
        return check_start(self.policy, self.reference, self.pm, rollout, temperature)

    def save(self, step: int) -> None:
        """Write a checkpoint from which `load` goes on as if nothing had happened."""
        state = {
            "normaliser": self.normaliser.state(),
            "kl_weight": self.kl_weight,
            "alarm": self.alarm.state(),
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
        self.gaps = saved.state["gaps"]
        self.alarm.restore(saved.state["alarm"])
        return saved.step

    def run(self) -> dict[str, Any]:
        """All iterations that are left, then the new policy and what it is worth."""
        config = self.config
        done = self.load()
        if not done:
            self.gaps = self.self_check()
        saved_at = time.monotonic()
        with Bar("policy", self.iterations) as bar:
            for iteration in range(done, self.iterations):
                step = iteration + 1
                numbers = self.iterate(iteration)
                self.folder.log(step=step, of=self.iterations, **numbers)
                reason = self.alarm.observe(numbers["length_mean"], numbers["perplexity"], numbers["kl_per_token"])
                if reason:
                    raise JobFailed(f"step {step}: {reason}. The checkpoint before it is kept")
                late = time.monotonic() - saved_at >= config.checkpoint_seconds
                due = step % config.checkpoint_steps == 0 if config.checkpoint_steps else late
                if due or step == self.iterations:
                    self.save(step)
                    saved_at = time.monotonic()
                bar.at(step, f"score {numbers['score_mean']:.2f}  KL {numbers['kl']:.1f}")
        return self._finish()

    def _finish(self) -> dict[str, Any]:
        config, begin = self.config, time.monotonic()
        prompts = evenly(self.held_out, config.evaluation_prompts)
        self.engine.refresh(self.policy)
        rival = Engine(self.reference, self.tokenizer, config.slots, self.room + config.max_new_tokens)
        with Bar("evaluation", 2 * len(prompts)) as bar:
            found = against(
                self.policy,
                self.engine,
                self.reference,
                rival,
                self.pm,
                self.end_id,
                prompts,
                config.seed,
                config.max_new_tokens,
                config.temperature,
                bar.at,
            )
        initial, pm = check_snapshot(config.model), check_snapshot(config.preference_model)
        self.folder.write_model(
            lambda path: save_policy(
                path,
                self.policy,
                self.tokenizer,
                job="policy",
                preset=config.preset,
                episodes=config.episodes,
                seed=config.seed,
                initial_policy=initial.fingerprint,
                preference_model=pm.fingerprint,
            )
        )
        self.seconds += time.monotonic() - begin
        return {
            "episodes": config.episodes,
            **{name: number for name, number in found.items() if name != "prompts"},
            "held_out_prompts": found["prompts"],
            "train_prompts": len(self.prompts),
            "left_out": self.left_out,
            "self_check": self.gaps,
            "seconds": self.seconds,
        }


def settings_of(folder: RunFolder, given: Mapping[str, Any]) -> PolicyConfig:
    """config.json and the command line over the preset over the defaults; written back complete."""
    begun = folder.settings()
    named = {name for name, value in given.items() if value is not None} | set(begun)
    preset = given.get("preset") or begun.get("preset", "starter")
    if preset not in PRESETS:
        raise BadConfig(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    if "job" in begun and preset != begun["preset"]:  # config.json is complete: each setting in it outranks a preset
        raise BadConfig(f"this folder was begun with the preset {begun['preset']!r}; start a new one for {preset!r}")
    beneath = {name: value for name, value in PRESETS[preset].items() if name not in named}
    config = folder.configure(
        PolicyConfig, "policy", **(beneath | {name: given[name] for name in given if given[name] is not None})
    )
    for name in ("model", "preference_model"):
        if not getattr(config, name):
            raise BadConfig(f"{name} is missing: name a directory in config.json or on the command line")
    return config


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.policy",
        description=__doc__,
        epilog="Example: whetstone train policy my-policy --preference-model my-pm/model --episodes 512",
    )
    parser.add_argument("folder", help="run folder with config.json and data/prompts.jsonl")
    parser.add_argument("--model", help="directory of the initial policy")
    parser.add_argument("--preference-model", help="directory of the preference model")
    parser.add_argument("--preset", choices=list(PRESETS), help="settings of a paper by name")
    parser.add_argument("--episodes", type=int, help="replies to learn from")
    given = vars(parser.parse_args(arguments))

    def work(folder: RunFolder) -> dict[str, Any]:
        config = settings_of(folder, given)
        if config.threads:
            torch.set_num_threads(config.threads)
        return PolicyRun(folder, config).run()

    return run_job(given.pop("folder"), work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
