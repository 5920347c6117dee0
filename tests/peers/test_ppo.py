"""PPO beside TRL 1.12's PPOTrainer: same weights, prompts and replies, float32, to 1e-5; where definitions differ, by what.

Two sets of replies. "level": all of the same length, none ended by itself; there both definitions are one. "ragged": ended at
different lengths; there TRL's episode has one step more than ours (docs/decisions.md, "Where TRL differs").
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from tests.peers.conftest import Found, same_weights, save_as_classifier
from training import objective
from training.config import PolicyConfig
from training.models.models import PreferenceModel
from training.ppo.learner import Learner
from training.sampling.engine import Generated
from training.sampling.rollouts import (
    Experience,
    Rollout,
    policy_logp,
    preference_scores,
    rollout_of,
    values_and_states,
)
from training.sampling.sampling import reply_mask

pytestmark = pytest.mark.peers
LONGEST, EPOCHS, RATE, KL, LAM, CLIP = 9, 3, 1e-2, 0.3, 0.9, 0.05
TEMPERATURES = {"level": 0.7, "plain": 1.0, "ragged": 0.7}
TIGHT = {"rtol": 0, "atol": 1e-5}


class Case(NamedTuple):
    """One set of replies: what TRL made of it, and ours on the same, in the order in which TRL shuffled the prompts."""

    name: str
    trl: dict[str, Tensor]
    rollout: Rollout
    policy: Path
    reference: Path
    pm: PreferenceModel
    critic: PreferenceModel
    end_id: int

    @property
    def temperature(self) -> float:
        return TEMPERATURES[self.name]

    def theirs(self, name: str) -> Tensor:
        return self.trl[f"{self.name}/{name}"]

    def agree(self, ours: Tensor, theirs: Tensor) -> None:
        """On the reply tokens; what stands in the padding is each side's own business."""
        torch.testing.assert_close(ours[self.rollout.mask], theirs[self.rollout.mask], **TIGHT)


class Question(NamedTuple):
    trl: Found
    prompts: list[list[int]]
    replies: dict[str, list[list[int]]]
    cases: Callable[[str], Case]


@pytest.fixture(scope="module")
def case(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy: Path, other_policy: Path,
    tokenizer: PreTrainedTokenizerBase, ask: Callable[..., Found],
) -> Callable[[str], Case]:  # fmt: skip
    folder, draw, end_id = tmp_path_factory.mktemp("ppo"), random.Random(2), int(tokenizer.eos_token_id)
    words = lambda count: [draw.randrange(40, 250) for _ in range(count)]
    prompts = [words(3 + number) for number in range(6)]
    level = [words(LONGEST) for _ in prompts]
    ragged = [[*words(length - 1), end_id] for length in (1, 3, LONGEST, 5, 2)] + [words(LONGEST)]
    replies = {"level": level, "plain": level, "ragged": ragged}
    pm, _ = PreferenceModel.from_policy(other_policy, seed=1)
    critic, _ = PreferenceModel.from_policy(tiny_policy, seed=2)
    question = {
        "policy": str(tiny_policy), "reference": str(other_policy), "prompts": prompts,
        "preference": str(save_as_classifier(pm, folder / "pm")), "critic": str(save_as_classifier(critic, folder / "critic")),
        "cases": {name: (replies[name], temperature) for name, temperature in TEMPERATURES.items()},
        "settings": {
            "num_ppo_epochs": EPOCHS, "learning_rate": RATE, "adam_epsilon": 1e-3, "adam_beta2": 0.999, "weight_decay": 0.0,
            "vf_coef": 1.0, "kl_coef": KL, "cliprange": CLIP, "cliprange_value": CLIP, "gamma": 1.0, "lam": LAM,
            "missing_eos_penalty": None,
        },
    }  # fmt: skip
    found = ask("trl_ppo", folder, question, ppo=True)
    pad = int(tokenizer.pad_token_id)
    reply_to = {name: dict(zip(map(tuple, prompts), rows, strict=True)) for name, rows in replies.items()}

    def one(name: str) -> Case:
        shuffled = [[token for token in row if token != pad] for row in found.numbers[f"{name}/queries"].tolist()]
        rows = [reply_to[name][tuple(prompt)] for prompt in shuffled]
        mask = reply_mask(torch.tensor([len(row) for row in rows]))
        tokens = torch.tensor([row + [0] * (LONGEST - len(row)) for row in rows])
        ended = torch.tensor([row[-1] == end_id for row in rows])
        rollout = rollout_of(shuffled, Generated(tokens, torch.zeros(mask.shape), mask, ended))
        return Case(name, found.numbers, rollout, tiny_policy, other_policy, pm, critic, end_id)

    return one


@pytest.fixture(params=["level", "plain", "ragged"])
def each(request: pytest.FixtureRequest, case: Callable[[str], Case]) -> Case:
    return case(request.param)


def test_log_probs_of_policy_and_reference_agree_at_either_temperature(each: Case) -> None:
    for path, name in ((each.policy, "logprobs"), (each.reference, "ref_logprobs")):
        model = AutoModelForCausalLM.from_pretrained(path)
        each.agree(policy_logp(model, each.rollout, each.temperature), each.theirs(name))


def test_values_agree_and_so_do_the_scores_of_replies_that_ended(each: Case) -> None:
    with torch.no_grad():
        each.agree(values_and_states(each.critic, each.rollout)[0], each.theirs("values"))
    # A cut reply we read on an end token put after it, TRL on its last word.
    ended = each.rollout.ended
    scores = preference_scores(each.pm, each.rollout, each.end_id)
    torch.testing.assert_close(scores[ended], each.theirs("scores")[ended], **TIGHT)
    assert bool(((scores - each.theirs("scores")).abs() > 1e-3)[~ended].all())


@pytest.mark.parametrize("name", ["level", "plain"])
def test_rewards_and_advantages_agree_where_no_reply_ends_early(name: str, case: Callable[[str], Case]) -> None:
    here = case(name)
    mask = here.rollout.mask
    reward = objective.token_rewards(
        here.theirs("scores"), here.theirs("logprobs"), here.theirs("ref_logprobs"), mask, KL
    )
    here.agree(reward, here.theirs("rewards"))
    value = here.theirs("values")
    advantage = objective.advantages(reward, value, mask, 1.0, LAM)
    here.agree(advantage, here.theirs("advantages"))
    assert float(advantage.std()) > 0.1


def test_trls_episode_has_one_step_more_whose_reward_is_the_score(case: Callable[[str], Case]) -> None:
    here = case("ragged")
    mask, score = here.rollout.mask, here.theirs("scores")
    logp, ref_logp, value = here.theirs("logprobs"), here.theirs("ref_logprobs"), here.theirs("values")
    length = mask.sum(1)
    widened = torch.arange(LONGEST) < (length + 1)[:, None]  # TRL's ~padding_mask_p1
    assert torch.equal(widened, ~here.theirs("padding_mask_p1"))

    # the same reward, moved from the last token to the slot behind it where there is one
    ours = objective.token_rewards(score, logp, ref_logp, mask, KL)
    rows, last = torch.arange(len(length)), length - 1
    moved = ours.clone()
    moved[rows, last] -= score
    moved[rows, torch.where(length < LONGEST, length, last)] += score
    torch.testing.assert_close(moved, here.theirs("rewards"), **TIGHT)

    # our recursion over their episode gives their advantages, and over ours it gives others before λ = 1
    torch.testing.assert_close(
        objective.advantages(moved, value, widened, 1.0, LAM), here.theirs("advantages"), **TIGHT
    )
    gap = (objective.advantages(ours, value, mask, 1.0, LAM) - here.theirs("advantages"))[mask]
    assert float(gap.abs().max()) > 1e-2
    # with λ = 1 the extra step's value cancels: what a token is worth is the same under both definitions
    whole = [objective.advantages(reward, value, seen, 1.0, 1.0) for reward, seen in ((ours, mask), (moved, widened))]
    here.agree(whole[0], whole[1])


def test_whitening_differs_by_bessels_correction_alone(each: Case) -> None:
    count = int(each.rollout.mask.sum())
    ours = objective.whiten(each.theirs("advantages"), each.rollout.mask)
    each.agree(ours * ((count - 1) / count) ** 0.5, each.theirs("whitened"))


def test_policy_and_value_loss_of_a_minibatch_agree(each: Case) -> None:
    mask, value_mask = each.rollout.mask, ~each.theirs("padding_mask_p1")
    target = each.theirs("advantages") + each.theirs("values")
    seen = []
    for step in range(EPOCHS):
        logp, value = each.theirs(f"{step}/new_logprobs"), each.theirs(f"{step}/vpred")
        policy_loss = objective.clipped_surrogate(logp, each.theirs("logprobs"), each.theirs("whitened"), mask, CLIP)
        value_loss = objective.value_error(value, each.theirs("values"), target, value_mask, CLIP)
        torch.testing.assert_close(policy_loss, each.theirs(f"{step}/pg_loss"), **TIGHT)
        torch.testing.assert_close(value_loss, each.theirs(f"{step}/vf_loss"), **TIGHT)
        seen.append(float(objective.clip_fraction(logp, each.theirs("logprobs"), mask, CLIP)))
    assert seen[0] == 0
    assert seen[-1] > 0.05  # the clip was at work


def test_trls_approx_kl_and_entropy_count_the_padding_too(case: Callable[[str], Case]) -> None:
    for name in ("level", "ragged"):
        here = case(name)
        mask = here.rollout.mask
        k2 = [
            objective.kl_estimators(here.theirs("logprobs"), here.theirs(f"{n}/new_logprobs"), mask)[1]
            for n in range(EPOCHS)
        ]
        approx_kl = torch.stack([found.sum() / mask.numel() for found in k2]).mean()  # our mean is over mask.sum()
        torch.testing.assert_close(approx_kl, here.theirs("logged/policy/approxkl_avg"), **TIGHT)
        everywhere = torch.stack([objective.entropy(here.theirs(f"{n}/logits")).mean() for n in range(EPOCHS)]).mean()
        torch.testing.assert_close(everywhere, here.theirs("logged/policy/entropy_avg"), **TIGHT)


def test_trls_clip_fraction_counts_only_what_the_clip_takes_away(each: Case) -> None:
    mask, gain, old_logp = each.rollout.mask, each.theirs("whitened"), each.theirs("logprobs")
    theirs, ours = [], []
    for step in range(EPOCHS):
        logp = each.theirs(f"{step}/new_logprobs")
        rho = (logp - old_logp).exp()
        bites = ((rho > 1 + CLIP) & (gain > 0)) | ((rho < 1 - CLIP) & (gain < 0))
        theirs.append(bites[mask].float().mean())
        ours.append(objective.clip_fraction(logp, old_logp, mask, CLIP))
    torch.testing.assert_close(torch.stack(theirs).mean(), each.theirs("logged/policy/clipfrac_avg"), **TIGHT)
    assert float(torch.stack(ours).mean()) >= float(torch.stack(theirs).mean())


@pytest.mark.parametrize("name", ["level", "plain"])
def test_policy_and_critic_after_a_whole_update_are_trls(name: str, case: Callable[[str], Case]) -> None:
    here = case(name)
    config = PolicyConfig(
        inner_epochs=EPOCHS, minibatch_replies=64, learning_rate=RATE, critic_learning_rate=RATE, clip=CLIP, value_clip=CLIP,
        adam_beta2=0.999, adam_eps=1e-3, critic_adam_eps=1e-3, max_grad_norm=1e9, approx_kl_stop=0.0, temperature=here.temperature,
    )  # fmt: skip
    policy = AutoModelForCausalLM.from_pretrained(here.policy)
    critic, _ = PreferenceModel.from_policy(here.policy, seed=2)
    critic.head.bias.requires_grad_(False)  # TRL's critic has none
    learner = Learner(policy, critic, config)
    rollout = replace(here.rollout, old_logp=policy_logp(policy, here.rollout, here.temperature))
    old_value = learner.read(rollout)[0]
    target = objective.returns(here.theirs("advantages"), old_value, rollout.mask)
    experience = Experience(
        rollout, here.theirs("whitened"), target, old_value, rollout.old_logp, torch.zeros(len(target))
    )
    done = learner.update(experience, torch.Generator().manual_seed(0), False, "here").means()

    for ours, theirs in (("policy_loss", "loss/policy_avg"), ("value_loss", "loss/value_avg")):
        assert done[ours] == pytest.approx(float(here.theirs(f"logged/{theirs}")), abs=1e-5)
    start = AutoModelForCausalLM.from_pretrained(here.policy).state_dict()
    weights = policy.state_dict()
    assert max(float((weights[key] - here.theirs(f"policy/{key}")).abs().max()) for key in weights) < 1e-5
    assert max(float((start[key] - here.theirs(f"policy/{key}")).abs().max()) for key in weights) > 1e-3
    assert same_weights(critic, here.trl, f"{here.name}/critic/") < 1e-5
    assert same_weights(here.critic, here.trl, f"{here.name}/critic/") > 1e-3
