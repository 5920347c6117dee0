"""One update's loss, logged numbers and gradients, on literal numbers and against plainer ways to the same."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training import objective
from training.config import PreferenceConfig
from training.data.batches import Ranked, learnt_of, weighted
from training.models.models import PreferenceModel
from training.reading.reading import Read, Reader, Words
from training.supervised.lesson import Lesson

LN3 = math.log(3)  # σ(ln 3) = 3/4, so a lead of ln 3 costs ln 4/3 and one of -ln 3 costs ln 4
END = 257


class Known:
    """A reader of scores and word losses that are given: replies are named by their first token."""

    device = torch.device("cpu")

    def __init__(self, scores: dict[int, float], words: float = 0.0) -> None:
        self.scores = {name: torch.tensor(score, requires_grad=True) for name, score in scores.items()}
        self.each_word = words

    def parts(self, elements: Sequence[Ranked]) -> list[list[Ranked]]:
        return [list(elements)] if elements else []

    def read(self, elements: Sequence[Ranked], *, words: Words = "none") -> Read:
        scores = torch.stack([self.scores[reply[0]] for element in elements for reply in element.replies])
        said: Tensor | None = None
        if words == "best":
            said = torch.tensor([self.each_word * len(element.replies[0]) for element in elements], requires_grad=True)
        return Read(scores, said)


def ranked(replies: Sequence[int], ranks: Sequence[int] | None = None, **beside: object) -> Ranked:
    ranks = tuple(ranks or range(1, len(replies) + 1))
    return Ranked([1], tuple([reply, END] for reply in replies), ranks, **beside)


def learnt(reader: Known, elements: Sequence[Ranked], mine: Sequence[int] | None = None, **settings: object) -> dict:
    everything = list(range(len(elements)))
    lesson = Lesson(reader, elements, PreferenceConfig(**settings))
    return lesson(everything, everything if mine is None else list(mine))


def test_a_ranking_and_a_pair_weigh_the_same():
    reader = Known({1: LN3, 2: 0.0, 3: 0.0, 4: 0.0, 5: LN3})
    # the ranking: ln 4/3 twice and ln 2; right, right and even. The pair: the worse one leads by ln 3
    found = learnt(reader, [ranked([1, 2, 3]), ranked([4, 5])])
    assert found["loss"] == pytest.approx(((2 * math.log(4 / 3) + math.log(2)) / 3 + math.log(4)) / 2)
    assert found["accuracy"] == pytest.approx((2.5 / 3 + 0) / 2)
    assert found["margin"] == pytest.approx((2 * LN3 / 3 - LN3) / 2)
    # of the loss of reply 1: two of three pairs, half of the batch, each -(1 - 3/4)
    assert reader.scores[1].grad.item() == pytest.approx(-2 / 3 / 2 / 4)
    assert reader.scores[5].grad.item() == pytest.approx(3 / 4 / 2)


def test_a_margin_is_taken_off_the_lead_and_not_off_what_is_logged():
    found = learnt(Known({1: 2 * LN3, 2: 0.0}), [ranked([1, 2], margin=LN3)])
    assert found["loss"] == pytest.approx(math.log(4 / 3)) and found["margin"] == pytest.approx(2 * LN3)


def test_weights_change_the_mix():
    elements = [ranked([1, 2], mode="helpful"), ranked([3, 4], mode="red_team")]
    scores = {1: LN3, 2: 0.0, 3: 0.0, 4: LN3}
    found = learnt(Known(scores), weighted(elements, {"red_team": 3.0}))
    assert found["loss"] == pytest.approx((0.5 * math.log(4 / 3) + 1.5 * math.log(4)) / 2)
    assert found["accuracy"] == 0.5  # what is logged of pairs is not weighted


def test_binary_discrimination_by_hand():
    elements = [ranked([1], [1], good=True), ranked([2], [1], good=False), ranked([3], [1], good=False)]
    found = learnt(Known({1: LN3, 2: -LN3, 3: LN3}), elements, objective="binary")
    assert found["loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["margin"] == pytest.approx(LN3 / 3)


def test_imitation_is_the_loss_of_a_word_and_knows_no_pairs():
    elements = [ranked([1], [1], good=True), Ranked([1], ([2, 2, 2, END],), (1,), good=True)]
    found = learnt(Known({1: 0.0, 2: 0.0}, words=0.5), elements, objective="imitation")
    assert found == {"loss": pytest.approx(0.5)}


def test_the_language_term_is_of_good_words_alone():
    elements = [ranked([1], [1], good=True), ranked([2], [1], good=False)]
    found = learnt(Known({1: 0.0, 2: 0.0}, words=0.5), elements, objective="binary", lm_weight=1.0)
    assert found["words_loss"] == pytest.approx(0.5) and found["loss"] == pytest.approx(math.log(2))
    bad = learnt(Known({2: 0.0}, words=0.5), elements[1:], objective="binary", lm_weight=1.0)
    assert bad["words_loss"] == 0.0


def test_shares_of_several_processes_add_up():
    scores = {n: 0.3 * n * (-1) ** n for n in range(1, 8)}
    elements = [ranked([1, 2, 3]), ranked([4, 5]), ranked([6, 7], margin=0.5)]
    whole, parts = Known(scores), Known(scores)
    together = learnt(whole, elements)
    shares = [learnt(parts, elements, mine) for mine in ([0, 2], [1])]
    for name, value in together.items():
        assert sum(share[name] for share in shares) == pytest.approx(value, abs=1e-6), name
    for name in scores:
        assert torch.allclose(parts.scores[name].grad, whole.scores[name].grad)


# -- with a real model ------------------------------------------------------------------------------------------------
RANKING = Ranked([5, 6, 7], ([1, 2, END], [3, END], [8, 9, 10, END], [4, 4, END]), (1, 2, 2, 4))


@pytest.fixture
def reader(tiny_policy: Path) -> Reader:
    model, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=2, words=True)
    return Reader(model, pad=tokenizer.pad_token_id)


def gradient(reader: Reader, elements: Sequence[Ranked], **settings: object) -> Tensor:
    reader.model.zero_grad()
    Lesson(reader, elements, PreferenceConfig(**settings))(list(range(len(elements))), list(range(len(elements))))
    return torch.cat([p.grad.flatten() for p in reader.model.parameters() if p.grad is not None])


def test_the_language_term_weighs_as_much_as_it_is_told_to(reader: Reader):
    """The gradient is a line in λ: of scores alone, plus λ times that of the words."""
    plain, whole, half = (gradient(reader, [RANKING], lm_weight=weight) for weight in (1e-9, 1.0, 0.5))
    words = whole - plain
    assert float(words.abs().max()) > 0.01 * float(plain.abs().max())
    assert torch.allclose(half - plain, 0.5 * words, atol=1e-4 * float(words.abs().max()))


def test_grouped_and_pooled_learn_the_same_from_one_prompt(reader: Reader):
    grouped = gradient(reader, learnt_of([RANKING], "ranked", "grouped").elements)
    pooled = gradient(reader, learnt_of([RANKING], "ranked", "pooled").elements)
    assert len(learnt_of([RANKING], "ranked", "pooled").elements) == 5
    assert torch.allclose(grouped, pooled, atol=1e-4 * float(grouped.abs().max()))


def test_the_loss_of_a_ranking_is_the_mean_of_its_pairs(reader: Reader):
    pairs = learnt_of([RANKING], "ranked", "pooled").elements
    with torch.no_grad():
        lesson = Lesson(reader, [RANKING], PreferenceConfig())
        found = lesson.loss(reader.read([RANKING]).scores, [RANKING])
        each = [objective.preference_loss(*reader.read([pair]).scores[:, None]) for pair in pairs]
    assert found.item() == pytest.approx(torch.stack(each).mean().item(), abs=1e-5)


def test_a_batch_cut_into_parts_gives_the_gradient_of_the_whole(reader: Reader):
    elements = [RANKING, Ranked([9] * 40, ([1, END], [2, END]), (1, 2)), Ranked([1], ([2, END], [3, 3, END]), (1, 2))]
    whole = gradient(reader, elements, lm_weight=0.5)
    reader.budget = 20
    assert torch.allclose(gradient(reader, elements, lm_weight=0.5), whole, atol=1e-4 * float(whole.abs().max()))


@torch.no_grad()
def test_each_reply_is_scored_on_its_own_end_whatever_it_shares_with_another(reader: Reader):
    """Equal up to the end of the shorter one: the score is read after each, not where they part."""
    short, long = [1, 2, 3, END], [1, 2, 3, 4, 5, END]
    together = reader.read([Ranked([5, 6], (short, long), (1, 2))]).scores
    alone = [reader.read([Ranked([5, 6], (reply,), (1,))]).scores.item() for reply in (short, long)]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3
    # by hand: the state of the end token, not of the last word and not of a pad
    hidden = reader.model.hidden(torch.tensor([[5, 6, *short]]))
    assert reader.model.read(hidden[0, -1]).item() == pytest.approx(alone[0], abs=1e-5)
    assert abs(reader.model.read(hidden[0, -2]).item() - alone[0]) > 1e-3


@torch.no_grad()
def test_log_probabilities_are_the_means_of_the_replies_own_words(any_policy: Path):
    from training.models.snapshots import load_policy

    model, tokenizer = PreferenceModel.from_policy(any_policy, seed=2, words=True)
    reader, causal = Reader(model, pad=tokenizer.pad_token_id), load_policy(any_policy)[0]
    found = reader.log_probs_of([Ranked([1], ([2, END],), (1,)), RANKING])
    assert [len(each) for each in found] == [1, 4]
    for reply, mean in zip(RANKING.replies, found[1], strict=True):
        logp = causal(torch.tensor([RANKING.prompt + reply])).logits[0, 2:-1].log_softmax(-1)
        assert mean == pytest.approx(logp.gather(1, torch.tensor(reply)[:, None]).mean().item(), abs=1e-5)
