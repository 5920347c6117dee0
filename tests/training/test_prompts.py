"""Prompts: what is accepted, what is held out, and the order of training."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from training.data.prompts import evenly, hold_out, mixed, read_prompts, read_prompts_with_modes, rendered, taken
from training.failure import JobFailed
from training.lines.records import BadRecord, Comparison
from training.lines.splits import parted
from training.models.snapshots import load_tokenizer


def said(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]


def test_both_forms_are_read_and_other_keys_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "Hi\u2028there", "mode": "helpful"}, ensure_ascii=False) + "\n\n"
                    + json.dumps({"messages": said("a", "b", "c")}) + "\n"
                    + json.dumps({"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"}) + "\n", "utf-8")  # fmt: skip
    assert read_prompts(file) == [said("Hi\u2028there"), said("a", "b", "c"), said("a", "b", "c")]
    assert [mode for _, mode in read_prompts_with_modes(file)] == ["helpful", None, None]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[]", "object"),
        ('{"texts": "x"}', "messages"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1 of 'messages' has no text in 'content'"),
        (
            json.dumps({"prompt": [*said("a"), {"role": ["user"], "content": "x"}]}),
            "message 2 of 'prompt' has the role",
        ),
        (json.dumps({"messages": said("a", "b")}), "end with"),
        ('{"prompt": "  "}', "empty"),
        ('{"prompt": "x", "mode": 3}', "mode"),
        ("{", "line 2"),
    ],
)
def test_a_bad_line_is_named(line: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(BadRecord, match=why) as refused:
        read_prompts(file)
    assert refused.value.number == 2


def test_no_file_and_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="is missing"):
        read_prompts(tmp_path / "prompts.jsonl")
    (tmp_path / "prompts.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(BadRecord, match=r"line 1 of prompts.jsonl: is not UTF-8"):
        read_prompts(tmp_path / "prompts.jsonl")
    (tmp_path / "prompts.jsonl").write_text("\n")
    with pytest.raises(JobFailed, match="holds no prompt"):
        read_prompts(tmp_path / "prompts.jsonl")


def test_packed_prompts_are_read_as_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "Hi"}\n'))
    assert read_prompts(tmp_path / "prompts.jsonl") == [said("Hi")]


def test_a_conversation_stays_on_one_side() -> None:
    prompts = [said(f"q{n}") for n in range(200)] + [said(f"q{n}", "a", "more") for n in range(200)]
    train, out = hold_out(prompts, 0.1)
    assert len(train) + len(out) == 400
    assert 16 <= len(out) <= 70
    assert not {prompt[0]["content"] for prompt in train} & {prompt[0]["content"] for prompt in out}
    train, out = hold_out([said("one"), said("two")], 0.01)
    assert len(train) == len(out) == 1
    assert hold_out([said("one")], 0.5) == ([said("one")], [])


@pytest.mark.parametrize("share", [0.05, 0.35])
def test_prompts_are_held_out_where_their_comparisons_are(share: float) -> None:
    prompts = [said(f"q{n}", "a", "more") if n % 2 else said(f"q{n}") for n in range(300)]
    prompts += [[{"role": "assistant", "content": "Hello."}, *said(f"r{n}")] for n in range(50)]
    split = parted([Comparison(tuple(prompt), "yes", "no") for prompt in prompts], share)
    for part, compared in zip(hold_out(prompts, share), (split.train, split.test), strict=True):
        assert sorted(map(str, part)) == sorted(str(list(comparison.prompt)) for comparison in compared)


def test_each_pass_meets_every_prompt_once_whatever_the_batches() -> None:
    whole = taken(7, seed=1, begin=0, number=21)
    assert [Counter(whole[at : at + 7]) for at in (0, 7, 14)] == [Counter(range(7))] * 3
    assert whole[:7] != whole[7:14]
    assert [*taken(7, 1, 0, 5), *taken(7, 1, 5, 11), *taken(7, 1, 16, 5)] == whole
    assert taken(7, 2, 0, 21) != whole


def test_long_prompts_lose_their_oldest_turns_or_are_counted_out(tiny_policy: Path) -> None:
    tokenizer = load_tokenizer(tiny_policy)
    found, told = rendered(tokenizer, [said("x" * 30, "y", "z"), said("x" * 99), said("z")], room=20)
    assert told == {"shortened": 1, "over_long": 1}
    assert len(found) == 2 and found[0] == found[1]


def test_a_few_of_many_come_from_the_whole_row() -> None:
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly(range(3), 2) == [0, 1]
    assert evenly(["a", "b"], 5) == ["a", "b"]
    assert evenly([], 3) == []


def test_modes_come_in_their_shares_and_each_in_passes() -> None:
    sizes, weights = {"helpful": 5, "red_team": 3}, {"helpful": 3.0, "red_team": 1.0}
    whole = mixed(sizes, weights, 0, 0, 400)
    assert abs(Counter(mode for mode, _ in whole)["helpful"] - 300) <= 2
    for begin in range(0, 400, 40):  # and so in every stretch
        assert 28 <= Counter(mode for mode, _ in whole[begin : begin + 40])["helpful"] <= 32
    red = [place for mode, place in whole if mode == "red_team"]
    assert all(sorted(red[begin : begin + 3]) == [0, 1, 2] for begin in range(0, 96, 3))
    assert mixed(sizes, weights, 0, 123, 50) == whole[123:173]  # no cursor but the place
    assert mixed(sizes, weights, 1, 0, 400) != whole
