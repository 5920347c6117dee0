"""JSON lines of a run's data/, plain or gzipped: one object a line, and what is wrong with the first that is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.failure import JobFailed
from training.lines.records import BadRecord, read_numbered


def data_file(data: Path, name: str) -> Path | None:
    """Return data/NAME.jsonl or data/NAME.jsonl.gz, None where neither is; both are one too many."""
    found = [file for file in (data / f"{name}.jsonl", data / f"{name}.jsonl.gz") if file.exists()]
    for file in found:
        if not file.is_file():
            raise JobFailed(f"{file} is not a file; it must hold one JSON object a line")
    if len(found) > 1:
        raise JobFailed(f"both {name}.jsonl and {name}.jsonl.gz are in {data}; remove one")
    return found[0] if found else None


def read_lines(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (number from 1, text, object) of each line that is not empty; BadRecord names the first that is no object."""
    for number, (text, record) in read_numbered(path, lambda record, text: (text, record)):
        yield number, text, record


def read_texts(path: Path) -> list[str]:
    """Read {"text": "..."} lines, as language models are pretrained on; BadRecord names the first without a text."""
    found = []
    for number, _, record in read_lines(path):
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise BadRecord(number, "has no text in 'text'", path.name)
        found.append(text)
    if not found:
        raise JobFailed(f'{path} holds no text; write a line of {{"text": …}} each into it')
    return found
