"""The kernels between products: in float32 and in bfloat16 the numbers of their twins in torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training import native
from training.native import passing
from training.trunk import half, pointwise, vocabulary

TYPES = [torch.float32, torch.bfloat16]
ROOM = {
    torch.float32: 1e-5,
    torch.bfloat16: 2**-7,
}  # of the larger of 1 and the number: two roundings of bfloat16 apart


def both(work: Callable[[], tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work with the kernels in C and without."""
    assert passing.kernels() is not None, native.why_not()
    mine = work()
    with monkeypatch.context() as without:
        without.setattr(passing, "kernels", lambda: None)
        other = work()
    for number, (a, b) in enumerate(zip(mine, other, strict=True)):
        assert a.dtype is b.dtype and a.shape == b.shape, number
        exact = b.float()
        gap = (a.float() - exact).abs() / exact.abs().clamp_min(1)
        assert float(gap.max()) <= ROOM[a.dtype], number


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 320])
@pytest.mark.parametrize("dtype", TYPES)
def test_each_kernel_computes_what_its_twin_does(
    dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 70

    def work() -> tuple[Tensor, ...]:
        x, weight = numbers(rows, width), numbers(width, seed=1)
        normed, scale = pointwise.norm(x, weight, 1e-6, half=dtype is torch.bfloat16)
        into = pointwise.norm_backward(numbers(rows, width, dtype=dtype, seed=2), x, weight, scale, x)
        opened, pulled = numbers(rows, 2 * width, dtype=dtype, seed=3), numbers(rows, width, dtype=dtype, seed=4)
        gated = pointwise.gate(opened)
        pointwise.gate_backward(opened, pulled)
        return normed.table, scale, *into, gated, opened, pulled

    both(work, monkeypatch)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_softmax_and_its_gradient_are_those_of_the_twin(
    dtype: torch.dtype, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> tuple[Tensor, ...]:
        logits = 4 * numbers(9, 50, dtype=dtype)
        logits[0, 3], logits[1, :40] = -torch.inf, -torch.inf  # words that cannot come
        tokens = torch.arange(41, 50)
        known = vocabulary.normalise(logits, tokens, temperature)
        vocabulary.denormalise(logits, tokens, numbers(9, seed=5), known.total, temperature)
        return *known, logits

    both(work, monkeypatch)


def test_what_no_number_is_stays_so_in_bfloat16() -> None:
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e-40, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8])
    x = torch.ones(7, 2)
    x[:, 1] = 0
    # the row's inverse root is that of one half; the weight takes it back, so that what is rounded is `odd` itself
    for value in odd:
        weight = torch.stack([value, torch.tensor(0.0)])
        table = pointwise.norm(torch.tensor([[2.0, 0.0]]), weight, 2.0, half=True)[0].own
        exact = (torch.tensor(2.0) * torch.rsqrt(torch.tensor(4.0)) * value).bfloat16()
        assert torch.equal(table[0, 0], exact) or (table[0, 0].isnan() and exact.isnan()), value


def test_rows_below_those_of_somebody_are_zero() -> None:
    normed, _ = pointwise.norm(numbers(70, 5), numbers(5), 1e-6, half=True)
    assert (len(normed.table), normed.filled) == (128, 70)
    assert float(normed.table[70:].abs().max()) == 0
    assert half.room(64, 5, numbers(1), half=True).table.shape == (64, 5)
