"""What a preference run learns from: the files of data/, whatever shapes their lines have, and how they are split."""

from pathlib import Path
from typing import Any

from training.config import PreferenceConfig
from training.job import JobFailed
from training.pmp import Answers, answers_of, binarised, pairs_of_answers
from training.rankings import Marked, Ranking, marked_of, ranking_of
from training.records import Comparison, comparison_of, parsed, read_records
from training.run_folder import RunFolder
from training.splits import Parts, folded, half_of, parted

Feedback = Comparison | Ranking | Marked | Answers


def feedback_of(record: dict[str, Any], line: str) -> Feedback:
    """Build the record that a line's keys tell: answers, a ranking, a marked reply, or else a comparison."""
    if "answers" in record:
        return answers_of(record)
    if "replies" in record or "ranks" in record:
        return ranking_of(record)
    if "good" in record and "chosen" not in record:
        return marked_of(record)
    return comparison_of(record, line)


def parse_feedback(line: str | bytes, number: int) -> Feedback:
    """Read one line of any shape; BadRecord(number, reason) when it is none."""
    return parsed(line, number, feedback_of)


def data_file(folder: RunFolder, name: str) -> Path | None:
    """Return data/NAME.jsonl or data/NAME.jsonl.gz, None where neither is; both are one too many."""
    kept = [file for file in (folder.data / f"{name}.jsonl", folder.data / f"{name}.jsonl.gz") if file.exists()]
    if len(kept) > 1:
        raise JobFailed(f"both {name}.jsonl and {name}.jsonl.gz are in {folder.data}; remove one")
    return kept[0] if kept else None


def read_data(folder: RunFolder, config: PreferenceConfig) -> Parts[Feedback]:
    """Return what is learnt and what measures; without a test file some conversations or people are held out."""
    train, test = data_file(folder, "train"), data_file(folder, "test")
    if train is None:
        raise JobFailed(f"{folder.data / 'train.jsonl'} is missing; write one comparison a line into it")
    everything = list(read_records(train, feedback_of))
    if not everything:
        raise JobFailed(f"{train} holds no comparison")
    if test is not None:
        if config.folds:
            raise JobFailed(f"folds are cut from train.jsonl and there is {test.name} too; remove it or set folds to 0")
        parts = Parts(everything, list(read_records(test, feedback_of)), [])
    elif config.folds:
        parts = folded(everything, config.fold, config.folds, config.held_out, config.split_by)
    else:
        parts = parted(everything, config.held_out, config.split_by)
    if config.half != "both":
        parts = parts._replace(train=half_of(parts.train, config.half, config.split_by))
    if config.stage == "pmp":
        return Parts(*(pretraining_pairs(part, tags=config.pmp_pairs == "binarised") for part in parts))
    if any(isinstance(record, Answers) for part in parts for record in part):
        raise JobFailed("there are lines with 'answers' in the data; they are for preference-model pretraining: stage pmp")
    return parts


def pretraining_pairs(records: list[Feedback], *, tags: bool) -> list[Feedback]:
    """Return the pairs of a PMP stage, each reply in one pair at most; a record that gives none stays as it is."""
    found: list[Feedback] = []
    for record in records:
        if isinstance(record, Marked):
            found.append(record)
            continue
        pairs = [record] if isinstance(record, Comparison) else pairs_of_answers(record)
        found += (binarised(pairs) if tags else pairs) or [record]
    return found
