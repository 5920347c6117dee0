"""Log-probabilities through a vocabulary head in pieces: torch's own numbers, gradients and entropy."""

import math

import pytest
import torch
from torch.nn import functional

from training import native
from training.native import passing
from training.trunk import vocabulary
from training.trunk.vocabulary import tell


@pytest.fixture(params=["native", "torch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with the kernels in C and without."""
    if request.param == "torch":
        monkeypatch.setattr(passing, "kernels", lambda: None)
    else:
        assert passing.kernels() is not None, native.why_not()
    return request.param


@pytest.mark.parametrize("piece", [vocabulary.PIECE, 40])  # all rows at once; two rows a piece
@pytest.mark.parametrize("with_bias", [True, False])
def test_numbers_and_gradients_are_those_of_log_softmax(
    with_bias: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "PIECE", piece)
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 6, requires_grad=True), torch.randn(19, 6, requires_grad=True)
    bias = torch.randn(19, requires_grad=True) if with_bias else None
    tokens, weights = torch.randint(0, 19, (7,)), torch.randn(7)
    inputs = [part for part in (hidden, weight, bias) if part is not None]
    logp = functional.log_softmax(functional.linear(hidden, weight, bias) / 0.7, -1)
    expected = logp.gather(1, tokens[:, None])[:, 0]
    entropy = -(logp.exp() * logp).sum(-1)
    for bonus in (0.0, 0.3):
        wanted = torch.autograd.grad((expected * weights + bonus * entropy).sum(), inputs, retain_graph=True)
        found = tell(hidden, weight, bias, tokens, 0.7)
        assert torch.allclose(found.logp, expected, atol=1e-6)
        assert torch.allclose(found.entropy, entropy, atol=1e-5)
        told = (found.logp * weights).sum() + (bonus * found.entropy.sum() if bonus else 0)
        for mine, other in zip(torch.autograd.grad(told, inputs), wanted, strict=True):
            assert torch.allclose(mine, other, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(tell(hidden, weight, bias, tokens, 0.7).logp, expected, atol=1e-6)


def test_by_hand() -> None:
    found = tell(torch.eye(2), torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]), None, torch.tensor([0, 1]))
    assert found.logp.tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    assert found.entropy[1].item() == pytest.approx(math.log(2))


def test_a_certain_head_has_no_entropy_and_a_finite_gradient() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    found = tell(hidden, torch.tensor([[1e6], [0.0]]), None, torch.tensor([1]))
    assert found.logp.item() == pytest.approx(-1e6)
    assert found.entropy.item() == pytest.approx(0, abs=0.1)
    (gradient,) = torch.autograd.grad(found.logp.sum(), [hidden])
    assert gradient.item() == pytest.approx(-1e6)
