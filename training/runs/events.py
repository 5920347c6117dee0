"""Metrics once more as event files, which TensorBoard reads: `tensorboard --logdir RUNS` shows every run below RUNS.

One file a process. A resumed run begins its file with the mark at which readers drop what came at or after its step, so
that the steps that are done twice are shown once. metrics.jsonl is the record; a folder that cannot be written to costs the
curves here and nothing else.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """The event file of this process in `path`, begun with the first number; never a reason for a run to end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Path | None = None
        self._resumed_after: int | None = None
        self._given_up = False

    def resume(self, step: int) -> None:
        """What was written after `step` no longer holds; -1: nothing holds."""
        self._resumed_after, self._file = step, None

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Add the numbers among `numbers`; texts, lists and tables stay in metrics.jsonl alone."""
        plain = {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}
        if self._given_up or not plain:
            return
        from tensorboardX.proto.summary_pb2 import Summary  # here: it takes a second, and reading a folder needs it not

        try:
            if self._file is None:
                self._file = self._begun()
            values = [Summary.Value(tag=name, simple_value=value) for name, value in plain.items()]
            append(self._file, step=step, summary=Summary(value=values))
        except OSError as fault:
            self._given_up = True
            told = f"warning: {self.path} cannot be written to ({fault}); metrics go on in metrics.jsonl alone"
            print(told, file=sys.stderr)

    def _begun(self) -> Path:
        """Begin this process's file."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self.path.mkdir(exist_ok=True)
        earlier = len(list(self.path.iterdir()))
        # readers take the files of a folder in the order of their names; several may be begun within a second
        file = self.path / f"events.out.tfevents.{int(time.time())}.{earlier:06}.{socket.gethostname()}.{os.getpid()}"
        append(file, file_version="brain.Event:2")
        if earlier and self._resumed_after is not None:
            append(file, step=self._resumed_after + 1, session_log=SessionLog(status=SessionLog.START))
        return file


def append(file: Path, **fields: Any) -> None:
    """Append one event as a TFRecord: length, its checksum, the message, its checksum; whole or not at all to a reader."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    message = Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(message))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, message)]
    with file.open("ab") as opened:
        opened.write(length + checksums[0] + message + checksums[1])
