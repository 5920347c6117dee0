"""The loss of context distillation, on hand-worked numbers and properties."""

import math

import pytest
import torch

from training.objective import binned, distillation_loss, likeliest


def test_bins_are_the_likeliest_words_and_the_mass_of_the_rest():
    logits = torch.tensor([[1.0, 2.0, 4.0, 8.0]]).log()  # of 15
    words, logp = likeliest(logits, 2)
    assert words.tolist() == [[3, 2]]
    assert logp.exp().tolist()[0] == pytest.approx([8 / 15, 4 / 15, 3 / 15])
    assert binned(logits, torch.tensor([[0, 3]])).exp().tolist()[0] == pytest.approx([1 / 15, 8 / 15, 6 / 15])


def test_a_small_rest_keeps_its_digits():
    logits = torch.tensor([[0.0, -40.0, -40.0]])  # 1 - p would be 0 in float32
    rest = binned(logits, torch.tensor([[0]]))[0, 1].item()
    assert rest == pytest.approx(-40 + math.log(2), abs=1e-4)


def test_the_loss_on_hand_worked_numbers():
    teacher = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]).log()
    student = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]).log()
    # ½ log 2 - ¼ log 2 + 0, and log 2
    assert distillation_loss(teacher, student).item() == pytest.approx((0.25 + 1.0) * math.log(2) / 2)
    assert distillation_loss(teacher, student, 10).item() == pytest.approx((0.25 + 1.0) * math.log(2) / 10)


def test_a_student_that_is_the_teacher_loses_nothing_and_any_other_something():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 30, generator=draw)
    words, logp = likeliest(logits, 5)
    assert distillation_loss(logp, binned(logits, words)).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logp, binned(logits + 7.0, words)).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logp, binned(torch.randn(20, 30, generator=draw), words)).item() > 0.1


def test_with_a_bin_for_every_word_it_is_the_whole_divergence_and_never_above_it():
    draw = torch.Generator().manual_seed(1)
    teacher, student = torch.randn(8, 12, generator=draw), torch.randn(8, 12, generator=draw)
    p, q = teacher.double().log_softmax(-1), student.double().log_softmax(-1)
    whole = (p.exp() * (p - q)).sum(-1).mean().item()
    found = []
    for k in range(1, 12):
        words, logp = likeliest(teacher, k)
        found.append(distillation_loss(logp, binned(student, words)).item())
    assert found[-1] == pytest.approx(whole, abs=1e-6)  # k = V-1: the last bin is one word
    assert found == sorted(found) and found[0] < whole - 0.05  # merging bins can only hide a difference


def test_the_gradient_is_that_of_finite_differences():
    draw = torch.Generator().manual_seed(2)
    teacher = torch.randn(3, 9, generator=draw, dtype=torch.float64)
    student = torch.randn(3, 9, generator=draw, dtype=torch.float64, requires_grad=True)
    words, logp = likeliest(teacher, 4)
    assert torch.autograd.gradcheck(lambda logits: distillation_loss(logp, binned(logits, words)), student)


def test_parts_add_up_to_the_mean_of_the_whole():
    draw = torch.Generator().manual_seed(3)
    teacher, student = torch.randn(2, 10, 6, generator=draw).log_softmax(-1).unbind()
    parts = sum(distillation_loss(teacher[s], student[s], 10) for s in (slice(0, 3), slice(3, 10)))
    assert parts.item() == pytest.approx(distillation_loss(teacher, student).item(), abs=1e-6)


def test_a_word_must_be_left_for_the_last_bin():
    with pytest.raises(ValueError, match="4 bins leave no word of 4"):
        binned(torch.zeros(1, 4), torch.tensor([[0, 1, 2, 3]]))
