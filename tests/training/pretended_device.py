"""An accelerator that is not there: its tensors are computed on the CPU, and refuse to meet tensors that are not its own.

What a GPU would refuse is refused here: an operation between two devices, numpy of what lies on the device.
It cannot show kernels, time or memory.

python -m tests.training.pretended_device JOB FOLDER [JOB FOLDER ...]
"""

import importlib
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
# A GPU takes numbers of rows that lie on the CPU.
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
BETWEEN = {aten.copy_.default, aten._to_copy.default}
# What torch.autocast runs in bfloat16 and in float32 on a GPU, as far as it is used here.
HALVED = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
WHOLE = ("exp", "log", "softmax.int", "log_softmax.int", "layer_norm", "rsqrt", "cumsum", "sum", "sum.dim_IntList")


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """Chance is the CPU's."""


_setup_privateuseone_for_python_backend(rename="pretended", backend_module=_Backend())
DEVICE = torch.device("pretended", 0)
_ALL, _ATEN = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_ALL.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


def _cast(name: str, source: torch.dtype, target: torch.dtype) -> None:
    base, _, overload = name.partition(".")
    operation = getattr(getattr(aten, base), overload or "default")

    def cast(*args: Any, **kwargs: Any) -> Any:
        def moved(found: Tensor) -> Tensor:
            return found.to(target) if found.dtype == source else found

        with torch._C._DisableAutocast():
            return operation(
                *changed(args, Tensor, moved), **{key: changed(value, Tensor, moved) for key, value in kwargs.items()}
            )

    _ATEN.impl(name, cast, "AutocastPrivateUse1")


for _name in HALVED:
    _cast(_name, torch.float32, torch.bfloat16)
for _name in WHOLE:
    _cast(_name, torch.bfloat16, torch.float32)


def changed(value: Any, kind: type, how: Callable[[Any], Any]) -> Any:
    """`value` with `how` done to every `kind` in it. torch's own walk knows dicts and named tuples, which no operator takes, and takes six times as long."""
    if isinstance(value, kind):
        return how(value)
    if isinstance(value, list | tuple):
        return type(value)([changed(inner, kind, how) for inner in value])
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner)


class Pretended(Tensor):
    """A tensor of the device; `inner` has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Self:
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=DEVICE,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in (
            "tolist",
            "untyped_storage",
            "storage",
        ):  # a GPU copies the numbers; a storage is asked for its identity
            return getattr(args[0].detach().inner, name)()
        if name in ("numpy", "__array__"):
            raise TypeError(f"{name} of a tensor on {DEVICE}")
        if name == "__getitem__":  # a list becomes a tensor where no dispatcher is asked
            args = (args[0], changed(args[1], list, torch.tensor))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


_INNER = operator.attrgetter("inner")


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`func` on the CPU; what comes out lies where a GPU would have it.  RuntimeError where tensors of two devices meet."""
    given = [*tensors_in(args), *tensors_in([*kwargs.values()])]
    there = [found for found in given if isinstance(found, Pretended)]
    here = [found for found in given if not isinstance(found, Pretended) and found.dim() > 0]
    if func in INDEXING and there and not isinstance(args[0], Pretended):
        raise RuntimeError(f"{func}: rows that lie on {DEVICE} of a tensor on the CPU")
    if there and here and func not in INDEXING | BETWEEN:
        raise RuntimeError(
            f"{func}: {[tuple(t.shape) for t in here]} on the CPU, {[tuple(t.shape) for t in there]} on {DEVICE}"
        )
    if func is aten._fused_sdp_choice.default:
        return 0  # plain products
    asked = kwargs.get("device")
    stays = bool(there) if asked is None else torch.device(asked).type == DEVICE.type
    if asked is not None and stays:
        kwargs = kwargs | {"device": torch.device("cpu")}
    bare_kwargs = {key: changed(value, Pretended, _INNER) for key, value in kwargs.items()}
    made = func(*changed(args, Pretended, _INNER), **bare_kwargs)
    if there and torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # the shape that the tensor itself tells
    if func is aten.copy_.default:
        return args[0]
    if not stays:
        return made
    known = {id(found.inner): found for found in there}  # what is changed in place is handed back as itself
    return changed(made, Tensor, lambda found: known[id(found)] if id(found) in known else Pretended(found))


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """torch.tensor asks no dispatcher for its memory: it is made on the CPU and taken to the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        where = kwargs.pop("device", None) if func in (torch.tensor, torch.as_tensor) else None
        made = func(*args, **kwargs)
        return made if where is None else made.to(where)


@contextmanager
def pretended() -> Iterator[None]:
    """What computes inside can reach the device."""
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Everywhere(), _Made():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapping)


def main(arguments: list[str]) -> int:
    """Run jobs on the device, one after the other; the first exit code that is not 0."""
    torch.inference_mode = torch.no_grad  # type: ignore[misc, assignment]  # whose tensors a subclass cannot write
    from training.processes import device

    device.device_of_choice = lambda: DEVICE
    for job, folder in zip(arguments[::2], arguments[1::2], strict=True):
        with pretended():
            code = importlib.import_module(f"training.{job}").main([folder])
        if code:
            return int(code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
