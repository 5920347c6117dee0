"""Writing named tensors as a safetensors file without holding them a second time in memory.

The library's own writer first makes one string of bytes of all of them, and a checkpoint of PPO holds weights and both moments
of two networks. Files are read by the library.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

# The format's names, https://github.com/huggingface/safetensors#format
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors, of any device, to `path`; no more than one of them is copied at a time.

    Raises ValueError for an element type that the format has no name for.
    """
    header: dict[str, dict[str, object]] = {}
    at = 0
    # the widest elements first, as the library does, so that each begins at a multiple of its width
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in NAMES:
            raise ValueError(f"{name} holds {tensor.dtype}, which a safetensors file cannot; convert it first")
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    with path.open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            flat.view(torch.uint8).numpy().tofile(file)
