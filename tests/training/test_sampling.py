"""Drawing tokens by inverse CDF, and the one place where a token and the state before it are lined up."""

import math
from types import SimpleNamespace

import pytest
import torch
import transformers

from training.sampling.sampling import choose, log_probs, reply_mask, reply_states, state_columns, uniforms


def test_uniforms_depend_on_the_seed_alone_and_lie_below_one() -> None:
    found = uniforms(5, 1000)
    assert torch.equal(found[:10], uniforms(5, 10))
    assert not torch.equal(found, uniforms(6, 1000))
    assert found.min() >= 0
    assert found.max() < 1
    assert found.mean().item() == pytest.approx(0.5, abs=0.05)


def test_inverse_cdf_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]])).expand(4, 3)
    token, logp = choose(logits, torch.tensor([0.0, 0.49, 0.5, 0.99]))
    assert token.tolist() == [0, 0, 1, 2]
    assert logp.tolist() == pytest.approx([math.log(p) for p in (0.5, 0.5, 0.25, 0.25)])


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(2, 3)
    assert choose(logits, torch.tensor([0.0, 1 - 2**-24]))[0].tolist() == [1, 1]


def test_frequencies_follow_the_distribution() -> None:
    p = torch.tensor([0.6, 0.3, 0.1])
    token, _ = choose(p.log().expand(20_000, 3), uniforms(1, 20_000))
    assert (torch.bincount(token) / 20_000).tolist() == pytest.approx(p.tolist(), abs=0.015)


def test_temperature_zero_is_greedy_and_keeps_the_log_prob_at_one() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]]))
    token, logp = choose(logits, torch.tensor([0.99, 0.99]), temperature=torch.tensor([0.0, 1.0]))
    assert token.tolist() == [1, 2]
    assert logp.tolist() == pytest.approx([math.log(0.5), math.log(0.3)])


def test_half_temperature_squares_the_odds() -> None:
    _, logp = choose(torch.log(torch.tensor([[0.75, 0.25]])), torch.tensor([0.95]), temperature=torch.tensor([0.5]))
    assert logp.item() == pytest.approx(math.log(0.1))  # 1/(9+1)


def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]])).expand(500, 4)
    token, logp = choose(logits, uniforms(2, 500), top_p=torch.full((500,), 0.6))
    assert set(token.tolist()) == {1, 3}
    # The log-probability is that of the whole distribution.
    assert logp[token == 1][0].item() == pytest.approx(math.log(0.4))
    token, _ = choose(logits, uniforms(2, 500), top_p=torch.full((500,), 0.05))
    assert set(token.tolist()) == {1}  # the most likely one always stays


def test_mask_and_states_line_up() -> None:
    mask = reply_mask(torch.tensor([2, 1]))
    assert mask.tolist() == [[True, True], [True, False]]
    row, column = state_columns(torch.tensor([3, 5]), mask)
    assert list(zip(row.tolist(), column.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 4)]


class Successor(torch.nn.Module):
    """A language model that is certain of one thing: after word w comes w+1."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(10, 10, bias=False)
        self.head.weight.data = torch.eye(10).roll(1, 0) * 50

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        return SimpleNamespace(logits=self.head(torch.nn.functional.one_hot(input_ids, 10).float()))


def test_a_reply_is_judged_from_the_state_before_each_token() -> None:
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])  # prompts [3, 4] and [7]
    mask = reply_mask(torch.tensor([2, 1]))
    states = reply_states(Successor(), tokens, torch.tensor([2, 1]), mask)
    assert states.tokens.tolist() == [5, 6, 8]
    found = log_probs(states, mask)
    assert found.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    wrong = log_probs(reply_states(Successor(), tokens + (tokens == 6), torch.tensor([2, 1]), mask), mask)
    assert wrong[0].tolist() == pytest.approx([0.0, -50.0])


def test_padding_and_order_are_inert_and_soft_capped_logits_stay_capped() -> None:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.5,
        sliding_window=4,
    )
    model = transformers.Gemma2ForCausalLM(config).eval()
    tokens = torch.randint(3, 31, (2, 12))
    prompt, length = torch.tensor([4, 2]), torch.tensor([8, 3])
    mask = reply_mask(length)
    with torch.no_grad():
        both = log_probs(reply_states(model, tokens, prompt, mask), mask)
        alone = log_probs(reply_states(model, tokens[1:, :5], prompt[1:], mask[1:, :3]), mask[1:, :3])
        assert reply_states(model, tokens, prompt, mask).logits.abs().max() <= 0.5
        whole = model(tokens[:1]).logits.log_softmax(-1)
    assert torch.allclose(both[1, :3], alone[0], atol=1e-6)
    assert torch.allclose(both[0], whole[0, 3:11].gather(1, tokens[0, 4:12, None])[:, 0], atol=1e-6)
    assert both[1, 3:].tolist() == [0.0] * 5
