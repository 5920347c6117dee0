"""Sequences end to end: where everything stands, by hand."""

import pytest
import torch

from training.trunk.packing import Group, packed, packed_rows


def test_a_prompt_with_two_replies_by_hand() -> None:
    found = packed([([1, 2, 3], [[4, 5], [6]]), ([7], [[8, 9]])])
    assert found.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2]
    assert found.groups == (Group(0, 3, (2, 1)), Group(6, 1, (2,)))
    assert found.reply_ends().tolist() == [4, 5, 8]
    assert found.reply_columns().tolist() == [3, 4, 5, 7, 8]
    assert found.state_columns().tolist() == [2, 3, 2, 6, 7]


def test_the_state_before_a_token_stands_at_the_position_before_its_own() -> None:
    found = packed([([5] * p, [[6] * r for r in replies]) for p, replies in ((4, (3, 1, 5)), (1, (2,)), (9, (1, 1)))])
    own, before = found.positions[found.reply_columns()], found.positions[found.state_columns()]
    assert torch.equal(own - 1, before)


def test_rows_of_a_rollout_lose_their_padding() -> None:
    rows = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    found = packed_rows(rows, torch.tensor([2, 1]), torch.tensor([3, 4]))
    expected = packed([([1, 2], [[3]]), ([4], [[5, 6, 7]])])
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.positions, expected.positions)
    assert found.groups == expected.groups


def test_sequences_of_their_own_have_empty_prompts_and_no_state_before_them() -> None:
    found = packed([([], [[1, 2]]), ([], [[3]])])
    assert found.positions.tolist() == [0, 1, 0]
    assert found.reply_ends().tolist() == [1, 2]
    with pytest.raises(ValueError, match="no state before"):
        found.state_columns()


def test_a_reply_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="without a token"):
        packed([([1], [[2], []])])
