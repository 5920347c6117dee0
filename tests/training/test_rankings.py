"""Rankings, marked replies and public answers: read, written, refused with the reason, and turned into what is learnt."""

import json

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from training.data.batches import Ranked, learnt_of, tokenised, weighted
from training.data.feedback import parse_feedback, pretraining_pairs
from training.lines.pmp import Answers, binarised, pairs_of_answers, stack_exchange_score
from training.lines.rankings import Marked, Ranking, to_line
from training.lines.records import BadRecord, Comparison
from training.lines.records import to_line as comparison_line

HI = ({"role": "user", "content": "hi"},)


def ranking(*ranks: int, **beside: object) -> Ranking:
    return Ranking(HI, tuple("abcdefghi"[: len(ranks)]), ranks, **beside)


@pytest.mark.parametrize(
    "record",
    [
        ranking(2, 1, 2, mode="helpful", conversation="c", person="p", round=3, extra={"source": "me"}),
        Marked(HI, "a", good=False, mode="red_team", extra={"why": ["x"]}),
        Marked(HI, "", good=True),
    ],
)
def test_what_is_written_reads_the_same(record: Ranking | Marked):
    assert parse_feedback(to_line(record), 1) == record


def test_each_shape_is_known_by_its_keys():
    assert isinstance(parse_feedback('{"prompt": "hi", "chosen": "a", "rejected": "b", "good": true}', 1), Comparison)
    conversational = {"prompt": [*HI], "replies": [[{"role": "assistant", "content": "a"}], "b"], "ranks": [1, 2]}
    assert parse_feedback(json.dumps(conversational), 1) == ranking(1, 2)
    transcript = {"prompt": "\n\nHuman: hi\n\nAssistant:", "replies": ["a", "b"], "ranks": [1, 2]}
    assert parse_feedback(json.dumps(transcript), 1) == ranking(1, 2)
    answers = parse_feedback(
        '{"prompt": "hi", "answers": [{"text": "a", "score": 0.5}, {"text": "b", "upvotes": 3}]}', 1
    )
    assert answers == Answers(HI, ("a", "b"), (0.5, 2.0))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"replies": ["a", "b"], "ranks": [1]}, "there are 2 replies and 1 ranks"),
        ({"replies": ["a"], "ranks": [1]}, "a ranking holds 2 to 9 replies, not 1"),
        ({"replies": list("abcdefghij"), "ranks": [1] * 10}, "a ranking holds 2 to 9 replies, not 10"),
        ({"replies": ["a", "b"], "ranks": [1, 0]}, "'ranks' must be a list of whole numbers from 1"),
        ({"replies": ["a", "b"], "ranks": [1, True]}, "'ranks' must be a list of whole numbers from 1"),
        ({"replies": ["a", "a"], "ranks": [1, 2]}, "reply 2 is the same as one before it"),
        ({"replies": ["a", 3], "ranks": [1, 2]}, "'replies' must be a text or a list of one message"),
        ({"ranks": [1, 2]}, "'replies' must be a list of replies"),
        ({"prompt": "", "replies": ["a", "b"], "ranks": [1, 2]}, "the prompt is empty"),
        ({"reply": "a", "good": 1}, "'good' must be true or false, not 1"),
        ({"good": True}, "has no 'reply'"),
        ({"answers": [{"text": "a"}]}, "the 'upvotes' of answer 1 must be a whole number, not None"),
        ({"answers": [{"text": "a", "upvotes": 1, "accepted": "yes"}]}, "'accepted' of answer 1 must be true or false"),
        ({"answers": [{"upvotes": 1}]}, "answer 1 has no 'text'"),
        ({"answers": [{"text": "a", "score": "1"}]}, "the 'score' of answer 1 must be a number"),
        ({"chosen": "a", "rejected": "b", "margin": "much"}, "'margin' must be a number, not 'much'"),
        ({"chosen": "a", "rejected": "b", "margin": True}, "'margin' must be a number, not True"),
    ],
)
def test_bad_lines_say_why(line: dict, reason: str):
    with pytest.raises(BadRecord, match=reason) as raised:
        parse_feedback(json.dumps({"prompt": "hi"} | line), 7)
    assert raised.value.number == 7


def test_a_margin_is_read_and_written_again():
    record = parse_feedback('{"prompt": "hi", "chosen": "a", "rejected": "b", "margin": 0.5, "strength": 3}', 1)
    assert record.margin == 0.5
    assert parse_feedback(comparison_line(record), 1).margin == 0.5


# -- public answers ---------------------------------------------------------------------------------------------------
def test_scores_of_public_answers_by_hand():
    upvotes = [0, 1, 2, 3, 5, 6, 10, 100, -1, -40]  # log2 of one more: 0, 1, 1.58, 2, 2.58, 2.81, 3.46, 6.66
    assert [stack_exchange_score(n, accepted=False) for n in upvotes] == [0, 1, 2, 2, 3, 3, 3, 7, -1, -1]
    assert stack_exchange_score(3, accepted=True) == 3 and stack_exchange_score(0, accepted=True) == 1
    assert stack_exchange_score(-5, accepted=True) == -1


def test_each_answer_stands_in_one_pair_at_most():
    answers = Answers(HI, ("a", "b", "c", "d", "e"), (1.0, 7.0, 3.0, -1.0, 3.0), conversation="q")
    pairs = pairs_of_answers(answers)  # b > c = e > a > d: the best with the worst, then c with a; e is left
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("b", "d"), ("c", "a")]
    assert {pair.conversation for pair in pairs} == {"q"}
    assert pairs_of_answers(Answers(HI, ("a", "b"), (2.0, 2.0))) == []
    assert [(p.chosen, p.rejected) for p in pairs_of_answers(ranking(3, 1, 2))] == [("b", "a")]


def test_a_binarised_pair_asks_whether_the_tag_agrees():
    made = binarised([Comparison(HI, "A", "B", strength=3, mode="helpful")])
    assert [(pair.chosen, pair.rejected) for pair in made] == [("GOOD:A", "BAD:A"), ("BAD:B", "GOOD:B")]
    assert {(pair.strength, pair.mode) for pair in made} == {(3, "helpful")}


def test_pretraining_pairs_keep_what_gives_none_to_be_counted(tokenizer: PreTrainedTokenizerFast):
    tied, alone = Answers(HI, ("a", "b"), (1.0, 1.0)), Answers(HI, ("a",), (4.0,))
    same = Comparison(HI, "x", "x")
    found = pretraining_pairs([tied, alone, same, ranking(1, 2), Comparison(HI, "x", "y")], tags=True)
    assert [type(record) for record in found] == [Answers, Answers, *[Comparison] * 5]
    ranked, dropped, _ = tokenised(found, tokenizer, max_tokens=64)
    assert len(ranked) == 4 and dropped == {"all_tied": 1, "too_few_answers": 1, "same_tokens": 1}
    plain = pretraining_pairs([ranking(1, 2), Comparison(HI, "x", "y")], tags=False)
    assert [(pair.chosen, pair.rejected) for pair in plain] == [("a", "b"), ("x", "y")]


# -- tokens and elements ----------------------------------------------------------------------------------------------
def test_pairs_of_one_question_or_conversation_are_of_one_group(tokenizer: PreTrainedTokenizerFast):
    question = {"prompt": "a", "answers": [{"text": word, "score": n} for n, word in enumerate("uvwx")]}
    lines = [
        {"prompt": "b", "chosen": "x", "rejected": "y", "conversation": 7},
        {"prompt": "c", "chosen": "x", "rejected": "y", "conversation": 7},
        {"prompt": "b", "chosen": "x", "rejected": "y"},
    ]
    records = [parse_feedback(json.dumps(line), 1) for line in (question, *lines)]
    groups = [item.group for item in tokenised(pretraining_pairs(records, tags=True), tokenizer, max_tokens=99).ranked]
    assert len(groups) == 10 and groups[0] is not None
    assert [groups.index(group) for group in groups] == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_replies_stand_best_first_and_ties_make_no_pair(tokenizer: PreTrainedTokenizerFast):
    found = tokenised([ranking(3, 1, 3, 2), ranking(1, 1)], tokenizer, max_tokens=64)
    assert found.dropped == {"all_tied": 1}
    (only,) = found.ranked
    assert tokenizer.batch_decode([reply[:-1] for reply in only.replies]) == ["b", "d", "a", "c"]
    assert {reply[-1] for reply in only.replies} == {tokenizer.eos_token_id}
    assert only.ranks == (1, 2, 3, 3)
    assert only.pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]


def test_margins_come_from_the_record_before_its_strength(tokenizer: PreTrainedTokenizerFast):
    given = [
        Comparison(HI, "a", "b", strength=4),
        Comparison(HI, "a", "b", strength=1),
        Comparison(HI, "a", "b", strength=4, extra={"margin": -0.25}),
        Comparison(HI, "a", "b"),
    ]
    of = lambda **how: [ranked.margin for ranked in tokenised(given, tokenizer, max_tokens=64, **how).ranked]
    assert of(strength_margins=(0.0, 0.5, 1.0, 3.0)) == [3.0, 0.0, -0.25, 0.0]
    assert of(weakest_strength=1) == [0.0, -0.25, 0.0]  # as filter: strength asks for nothing, the record still does


ITEMS = [Ranked([1], ([2], [3], [4]), (1, 2, 2), mode="helpful"), Ranked([5], ([6],), (1,), good=False)]


def test_what_each_objective_learns():
    assert learnt_of(ITEMS, "ranked", "grouped") == ([ITEMS[0]], {"no_pair": 1}, 1)
    pooled = learnt_of(ITEMS, "ranked", "pooled").elements
    assert [(e.replies, e.ranks) for e in pooled] == [(([2], [3]), (1, 2)), (([2], [4]), (1, 2))]
    binary = learnt_of(ITEMS, "binary", "grouped")
    assert [(e.prompt, e.replies, e.good) for e in binary.elements] == [
        ([1], ([2],), True),
        ([1], ([4],), False),
        ([5], ([6],), False),
    ]
    assert binary.prompts == 2
    imitation = learnt_of(ITEMS, "imitation", "grouped")
    assert [(e.replies, e.good) for e in imitation.elements] == [(([2],), True)] and imitation.dropped == {"bad": 1}


def test_weights_of_modes_have_the_mean_one():
    elements = [Ranked([1], ([2], [3]), (1, 2), mode=mode) for mode in ("helpful", "red_team", None)]
    assert [e.weight for e in weighted(elements, {"red_team": 2.0})] == pytest.approx([0.75, 1.5, 0.75])
    assert [e.weight for e in weighted(elements, {})] == [1.0, 1.0, 1.0]


def test_only_the_reply_ends_the_conversation(tokenizer: PreTrainedTokenizerFast):
    """An end token written out in a text does not end it; the reply's own does, also after an empty reply."""
    found = tokenised([Ranking(HI, ("<|end|>", "", "no"), (1, 2, 3))], tokenizer, max_tokens=64).ranked[0]
    assert [reply.count(tokenizer.eos_token_id) for reply in found.replies] == [1, 1, 1]
    assert [reply[-1] for reply in found.replies] == [tokenizer.eos_token_id] * 3
    assert torch.tensor(found.replies[1]).tolist() == [tokenizer.eos_token_id]
