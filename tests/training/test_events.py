"""Event files hold what TensorBoard will show: read back with tensorboardX's protobuf and TensorBoard's own rule for restarts."""

import struct
from pathlib import Path

import pytest
import torch
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from training.runs.run_folder import RunFolder


def masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events(file: Path) -> list[Event]:
    """Every record of a TFRecord file, its checksums verified."""
    content, at, found = file.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        (of_length,) = struct.unpack_from("<I", content, at + 8)
        message = content[at + 12 : at + 12 + length]
        (of_message,) = struct.unpack_from("<I", content, at + 12 + length)
        assert of_length == masked(crc32c(content[at : at + 8]))
        assert of_message == masked(crc32c(message))
        found.append(Event.FromString(message))
        at += 16 + length
    return found


def shown(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """The curves of a folder: a START mark drops what stands at or after its step, as TensorBoard does."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((folder.path / "events").iterdir()):
        found = events(file)
        assert found[0].file_version == "brain.Event:2"
        for event in found:
            if event.session_log.status == SessionLog.START:
                curves = {name: [p for p in curve if p[0] < event.step] for name, curve in curves.items()}
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_numbers_become_curves_and_nothing_else_does(folder: RunFolder):
    folder.log(step=1, loss=0.5, of=2, stopped=True, by_mode={"helpful": 1.0}, reason="none", bins=[1, 2])
    folder.log(step=2, loss=0.25, of=2)
    assert shown(folder) == {"loss": [(1, 0.5), (2, 0.25)], "of": [(1, 2.0), (2, 2.0)], "stopped": [(1, 1.0)]}


def test_steps_that_are_done_twice_are_shown_once(folder: RunFolder):
    for step in range(1, 6):
        folder.log(step=step, loss=float(step))
        if step == 3:
            folder.save_checkpoint(3, {"w": torch.zeros(1)}, {})
    for _ in range(2):  # killed after 5, and again after 4, both within a second
        again = RunFolder(folder.path)
        again.load_checkpoint()
        again.log(step=4, loss=40.0)
    assert len(list((folder.path / "events").iterdir())) == 3
    assert shown(folder) == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]}
    assert [line["step"] for line in folder.metrics()] == [1, 2, 3, 4]


def test_a_start_without_a_checkpoint_shows_nothing_of_the_one_before(folder: RunFolder):
    folder.log(step=1, loss=1.0)
    again = RunFolder(folder.path)
    again.load_checkpoint()
    again.log(step=1, loss=2.0)
    assert shown(folder) == {"loss": [(1, 2.0)]}


def test_a_folder_that_cannot_be_written_to_costs_the_curves_alone(folder: RunFolder, capsys: pytest.CaptureFixture):
    (folder.path / "events").write_text("in the way")
    for step in (1, 2):
        folder.log(step=step, loss=1.0)
    assert [line["step"] for line in folder.metrics()] == [1, 2]
    told = capsys.readouterr().err
    assert told.count("events cannot be written to") == 1 and "metrics.jsonl alone" in told
