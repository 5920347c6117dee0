"""The writer of checkpoints: what the library reads back, and what it costs in memory."""

import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.runs.tensors import NAMES, write_tensors


def some_of_each_kind() -> dict[str, torch.Tensor]:
    numbers = torch.arange(-3, 9)
    found = {str(kind): numbers.to(kind).reshape(3, 4) for kind in NAMES}
    return found | {
        "a scalar": torch.tensor(2.5), "none": torch.empty(0, 7), "turned": torch.randn(5, 3).t(),
        "part": torch.randn(9, 9)[2:5, 3], "learnt": torch.ones(3, requires_grad=True),
    }  # fmt: skip


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensors = some_of_each_kind()
    write_tensors(tmp_path / "a.safetensors", tensors)
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name], tensor)


def test_the_file_is_as_long_as_the_librarys(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(4, 6), "a": torch.ones(3, dtype=torch.bool), "c": torch.tensor(7)}
    write_tensors(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs")
    ours, theirs = (tmp_path / "ours").read_bytes(), (tmp_path / "theirs").read_bytes()
    data = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert ours[-data:] == theirs[-data:]


def test_no_second_copy_is_held(tmp_path: Path) -> None:
    tensors = {str(number): torch.randn(1024, 1024) for number in range(4)}  # 16 MB
    tracemalloc.start()
    try:
        write_tensors(tmp_path / "a.safetensors", tensors)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1e6


def test_an_unknown_kind_of_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"phase holds torch\.complex64"):
        write_tensors(tmp_path / "a.safetensors", {"phase": torch.ones(2, dtype=torch.complex64)})
