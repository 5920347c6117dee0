"""The structs of decode.h and the calls that take them. Shapes and meanings stand there."""

from ctypes import CDLL, POINTER, Structure, c_double, c_int, c_long, c_void_p
from functools import cache

from torch import Tensor

from training import native

PANEL, KEYS = 32, 16


class Matrix(Structure):
    _fields_ = [("panels", c_void_p), ("bias", c_void_p), ("inputs", c_long), ("outputs", c_long), ("half", c_long)]


class Layer(Structure):
    _fields_ = [
        *[(name, Matrix) for name in ("qkv", "out", "gate_up", "down")],
        *[(name, c_void_p) for name in ("query_norm", "key_norm", "keys", "values")],
    ]


class Model(Structure):
    _fields_ = [
        *[(name, c_long) for name in ("width", "heads", "kv_heads", "head_dim", "inner", "words", "layers", "columns")],
        ("value_width", c_long),
        ("eps", c_double),
        ("layer", POINTER(Layer)),
        *[(name, c_void_p) for name in ("embedding", "cos", "sin")],
        ("head", Matrix),
    ]


class Pass(Structure):
    _fields_ = [
        ("model", POINTER(Model)),
        ("n", c_long),
        ("steps", c_long),
        *[(name, c_void_p) for name in ("token", "position", "place", "wanted")],
        ("wanted_n", c_long),
        ("together", c_long),
        ("temperature", c_void_p),
        ("uniform", c_void_p),
        ("uniform_stride", c_long),
        *[(name, c_void_p) for name in ("stops", "out_token", "out_logp", "scratch", "logits")],
        ("done", c_long),
    ]


class Choice(Structure):
    _fields_ = [
        ("logits", c_void_p),
        ("stride", c_long),
        ("words", c_long),
        ("n", c_long),
        *[(name, c_void_p) for name in ("from", "temperature", "uniform", "position")],
        ("uniform_stride", c_long),
        ("step", c_long),
        *[(name, c_void_p) for name in ("token", "logp", "scratch")],
    ]


@cache
def kernels() -> CDLL | None:
    """The library with its functions declared, None where there is none."""
    found = native.library()
    if found is None:
        return None
    declared = {
        "native_pack": (None, [c_void_p, c_void_p, c_long, c_long, c_long, c_long, c_long, c_void_p, c_int, c_int]),
        "native_has_half": (c_int, []),
        "native_scratch": (c_long, [POINTER(Model), c_long, c_long, c_long]),
        "native_logits_stride": (c_long, [c_long]),
        "native_pass": (None, [POINTER(Pass), c_int]),
        "native_copy_row": (None, [POINTER(Model), c_long, c_long, c_long]),
        "native_choose": (None, [POINTER(Choice), c_int]),
        "native_choice_scratch": (c_long, [c_long, c_long]),
    }
    for name, (result, arguments) in declared.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def pointer(x: Tensor | None) -> c_void_p:
    """Where a tensor's numbers lie; the caller keeps it alive."""
    return c_void_p(None if x is None else x.data_ptr())
