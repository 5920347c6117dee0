"""Comparisons become pairs of tokens without silent loss, and pairs become batches without waste."""

from transformers import PreTrainedTokenizerFast

from training.data.batches import Ranked, by_length, order, tokenised
from training.lines.records import Comparison


def comparison(chosen: str, rejected: str, strength: int | None = None) -> Comparison:
    return Comparison(({"role": "user", "content": "hi"},), chosen, rejected, strength=strength)


def test_what_is_left_out_is_counted_by_reason(tokenizer: PreTrainedTokenizerFast):
    # the prompt is <bos><user>hi<end><assistant>: 6 tokens, so a reply of n letters makes a row of 7 + n
    given = [
        comparison("yes", "no"),
        comparison("yes", "no", 1),
        comparison("yes", "no", 2),
        comparison("a" * 13, "b"),
        comparison("a" * 14, "b"),
        comparison("b", "a" * 14),
        comparison("<|end|>", "< |end|>"),
    ]
    pairs, dropped, shortened = tokenised(given, tokenizer, max_tokens=20, weakest_strength=1)
    assert [len(pair.prompt) + len(pair.replies[0]) for pair in pairs] == [10, 10, 20]
    assert dropped == {"weakest": 1, "over_long": 2, "same_tokens": 1}
    assert dropped.total() + len(pairs) == len(given)
    assert [pair.strength for pair in pairs] == [None, 2, None]
    assert shortened == 0


def test_a_long_conversation_loses_its_oldest_turns_whole(tokenizer: PreTrainedTokenizerFast):
    short = comparison("yes", "no")
    before = ({"role": "user", "content": "long ago"}, {"role": "assistant", "content": "so it was"})
    long = Comparison(before + short.prompt, "yes", "no")
    found = tokenised([long, short], tokenizer, max_tokens=20, weakest_strength=1)
    assert found.shortened == 1 and not found.dropped
    assert found.ranked[0].prompt == found.ranked[1].prompt
    assert [ranked.turn for ranked in found.ranked] == [2, 1]  # of the conversation, not of what was left of it
    assert tokenised([long], tokenizer, max_tokens=256, weakest_strength=1).shortened == 0


def test_every_pair_is_in_one_batch_of_an_epoch():
    for count, batch, sizes in ((32, 16, {16}), (35, 16, {16, 19}), (40, 16, {16, 8}), (3, 16, {3})):
        batches = order(count, batch, seed=0, epoch=0)
        assert sorted(n for b in batches for n in b) == list(range(count))
        assert {len(b) for b in batches} == sizes
    assert order(40, 8, 0, 0) == order(40, 8, 0, 0)
    assert order(40, 8, 0, 0) != order(40, 8, 1, 0)
    assert order(40, 8, 0, 0) != order(40, 8, 0, 1)


def sized(tokens: int) -> Ranked:
    return Ranked([1] * (tokens - 2), ([2], [3]), (1, 2))


def test_parts_keep_to_the_budget_and_pad_little():
    pairs = [sized(n) for n in (90, 10, 50, 12, 11, 49, 300)]
    parts = by_length(pairs, 100)
    assert [[pair.tokens for pair in part] for part in parts] == [[10, 11, 12], [49, 50], [90], [300]]
