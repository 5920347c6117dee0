"""The sft job: replies are learnt and nothing else is, it goes on after a kill, and the better model is kept."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.processes import killed, started, together
from tests.training.results import runs_alike
from training import sft
from training.config import SFT_PRESETS, BadConfig, SftConfig, load_config
from training.data.demonstrations import Demonstration, read_demonstrations, read_line, split, tokenised
from training.data.examples import Example
from training.failure import JobFailed
from training.lines.records import BadRecord, Comparison
from training.lines.splits import is_held_out
from training.models.snapshots import check_snapshot, load_policy, load_tokenizer, render, render_reply
from training.reading.words import WordReader
from training.runs.run_folder import RunFolder
from training.sft import main
from training.trunk import FusedTrunk
from training.trunk.packing import Group, Packed

WORDS = ["ash", "birch", "cedar", "dill", "elm", "fir"]
TIMES = {"seconds", "tokens_per_second"}


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def demonstrations(count: int) -> list[dict]:
    """Each prompt names a word, the reply says it again."""
    return [{"messages": [user(f"{WORDS[n % 6]} {n}"), assistant(f"{WORDS[n % 6]}!")]} for n in range(count)]


def make_folder(path: Path, train: list[dict], test: list[dict] | None = None, **settings: object) -> Path:
    (path / "data").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"learning_rate": 1e-2, "epochs": 2, **settings}))
    (path / "data" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in train))
    if test is not None:
        (path / "data" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in test))
    return path


def timeless(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


# -- data -------------------------------------------------------------------------------------------------------------
def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_shape_of_a_demonstration_is_read(tmp_path: Path):
    talk = [user("a"), assistant("b"), user("c"), assistant("d")]
    found = read_demonstrations(
        write(
            tmp_path / "d.jsonl",
            {"messages": talk, "conversation": "7"},
            {"prompt": "c", "completion": "d", "conversation": 8},
            {"prompt": talk[:3], "completion": talk[3:]},
            {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "completion": " d"},
            {"prompt": talk[:3], "reply": "d"},
            {"prompt": talk[:3], "chosen": "d", "rejected": "e"},
            {"prompt": talk[:3], "replies": ["e", "d", "f"], "ranks": [2, 1, 1]},
            {"prompt": talk[:3], "reply": "d", "good": False},
            {"chosen": "\n\nHuman: c\n\nAssistant: d", "rejected": "\n\nHuman: c\n\nAssistant: e"},
        )
    )
    assert [list(shown.messages) for shown in found] == [talk, talk[2:], *[talk] * 6, talk[2:]]
    assert [shown.shown for shown in found] == [0, 1, 3, 3, 3, 3, 3, 3, 1]
    assert [shown.good for shown in found] == [True] * 7 + [False, True]
    assert [shown.conversation for shown in found[:3]] == ["7", "8", None]
    assert list(found[0].prompt) == talk[:3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"messages": [user("a")]}, "does not end with a message of the assistant: there is no reply to learn"),
        ({"messages": [assistant("a")]}, "no message of the user before it"),
        ({"messages": []}, "'messages' must be a list of messages"),
        ({"messages": [{"role": "system", "content": "x"}, assistant("a")]}, "message 1 of 'messages' has the role 'system'"),
        ({"prompt": "a"}, "has a 'prompt' and no 'completion'"),
        ({"prompt": "a", "completion": 3}, "'completion' must be a text or a list of messages"),
        ({"prompt": [user("a")], "completion": [{"role": "user"}]}, "message 1 of 'completion' has no text"),
        ({"text": "a"}, "texts belong into pretraining.jsonl"),
        ({"question": "a"}, "has neither 'messages'"),
        ([1], "is not a JSON object"),
    ],
)  # fmt: skip
def test_what_is_no_demonstration_is_named(tmp_path: Path, line: object, reason: str):
    good = {"prompt": "a", "completion": "b"}
    with pytest.raises(BadRecord, match=reason) as refused:
        read_demonstrations(write(tmp_path / "d.jsonl", good, line))
    assert refused.value.number == 2


def test_only_replies_are_learnt_with_their_end_token(tiny_policy: Path):
    tokenizer = load_tokenizer(tiny_policy)
    talk = (user("ab"), assistant("cd"), user("e"), assistant("f"))
    shown = [Demonstration(talk, 0), Demonstration(talk, 3)]
    last = tokenised(shown, tokenizer, max_tokens=256, turns="last").examples
    every = tokenised(shown, tokenizer, max_tokens=256, turns="all").examples
    assert last[0].tokens == every[0].tokens == render(tokenizer, talk[:3]) + render_reply(tokenizer, "f")
    words = lambda example: tokenizer.decode([example.tokens[column] for column in example.learnt])
    assert [words(example) for example in (*last, *every)] == ["f<|end|>", "f<|end|>", "cd<|end|>f<|end|>", "f<|end|>"]


SAME = '{"prompt": "x", "chosen": "y", "rejected": "y"}'


def test_what_is_too_long_loses_turns_or_is_left_out_and_both_are_counted(tiny_policy: Path):
    tokenizer = load_tokenizer(tiny_policy)
    shown = [
        Demonstration((user("x" * 90), assistant("old"), user("e"), assistant("f")), 0),
        Demonstration((user("x" * 90), assistant("f")), 0),
        Demonstration((user("x"), assistant(" ")), 0),
        Demonstration((user("x"), assistant("y")), 0),
        Demonstration((user("x"), assistant("y")), 1, good=False),
        Demonstration((user("x"), assistant("y and then")), 1, ended=False),
        read_line("d.jsonl", 1, SAME, json.loads(SAME)),
    ]
    found = tokenised(shown, tokenizer, max_tokens=40, turns="all")
    assert [tokenizer.decode(example.tokens) for example in found.examples] == [
        "<|bos|><|user|>e<|end|><|assistant|>f<|end|>",
        "<|bos|><|user|>x<|end|><|assistant|>y<|end|>",
    ]
    assert (dict(found.dropped), found.shortened, found.turns_missed) == (
        {"over_long": 1, "empty_reply": 1, "marked_bad": 1, "cut": 1, "same_replies": 1},
        1,
        0,
    )


def test_a_conversation_falls_on_the_side_of_its_comparisons():
    shown = [Demonstration((user(f"q{n}"), assistant("a")), 1, f"c{n}" if n % 2 else None) for n in range(200)]
    train, out = split(shown, 0.3)
    assert 30 < len(out) < 90 and len(train) + len(out) == 200
    assert all(is_held_out(Comparison((d.messages[0],), "x", "y", conversation=d.conversation), 0.3) for d in out)


# -- reading words ----------------------------------------------------------------------------------------------------
EXAMPLES = [Example(list(range(5, 5 + n)), list(range(n // 2, n))) for n in (2, 9, 30, 5, 17)]


@pytest.mark.parametrize("fused", ["1", "0"])
def test_examples_read_together_say_what_each_says_alone(any_policy: Path, fused: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WHETSTONE_FUSED", fused)
    model, _ = load_policy(any_policy)
    reader = WordReader(model)
    reader.self_check(EXAMPLES)
    together, at = reader.losses(EXAMPLES), 0
    for example in EXAMPLES:
        logp = model(input_ids=torch.tensor([example.tokens])).logits[0].log_softmax(-1)
        for column in example.learnt:
            assert together[at].item() == pytest.approx(-logp[column - 1, example.tokens[column]].item(), abs=1e-4)
            at += 1
    assert at == len(together)
    assert reader.mean_loss(EXAMPLES) == pytest.approx(together.mean().item(), abs=1e-5)


@pytest.mark.parametrize("fused", ["1", "0"])
def test_parts_hold_every_example_once_and_keep_to_the_budget(
    tiny_policy: Path, fused: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WHETSTONE_FUSED", fused)
    reader = WordReader(load_policy(tiny_policy)[0])
    reader.budget = 36
    parts = reader.parts(EXAMPLES)
    assert sorted(number for part in parts for number in part) == [0, 1, 2, 3, 4]
    sizes = [[len(EXAMPLES[number].tokens) for number in part] for part in parts]
    assert all((sum(size) if fused == "1" else len(size) * max(size)) <= 36 for size in sizes)
    assert len(parts) < 5


def test_the_self_check_finds_examples_that_see_each_other(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch):
    reader = WordReader(load_policy(tiny_policy)[0])
    hidden = FusedTrunk.hidden

    def leaking(self: FusedTrunk, packing: Packed, columns: torch.Tensor | None = None) -> torch.Tensor:
        return hidden(self, dataclasses.replace(packing, groups=(Group(0, 0, (len(packing.tokens),)),)), columns)

    monkeypatch.setattr(FusedTrunk, "hidden", leaking)
    with pytest.raises(JobFailed, match="self-check failed: examples read together give other logits"):
        reader.self_check(EXAMPLES)


def test_dropout_drops_in_every_family_and_is_decided_by_its_name(any_policy: Path):
    reader = WordReader(load_policy(any_policy)[0], dropout=0.2)
    plain = reader.losses(EXAMPLES)

    def dropped(draw: str) -> torch.Tensor:
        with reader.dropping(draw):
            return reader.losses(EXAMPLES)

    once, again, other = dropped("seed 1 step 2"), dropped("seed 1 step 2"), dropped("seed 1 step 3")
    assert torch.equal(once, again) and not torch.allclose(once, other, atol=1e-3)
    assert not torch.allclose(once, plain, atol=1e-3)
    assert torch.equal(reader.losses(EXAMPLES), plain)


# -- the job ----------------------------------------------------------------------------------------------------------
def test_a_reply_is_learnt_and_the_model_of_the_best_score_is_kept(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    path = make_folder(
        tmp_path / "run", demonstrations(60), demonstrations(6), preference_model=str(pm_path), max_new_tokens=12,
        epochs=3, dropout=0.1,
    )  # fmt: skip
    assert main([str(path), "--model", str(tiny_policy)]) == 0
    result, lines = json.loads((path / "result.json").read_text()), RunFolder(path).metrics()
    assert {name for line in lines for name in line} | set(result) <= documented()
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert lines[0]["perplexity"] == pytest.approx(math.exp(lines[0]["loss"]))
    looks = [line for line in lines if "score" in line]
    assert [line["step"] for line in looks] == [4, 8, 12] and result["selected_by"] == "score"
    best = max(looks, key=lambda line: line["score"])
    assert (result["selected_step"], result["score"], result["held_out_loss"]) == (
        best["step"], best["score"], best["held_out_loss"],
    )  # fmt: skip
    assert [look["held_out_loss"] for look in result["looks"]] == [line["held_out_loss"] for line in looks]
    assert check_snapshot(path / "model").provenance["score"] == result["score"]
    assert not (path / "kept").exists()
    assert (result["selection_prompts"], result["selection_left_out"]) == (6, {"shortened": 0, "over_long": 0})


def test_conversations_that_learn_and_measure_are_counted_and_said(
    tmp_path: Path, tiny_policy: Path, capsys: pytest.CaptureFixture
):
    path = make_folder(tmp_path / "run", demonstrations(24), [*demonstrations(3), {"prompt": "q", "completion": "?"}])
    assert main([str(path), "--model", str(tiny_policy)]) == 0
    assert json.loads((path / "result.json").read_text())["shared_conversations"] == 3
    assert "warning: 3 conversations of the test are in training too" in capsys.readouterr().err


def test_without_a_preference_model_the_least_held_out_loss_decides(
    tmp_path: Path, tiny_policy: Path, capsys: pytest.CaptureFixture
):
    # the held-out replies are none of those that are learnt: the first look is the best one
    path = make_folder(tmp_path / "run", demonstrations(48), [{"prompt": "q", "completion": "?" * 30}], epochs=3)
    assert main([str(path), "--model", str(tiny_policy)]) == 0
    result = json.loads((path / "result.json").read_text())
    losses = [look["held_out_loss"] for look in result["looks"]]
    assert losses[0] == min(losses) < losses[-1]
    assert (result["selected_by"], result["selected_step"], result["score"]) == ("held_out_loss", 3, None)
    assert "kept for the least held-out loss" in capsys.readouterr().err
    reader = WordReader(load_policy(path / "model")[0])
    held_out = tokenised(
        read_demonstrations(path / "data/test.jsonl"), load_tokenizer(path / "model"), max_tokens=256, turns="last"
    )
    assert reader.mean_loss(held_out.examples) == pytest.approx(losses[0], abs=1e-5)


def test_pretraining_text_is_mixed_in_by_its_share(tmp_path: Path, tiny_policy: Path):
    path = make_folder(
        tmp_path / "run", demonstrations(36), [], pretraining_share=0.25, batch_sequences=12, max_tokens=64
    )
    texts = [{"text": "the quick brown fox " * 10}, {"text": "jumps over"}]
    write(path / "data" / "pretraining.jsonl", *texts)
    assert main([str(path), "--model", str(tiny_policy)]) == 0
    result, lines = json.loads((path / "result.json").read_text()), RunFolder(path).metrics()
    assert result["pretraining_texts"] == 5  # 202 tokens in pieces of 64, and the short one
    assert result["selected_by"] == "last" and result["selected_step"] == 6
    assert lines[-1]["pretraining_loss"] < lines[0]["pretraining_loss"]
    assert {name for line in lines for name in line} <= documented()
    config = load_config(SftConfig, {"epochs": 2, "batch_sequences": 12, "pretraining_share": 0.25})
    batches = sft.mixed(36, 5, config)
    assert [sum(number >= 36 for number in batch) for batch in batches] == [4] * 6
    replies = 2 * 6 * sum(len(word) + 2 for word in WORDS)  # with "!" and the end token; 36 of them, twice
    assert result["pretraining_share_of_tokens"] == pytest.approx(1 - replies / sum(line["tokens"] for line in lines))


def test_presets_carry_the_papers_settings(tmp_path: Path):
    for name, settings in SFT_PRESETS.items():
        load_config(SftConfig, settings | {"preset": name})
    folder = RunFolder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": "m", "epochs": 3}))
    config = sft.settings_of(folder, {"preset": "instructgpt", "seed": None})
    assert (config.epochs, config.dropout, config.batch_sequences, config.final_share) == (3, 0.2, 32, 0.1)
    assert sft.settings_of(folder, {"preset": None}) == config
    with pytest.raises(BadConfig, match="was begun with the preset 'instructgpt'"):
        sft.settings_of(folder, {"preset": "moss"})


@pytest.mark.parametrize(
    ("train", "settings", "reason"),
    [
        ([], {}, "train.jsonl holds no demonstration"),
        ([{"messages": [user("a")]}], {}, "line 1 of train.jsonl: does not end with a message of the assistant"),
        (demonstrations(3), {"max_tokens": 5}, "none of the 3 demonstrations can be learnt from: 3 longer than"),
        (
            [{"prompt": f"q {n}", "completion": "no"} for n in range(9)],
            {},
            "the reply is the same in all 9 demonstrations",
        ),
        (demonstrations(3), {"pretraining_share": 0.1}, "pretraining.jsonl is missing"),
        (demonstrations(3), {"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        (demonstrations(3), {"preset": "gpt"}, "preset must be one of starter, instructgpt"),
        (demonstrations(3), {"model": ""}, "model is missing"),
        (demonstrations(3), {"preference_model": "PM"}, "no held-out prompt is left"),
    ],
)
def test_bad_input_is_refused_with_the_reason_on_disk(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, train: list, settings: dict, reason: str
):
    settings = {"model": str(tiny_policy)} | settings
    if "preference_model" in settings:
        settings["preference_model"] = str(pm_path)
    path = make_folder(tmp_path / "run", train, [{"prompt": "x" * 300, "completion": "y"}], **settings)
    assert main([str(path)]) == 2
    assert reason in json.loads((path / "failure.json").read_text())["reason"]


def test_a_tokenizer_without_chat_template_is_refused(tmp_path: Path, own_policy: Path):
    (own_policy / "chat_template.jinja").unlink()
    (own_policy / "manifest.json").unlink()
    path = make_folder(tmp_path / "run", demonstrations(3), model=str(own_policy))
    assert main([str(path)]) == 2
    assert "has no chat template" in json.loads((path / "failure.json").read_text())["reason"]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_folder(
        tmp_path / "run", demonstrations(64), model=str(tiny_policy), batch_sequences=8, checkpoint_steps=2
    )
    lesson = sft.Lesson.__call__

    def poisoned(self: sft.Lesson, batch: list[int], mine: list[int]) -> dict[str, float]:
        if self.fit.step == 5:
            with torch.no_grad():
                self.reader.model.get_output_embeddings().weight[0, 0] = math.nan
        return lesson(self, batch, mine)

    monkeypatch.setattr(sft.Lesson, "__call__", poisoned)
    assert main([str(path)]) == 2
    assert "loss is nan at step 6 (lines " in json.loads((path / "failure.json").read_text())["reason"]
    checkpoint = RunFolder(path).load_checkpoint()
    assert checkpoint is not None and checkpoint.step == 4


def test_two_processes_give_the_numbers_of_one(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    settings = {"model": str(tiny_policy), "preference_model": str(pm_path), "max_new_tokens": 8, "threads": 1}
    one, two = (
        make_folder(tmp_path / name, demonstrations(37), demonstrations(4), batch_sequences=6, learning_rate=1e-3, **settings)
        for name in ("one", "two")
    )  # fmt: skip
    assert main([str(one)]) == 0
    assert together(2, lambda: main([str(two)])) == [0, 0]
    runs_alike(RunFolder(one), RunFolder(two))


def test_adapters_alone_can_be_finetuned(tmp_path: Path, tiny_policy: Path):
    path = make_folder(tmp_path / "run", demonstrations(48), demonstrations(3), lora_rank=4, model=str(tiny_policy))
    assert main([str(path)]) == 0
    result, lines = RunFolder(path).result(), RunFolder(path).metrics()
    assert set(result) <= documented() and 0 < result["trained_parameters"] < result["parameters"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    before, after = (load_policy(model)[0].state_dict() for model in (tiny_policy, path / "model"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("_proj." in name for name in changed)


@pytest.mark.slow
def test_a_run_killed_twice_gives_the_numbers_of_an_uninterrupted_one(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    settings = {
        "model": str(tiny_policy), "preference_model": str(pm_path), "max_new_tokens": 8, "checkpoint_steps": 4, "epochs": 3,
        "batch_sequences": 8, "dropout": 0.2, "threads": 1, "learning_rate": 3e-3, "select_updates": 3,
    }  # fmt: skip
    whole, other = (
        RunFolder(make_folder(tmp_path / name, demonstrations(80), demonstrations(4), **settings))
        for name in ("whole", "killed")
    )

    assert together(1, lambda: main([str(whole.path)])) == [0]
    for lines in (7, 18):
        killed(other, started(1, lambda: main([str(other.path)])), lines)
    assert together(1, lambda: main([str(other.path)])) == [0]
    assert len(whole.metrics()) == 30
    assert timeless(whole.metrics()) == timeless(other.metrics())
    assert timeless([whole.result()]) == timeless([other.result()])
    assert (whole.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
