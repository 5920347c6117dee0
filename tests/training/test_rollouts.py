"""Rollouts: replies joined to prompts, batches without much padding, scores on the right column."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, render, render_reply
from training.sampling.engine import Generated
from training.sampling.rollouts import (
    PART_EVENNESS,
    Occasion,
    even_parts,
    policy_logp,
    preference_scores,
    reply_seeds,
    rollout_of,
    values_and_states,
)
from training.sampling.sampling import log_probs, reply_states

END = 7


def made(replies: list[list[int]], prompts: list[list[int]], end: int = END):
    width = max(map(len, replies))
    tokens = torch.tensor([reply + [0] * (width - len(reply)) for reply in replies])
    mask = torch.arange(width) < torch.tensor([[len(reply)] for reply in replies])
    ended = torch.tensor([reply[-1] == end for reply in replies])
    return rollout_of(prompts, Generated(tokens, -torch.ones(tokens.shape) * mask, mask, ended))


def test_prompts_and_replies_are_joined_without_a_gap() -> None:
    rollout = made([[5, END], [6, 6, 6]], [[1, 2, 3], [4]])
    assert rollout.tokens.tolist() == [[1, 2, 3, 5, END], [4, 6, 6, 6, 0]]
    assert rollout.length.tolist() == [5, 4]
    assert rollout.ended.tolist() == [True, False]
    one = rollout.rows(torch.tensor([0]))
    assert one.tokens.tolist() == [[1, 2, 3, 5, END]]
    assert one.mask.tolist() == [[True, True]]


def test_a_reply_without_a_token_is_refused() -> None:
    empty = Generated(torch.zeros(1, 1).long(), torch.zeros(1, 1), torch.zeros(1, 1).bool(), torch.zeros(1).bool())
    with pytest.raises(ValueError, match="without a token"):
        rollout_of([[1]], empty)


def test_parts_hold_every_reply_once_and_little_padding() -> None:
    replies = [[6] * n for n in (1, 40, 3, 39, 20, 2, 38, 19)]
    rollout = made(replies, [[1, 2]] * 8)
    parts = even_parts(rollout)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(8))
    for part in parts:
        lengths = rollout.length[part]
        assert lengths.min() >= PART_EVENNESS * lengths.max()


def test_seeds_differ_between_replies_iterations_and_runs() -> None:
    occasions = (0, 1, *Occasion)
    drawn = [seed for run in (0, 1) for occasion in occasions for seed in reply_seeds(run, occasion, 50)]
    assert len(set(drawn)) == 100 * len(occasions)


def test_scores_by_parts_equal_a_conversation_read_alone(tiny_policy: Path) -> None:
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=3)
    end = tokenizer.eos_token_id
    prompts = [render(tokenizer, [{"role": "user", "content": text}]) for text in ("Hi", "A longer question?", "Why")]
    replies = [render_reply(tokenizer, text) for text in ("yes", "no, not at all", "so")]
    replies[2] = replies[2][:-1]  # cut: without its end token
    found = preference_scores(pm, made(replies, prompts, end), end)
    for row in range(3):
        whole = prompts[row] + replies[row] + ([end] if row == 2 else [])
        with torch.no_grad():
            alone = pm.scores(torch.tensor([whole]), torch.tensor([len(whole) - 1]))
        assert found[row].item() == pytest.approx(alone.item(), abs=1e-5)


def test_values_stand_at_the_state_before_each_token(tiny_policy: Path) -> None:
    pm, _ = PreferenceModel.from_policy(tiny_policy, seed=3)
    rollout = made([[5, 6, END], [6]], [[1, 2], [3, 4, 5, 6]])
    with torch.no_grad():
        found, whole = values_and_states(pm, rollout)[0], pm.values(rollout.tokens)
    assert torch.allclose(found[0], whole[0, 1:4])
    assert torch.allclose(found[1], torch.stack([whole[1, 3], torch.tensor(0.0), torch.tensor(0.0)]))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_fused_passes_equal_plain_ones(
    family: str, built_policies: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, _ = load_policy(built_policies(family))
    pm, tokenizer = PreferenceModel.from_policy(built_policies(family), seed=3)
    rollout = made([[5, 6, END] * 8, [6], [9, 8]], [[1, 2], [3, 4, 5, 6], [7]])
    found = []
    for switch in ("1", "0"):
        monkeypatch.setenv("WHETSTONE_FUSED", switch)
        states = reply_states(policy, rollout.tokens, rollout.prompt_length, rollout.mask, 0.7)
        (
            log_probs(states, rollout.mask).sum() + states.entropy.sum() + values_and_states(pm, rollout)[0].sum()
        ).backward()
        found.append([
            policy_logp(policy, rollout, 0.7), preference_scores(pm, rollout, tokenizer.eos_token_id),
            values_and_states(pm, rollout)[0].detach(), states.entropy.detach(), states.logits.detach(), states.hidden.detach(),
            *(weight.grad for module in (policy, pm) for weight in module.parameters()),
        ])  # fmt: skip
        policy.zero_grad()
        pm.zero_grad()
    for fused, plain in zip(*found, strict=True):
        assert (fused - plain).abs().max() <= 1e-5 * (1 + plain.abs().max())


def test_log_probs_by_parts_equal_one_pass(tiny_policy: Path) -> None:
    model, _ = load_policy(tiny_policy)
    rollout = made([[5, 6, END] * 8, [6], [9, 8]], [[1, 2], [3, 4, 5, 6], [7]])
    by_parts = policy_logp(model, rollout, 1.0)
    alone = [policy_logp(model, rollout.rows(torch.tensor([row])), 1.0)[0] for row in range(3)]
    for row in range(3):
        assert torch.allclose(by_parts[row, : len(alone[row])], alone[row], atol=1e-5)
    assert by_parts[~rollout.mask].abs().max() == 0
