"""What a preference run learns from: the files of data/, whatever shapes their lines have, and how they are split."""

from typing import Any

from training.config import PreferenceConfig
from training.data.demonstrations import read_demonstrations
from training.failure import JobFailed
from training.lines.lines import data_file
from training.lines.pmp import Answers, answers_of, binarised, pairs_of_answers
from training.lines.rankings import Marked, Ranking, marked_of, ranking_of
from training.lines.records import Comparison, comparison_of, parsed, read_records
from training.lines.splits import Split, folded, half_of, parted
from training.runs.run_folder import RunFolder

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


def read_data(folder: RunFolder, config: PreferenceConfig) -> Split[Feedback]:
    """Return what is learnt and what measures; without a test file some conversations or people are held out."""
    train, test = data_file(folder.data, "train"), data_file(folder.data, "test")
    if train is None:
        raise JobFailed(f"{folder.data / 'train.jsonl'} is missing; write one comparison a line into it")
    everything = list(read_records(train, feedback_of))
    if not everything:
        raise JobFailed(f"{train} holds no comparison")
    if test is not None:
        if config.folds:
            raise JobFailed(f"folds are cut from train.jsonl and there is {test.name} too; remove it or set folds to 0")
        parts = Split(everything, list(read_records(test, feedback_of)), [])
    elif config.folds:
        parts = folded(everything, config.fold, config.folds, config.held_out, config.split_by)
    else:
        parts = parted(everything, config.held_out, config.split_by)
    if config.half != "both":
        # with people as the units, those of the other half are no longer among those who train
        train_half, in_group = (half_of(part, config.half, config.split_by) for part in (parts.train, parts.in_group))
        parts = parts._replace(train=train_half, in_group=in_group)
    if config.stage == "pmp":
        return Split(*(pretraining_pairs(part, tags=config.pmp_pairs == "binarised") for part in parts))
    if any(isinstance(record, Answers) for part in parts for record in part):
        raise JobFailed(
            "there are lines with 'answers' in the data; they are for preference-model pretraining: stage pmp"
        )
    return parts


def read_experts(folder: RunFolder, config: PreferenceConfig) -> list[Feedback]:
    """Return what experts hold right, of data/experts.jsonl, where there is such a file: it measures and is never learnt."""
    path = data_file(folder.data, "experts")
    found = [] if path is None else list(read_records(path, feedback_of))
    return pretraining_pairs(found, tags=config.pmp_pairs == "binarised") if config.stage == "pmp" else found


def read_demonstrated(folder: RunFolder) -> list[Marked]:
    """Return the replies of data/demonstrations.jsonl, in any shape of demonstrations.py, as good ones."""
    path = data_file(folder.data, "demonstrations")
    if path is None:
        raise JobFailed(
            f"shift_on is 'demonstrations' and {folder.data / 'demonstrations.jsonl'} is missing; "
            "write it, or shift on 'train' or 'held_out'"
        )
    return [
        Marked(tuple(shown.prompt), shown.messages[-1]["content"], good=True) for shown in read_demonstrations(path)
    ]


def pretraining_pairs(records: list[Feedback], *, tags: bool) -> list[Feedback]:
    """Return the pairs of a PMP stage, each reply in one pair at most; a record that gives none stays as it is."""
    found: list[Feedback] = []
    for record in records:
        if isinstance(record, Marked):
            found.append(record)
            continue
        pairs = [record] if isinstance(record, Comparison) else pairs_of_answers(record)
        pairs = [pair for pair in pairs if pair.chosen != pair.rejected]  # one reply would be told good and bad
        found += (binarised(pairs) if tags else pairs) or [record]
    return found
