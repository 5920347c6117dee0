"""JSON lines of a run's data/, plain or gzipped: one object a line, and what is wrong with the first that is none."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.job import JobFailed
from training.records import BadRecord


def data_file(data: Path, name: str) -> Path | None:
    """Return data/NAME.jsonl or data/NAME.jsonl.gz, None where neither is; both are one too many."""
    found = [file for file in (data / f"{name}.jsonl", data / f"{name}.jsonl.gz") if file.exists()]
    if len(found) > 1:
        raise JobFailed(f"both {name}.jsonl and {name}.jsonl.gz are in {data}; remove one")
    return found[0] if found else None


def read_lines(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (number from 1, text, object) of each line that is not empty; BadRecord names the first that is no object."""
    number = 0
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    text = line.decode()
                    record = json.loads(text)
                    if not isinstance(record, dict):
                        raise BadRecord(number, f"{path.name}: is not a JSON object")
                    yield number, text, record
        except UnicodeDecodeError as bad:
            raise BadRecord(number, f"{path.name}: is not UTF-8 (byte {bad.start + 1})") from bad
        except json.JSONDecodeError as bad:
            raise BadRecord(number, f"{path.name}: is not JSON: {bad.msg} at character {bad.pos + 1}") from bad
        except RecursionError as bad:
            raise BadRecord(number, f"{path.name}: is nested too deeply") from bad
        except (EOFError, gzip.BadGzipFile, zlib.error) as bad:
            raise BadRecord(number + 1, f"{path.name}: cannot be unpacked: {bad}") from bad


def read_texts(path: Path) -> list[str]:
    """Read {"text": "..."} lines, as language models are pretrained on; BadRecord names the first without a text."""
    found = []
    for number, _, record in read_lines(path):
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise BadRecord(number, f"{path.name}: has no text in 'text'")
        found.append(text)
    if not found:
        raise JobFailed(f'{path} holds no text; write a line of {{"text": …}} each into it')
    return found
