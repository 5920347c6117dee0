"""Comparisons read from and written to lines; every bad line says why."""

import gzip
import json
from pathlib import Path

import pytest

from training.lines.records import (
    BadRecord,
    Comparison,
    comparison_of,
    numbered_lines,
    parse_line,
    read_records,
    to_hh_line,
    to_line,
    to_trl_line,
)
from training.lines.splits import conversation_key, is_held_out, parted

# Handmade, in the shapes that the real files have.
HH_LINES = [
    r'{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}',
    (
        r'{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", '
        r'"rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "}'
    ),  # an empty reply
    (
        r'{"chosen": "\n\nHuman: tea?\n\nAssistant: No.  Human: And coffee?\n\nAssistant:  Yes", '
        r'"rejected": "\n\nHuman: tea?\n\nAssistant: Gladly."}'
    ),  # a model that wrote both sides
    (
        r'{"chosen": "\n\nHuman: a\n\nAssistant: x\n\nAssistant: y\n\nHuman: c\n\nAssistant: d", '
        r'"rejected": "\n\nHuman: a\n\nAssistant: x\n\nAssistant: y\n\nHuman: c\n\nAssistant: e"}'
    ),  # twice in a row
    '{"chosen": "\\n\\nHuman: “né”\\n\\nAssistant: ja", "rejected": "\\n\\nHuman: “né”\\n\\nAssistant: nein"}',
    (
        r'{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", '
        r'"rejected": "\n\nHuman: a\n\nAssistant: b2\n\nHuman: c2\n\nAssistant: d2"}'
    ),  # parted after the first turn
]


@pytest.mark.parametrize("line", HH_LINES)
def test_hh_lines_come_back_byte_for_byte_without_a_copy(line: str):
    found = parse_line(line.encode() + b"\n", 1)
    assert found.source_line is None
    assert to_hh_line(found) == line


@pytest.mark.parametrize(
    "line",
    [
        HH_LINES[0].replace(", ", ",").replace(": ", ":", 1),  # other spaces in the JSON
        HH_LINES[0].replace("Hi", "H\\u0069"),  # an escape that json would not write
        HH_LINES[0].replace("Assistant: ", "Assistant:"),
        HH_LINES[0] + "\r",
        r'{"rejected": "\n\nHuman: a\n\nAssistant: b", "chosen": "\n\nHuman: a\n\nAssistant: c"}',
        r'{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", "extra": 1}',
    ],
)
def test_hh_lines_that_we_would_write_otherwise_are_kept(line: str):
    found = parse_line(line + "\n", 1)
    assert found.source_line == line
    assert to_hh_line(found) == line


def test_the_prompt_ends_after_the_last_shared_human_turn():
    empty, both_sides, twice, parted = (parse_line(HH_LINES[n], 1) for n in (1, 2, 3, 5))
    assert [m["content"] for m in empty.prompt] == ["a", "b", "c"]
    assert (empty.chosen, empty.rejected) == ("d", "")
    assert both_sides.chosen == "No.  Human: And coffee?\n\nAssistant:  Yes"
    assert [(m["role"], m["content"]) for m in twice.prompt] == [
        ("user", "a"),
        ("assistant", "x\n\nAssistant: y"),
        ("user", "c"),
    ]
    assert [m["content"] for m in parted.prompt] == ["a"]
    assert parted.chosen == "b\n\nHuman: c\n\nAssistant: d"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SAME = [
    {"prompt": [user("Hi")], "chosen": [assistant("A b")], "rejected": [assistant("C")]},
    {"chosen": [user("Hi"), assistant("A b")], "rejected": [user("Hi"), assistant("C")]},
    {"prompt": "Hi", "chosen": "A b", "rejected": "C"},
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " A b", "rejected": " C"},
    {"prompt": "Hi", "chosen": [assistant("A b")], "rejected": [assistant("C")]},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: A b", "rejected": "\n\nHuman: Hi\n\nAssistant: C"},
]


@pytest.mark.parametrize("record", SAME)
def test_every_shape_says_the_same(record: dict):
    found = parse_line(json.dumps(record), 1)
    assert (found.prompt, found.chosen, found.rejected) == ((user("Hi"),), "A b", "C")


@pytest.mark.parametrize("record", SAME)
def test_two_equal_sides_are_read_for_who_counts_them(record: dict):
    found = parse_line(json.dumps(record | {"rejected": record["chosen"]}), 1)
    assert (found.prompt, found.chosen, found.rejected) == ((user("Hi"),), "A b", "A b")


def test_an_implicit_prompt_ends_at_a_word():
    found = parse_line('{"chosen": "The sky is blue.", "rejected": "The sky is black."}', 1)
    assert (found.prompt[0]["content"], found.chosen, found.rejected) == ("The sky is", " blue.", " black.")


FULL = Comparison(
    (user("q"), assistant("a\n\nb"), user("r ü")),
    "yes",
    "",
    strength=3,
    mode="helpful",
    conversation="c7",
    person="p1",
    round=2,
    extra={"seed": [1, 2], "snapshot": {"chosen": "s1"}},
)


def test_our_own_line_keeps_everything():
    assert parse_line(to_line(FULL), 1) == FULL


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("conversational", [True, False])
def test_trl_lines_keep_prompt_and_sides(explicit: bool, conversational: bool):
    found = parse_line(to_trl_line(FULL, explicit=explicit, conversational=conversational), 1)
    assert (found.prompt, found.chosen, found.rejected) == (FULL.prompt, FULL.chosen, FULL.rejected)


BAD = [
    (b"{", "is not JSON"),
    (b"[1]", "is not a JSON object"),
    (b'{"chosen": "\xff"}', "is not UTF-8"),
    (b'{"chosen": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"chosen": "a"}', "has no 'rejected'"),
    (b'{"chosen": 1, "rejected": 2}', "'chosen' must be a text or a list"),
    (b'{"chosen": "a b", "rejected": []}', "'rejected' is empty"),
    (b'{"chosen": "", "rejected": "a"}', "'chosen' is empty"),
    (b'{"chosen": "a b", "rejected": ["a"]}', "both texts or both lists"),
    (b'{"chosen": "a b", "rejected": "a b"}', "are the same"),
    (b'{"chosen": "x", "rejected": "y"}', "do not begin with the same prompt"),
    (b'{"prompt": " ", "chosen": "a", "rejected": "b"}', "the prompt is empty"),
    (b'{"prompt": 7, "chosen": "a", "rejected": "b"}', "'prompt' must be a text or a list"),
    (rb'{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: z\n\nAssistant: c"}', "the same prompt"),
    (rb'{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a"}', "does not end with an Assistant turn"),
    (rb'{"chosen": "\n\nAssistant: b", "rejected": "\n\nAssistant: c"}', "does not begin with a Human turn"),
    (rb'{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "loose"}', "does not begin with a Human turn"),
    (json.dumps(SAME[0] | {"strength": 5}).encode(), "'strength' must be 1, 2, 3 or 4"),
    (json.dumps(SAME[0] | {"strength": "3"}).encode(), "'strength' must be a whole number"),
    (json.dumps(SAME[0] | {"strength": True}).encode(), "'strength' must be a whole number"),
    (json.dumps(SAME[0] | {"mode": 3}).encode(), "'mode' must be a text"),
    (json.dumps(SAME[0] | {"prompt": [assistant("x")]}).encode(), "must end with a message of the user"),
    (json.dumps(SAME[0] | {"chosen": [user("x")]}).encode(), "must end with a message of the assistant"),
    (json.dumps(SAME[0] | {"chosen": [{"role": "system", "content": "x"}]}).encode(), "the role 'system'"),
    (json.dumps(SAME[0] | {"prompt": []}).encode(), "'prompt' must be a text or a list of messages"),
    (
        json.dumps(SAME[0] | {"chosen": [{"role": [], "content": "x"}]}).encode(),
        "message 1 of 'chosen' has the role []",
    ),
    (json.dumps(SAME[0] | {"chosen": [{"role": "assistant"}]}).encode(), "no text in 'content'"),
    (json.dumps(SAME[0] | {"chosen": [user("x"), assistant("y")]}).encode(), "must hold one message"),
    (
        json.dumps({"chosen": [user("a"), assistant("b")], "rejected": [user("z"), assistant("c")]}).encode(),
        "differ before their last message",
    ),
    (
        json.dumps({"chosen": [assistant("b")], "rejected": [assistant("c")]}).encode(),
        "holds no prompt before its reply",
    ),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_line_is_refused_with_number_and_reason(line: bytes, reason: str):
    with pytest.raises(BadRecord, match="line 17: ") as refused:
        parse_line(line, 17)
    assert refused.value.number == 17
    assert reason in refused.value.reason


def test_files_plain_and_packed_read_the_same(tmp_path: Path):
    text = "\n".join(HH_LINES) + "\n\n"
    (tmp_path / "a.jsonl").write_text(text)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(text)
    plain, packed = (list(read_records(tmp_path / name, comparison_of)) for name in ("a.jsonl", "a.jsonl.gz"))
    assert plain == packed
    assert [record.line for record in packed] == list(range(1, len(HH_LINES) + 1))


def test_a_file_is_packed_if_its_bytes_say_so_whatever_its_name(tmp_path: Path):
    text = ("\n".join(HH_LINES) + "\n").encode()
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text))
    (tmp_path / "b.jsonl.gz").write_bytes(text)
    packed, plain = (list(read_records(tmp_path / name, comparison_of)) for name in ("a.jsonl", "b.jsonl.gz"))
    assert packed == plain
    assert len(plain) == len(HH_LINES)


def test_lines_are_numbered_and_a_long_one_is_refused(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfa\n\n" + b"x" * 8)
    assert list(numbered_lines(path)) == list(numbered_lines(path, 8)) == [(1, b"a\n"), (2, b"\n"), (3, b"x" * 8)]
    with pytest.raises(BadRecord, match="line 3: has more than 7 bytes"):
        list(numbered_lines(path, 7))


def test_a_bad_line_in_a_file_is_numbered_with_the_empty_ones(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(HH_LINES[0] + "\n\nnot json\n")
    with pytest.raises(BadRecord, match=r"line 3 of a.jsonl: is not JSON"):
        list(read_records(tmp_path / "a.jsonl", comparison_of))


def test_a_byte_order_mark_and_windows_line_ends_are_passed_over(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("\n".join(HH_LINES))
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(HH_LINES).encode() + b"\r\n")
    ours, windows = (
        [read.chosen for read in read_records(tmp_path / name, comparison_of)] for name in ("a.jsonl", "b.jsonl")
    )
    assert ours == windows
    assert len(ours) == len(HH_LINES)


def test_half_a_surrogate_pair_in_a_file_is_refused_and_a_whole_one_read(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"prompt": "a", "chosen": "\ud83d\ude42", "rejected": "c"}')
    assert next(read_records(path, comparison_of)).chosen == "🙂"
    path.write_text(r'{"prompt": "a", "chosen": "\uD83D", "rejected": "c"}')
    with pytest.raises(BadRecord, match=r"line 1 of a.jsonl: holds half a surrogate pair"):
        list(read_records(path, comparison_of))


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:40] + b"\0\0\0" + b[43:]])
def test_a_damaged_gz_is_a_bad_record(tmp_path: Path, damage):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(("\n".join(HH_LINES) + "\n").encode())))
    with pytest.raises(BadRecord, match="cannot be unpacked"):
        list(read_records(path, comparison_of))


def comparison(text: str, conversation: str | None = None) -> Comparison:
    return Comparison((user(text), assistant("x"), user("more")), "a", "b", conversation=conversation)


def test_splits_keep_conversations_whole_and_shares_nested():
    many = [comparison(f"opening {n // 3}", None if n % 2 else f"c{n // 3}") for n in range(3000)]
    for share in (0.05, 0.35, 0.5):
        train, test, _ = parted(many, share)
        assert len(test) / len(many) == pytest.approx(share, abs=0.035)
        assert not {conversation_key(c) for c in train} & {conversation_key(c) for c in test}
    assert all(is_held_out(c, 0.35) for c in many if is_held_out(c, 0.05))
    assert parted(many, 0.0).test == [] and parted(many, 1.0).train == []
    assert [is_held_out(c, 0.5) for c in many] != [is_held_out(c, 0.5, salt="other") for c in many]
