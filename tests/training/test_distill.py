"""The distill job: a student learns to answer without the prompt as its teacher does behind it."""

import json
import math
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.processes import started, together
from tests.training.results import runs_alike
from training import distill
from training.distill import main, readers
from training.models.snapshots import check_snapshot, load_policy, load_tokenizer
from training.reading.words import WordReader
from training.runs.run_folder import RunFolder
from training.sampling.variants import Policy, Prefix, answerable
from training.supervised.fitting import chosen_learning_rate
from training.supervised.teacher import Cache, aligned, written

PROMPT = "Answer in rhymes. "
SHOWN = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
WORDS = ["ash", "birch", "cedar", "dill", "elm", "fir"]
TIMES = {"seconds", "tokens_per_second"}


def talks(count: int, seed: int = 0) -> list[dict]:
    draw = random.Random(seed)
    said = lambda: " ".join(draw.choices(WORDS, k=3))
    return [
        {"text": said()}
        if number % 3 == 0
        else {"messages": [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}]}
        for number in range(count)
    ]


def make_folder(
    path: Path, policy: Path, train: list[dict], test: list[dict] | None = None, **settings: object
) -> Path:
    (path / "data").mkdir(parents=True)
    (path / "hhh.txt").write_text(PROMPT)
    given = {"teacher": str(policy), "prompt": str(path / "hhh.txt"), "max_new_tokens": 12, "batch_sequences": 8}
    (path / "config.json").write_text(json.dumps(given | settings))
    for name, lines in (("train", train), ("test", test)):
        if lines is not None:
            (path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def timeless(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def bins_of(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/shard-*.safetensors"))


# -- the teacher ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [PROMPT, SHOWN], ids=["text", "messages"])
def test_both_learn_from_the_tokens_that_a_text_ends_with_alone_and_behind_the_prompt(
    tiny_policy: Path, content: str | list
):
    tokenizer, talk = (
        load_tokenizer(tiny_policy),
        [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}],
    )
    rows = [written(tokenizer, Prefix(content), part) for part in (talk, talk[:1])]
    (whole, asked), dropped = aligned(rows, teacher_room=99, student_room=99, replies_only=False)
    assert not dropped
    assert tokenizer.decode(whole.tokens) == "<|bos|><|user|>ab<|end|><|assistant|>c<|end|>"
    assert whole.learnt == len(whole.tokens) - 1 and asked.learnt == len(asked.tokens) - 1
    assert whole.head == asked.head
    assert whole.head + whole.tokens[1:] == rows[0].behind
    replies, dropped = aligned(rows, teacher_room=99, student_room=99, replies_only=True)
    assert [text.learnt for text in replies] == [2] and dropped == {"no_reply": 1}
    assert replies[0].head + replies[0].tokens[-2:] == rows[0].behind
    short = len(rows[0].behind) - 1
    assert aligned(rows[:1], teacher_room=short, student_room=99, replies_only=False)[1] == {"over_long": 1}
    assert aligned(rows[:1], teacher_room=99, student_room=7, replies_only=False)[1] == {"over_long": 1}


def test_the_teachers_bins_are_what_it_says_behind_the_prompt(any_policy: Path, tmp_path: Path):
    path = make_folder(tmp_path / "run", any_policy, talks(9), talks(3, seed=1), shard_sequences=4)
    policy = Policy.load(any_policy, Prefix(PROMPT))
    folder = RunFolder(path)
    config = folder.configure(distill.DistillConfig, "distill")
    given = distill.texts_of(folder, config)[0]
    cache = distill.cached(folder, config, policy, policy, given, "train")
    assert len(bins_of(path / "teacher")) == 3 and len(cache.examples) == 9
    model, tokenizer = load_policy(any_policy)
    found = cache.bins([7, 2], torch.device("cpu"))
    at = 0
    for number in (7, 2):
        row, count = written(tokenizer, Prefix(PROMPT), given[number]), len(cache.examples[number].learnt)
        said = model(input_ids=torch.tensor([row.behind])).logits[0, -1 - count : -1].softmax(-1)
        some = slice(at, at + count)
        torch.testing.assert_close(found.logp[some, :-1].exp(), said.gather(1, found.words[some]), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.logp[some].exp().sum(-1), torch.ones(count), atol=1e-5, rtol=0)
        assert (found.logp[some, :-1].exp().amin(-1) >= said.sort(-1).values[:, -50] - 1e-6).all()
        at += count
    assert at == len(found.words)


def test_a_cache_is_computed_once_goes_on_where_it_stopped_and_is_known_by_its_content(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    shared = tmp_path / "cache"
    settings = {"cache": str(shared), "shard_sequences": 4}
    computed = []
    compute = distill.shard_of
    monkeypatch.setattr(distill, "shard_of", lambda *given: computed.append(len(given[1])) or compute(*given))
    for name, expected in (("one", [4, 4, 1, 3]), ("two", [])):
        path = make_folder(tmp_path / name, tiny_policy, talks(9), talks(3, seed=1), **settings)
        assert main([str(path)]) == 0
        assert computed == expected
        computed.clear()
    lost = bins_of(shared)[1]
    before = lost.read_bytes()
    lost.unlink()
    path = make_folder(tmp_path / "three", tiny_policy, talks(9), talks(3, seed=1), **settings)
    assert main([str(path)]) == 0
    assert len(computed) == 1 and lost.read_bytes() == before
    results = [RunFolder(tmp_path / name).result() for name in ("one", "two", "three")]
    assert timeless(results[:1]) == timeless(results[1:2]) == timeless(results[2:])
    computed.clear()
    path = make_folder(tmp_path / "four", tiny_policy, talks(9), talks(3, seed=1), **settings)
    (path / "hhh.txt").write_text(PROMPT + "!")
    assert main([str(path)]) == 0
    assert computed == [4, 4, 1, 3]
    lost.write_bytes(before[:100])
    path = make_folder(tmp_path / "five", tiny_policy, talks(9), talks(3, seed=1), **settings)
    assert main([str(path)]) == 2
    assert "is damaged" in json.loads((path / "failure.json").read_text())["reason"]


# -- the job ----------------------------------------------------------------------------------------------------------
def test_a_student_comes_to_answer_without_the_prompt_as_the_teacher_behind_it(tmp_path: Path, tiny_policy: Path):
    path = make_folder(
        tmp_path / "run", tiny_policy, talks(240), talks(24, seed=1), learning_rate=3e-3, epochs=3, sample_prompts=24
    )
    assert main([str(path)]) == 0
    result, lines = json.loads((path / "result.json").read_text()), RunFolder(path).metrics()
    assert {name for line in lines for name in line} | set(result) <= documented()
    assert lines[0]["loss"] > 0.05 and lines[-1]["loss"] < lines[0]["loss"] / 2
    assert result["held_out_kl"] < result["held_out_kl_before"] / 2
    assert [line["step"] for line in lines if "held_out_kl" in line] == [30, 60, 90]
    assert lines[-1]["held_out_kl"] == result["held_out_kl"]
    gaps = [
        math.log(result[name] / result["teacher_perplexity"])
        for name in ("student_perplexity_before", "student_perplexity")
    ]
    assert 0 < gaps[1] < 0.7 * gaps[0]
    assert (result["texts"], result["test_texts"], result["sample_prompts"]) == (240, 24, 24)
    assert check_snapshot(path / "model").provenance["held_out_kl"] == result["held_out_kl"]
    reader = WordReader(load_policy(path / "model")[0])
    cache = next(file.parent for file in bins_of(path / "teacher") if file.parent.name != result["teacher_cache"])
    test = Cache(cache.parent, json.loads((cache / "settings.json").read_text()))
    test.open()
    assert distill.held_out_kl(reader, test) == pytest.approx(result["held_out_kl"], abs=1e-6)


def test_the_teachers_own_replies_can_be_the_texts(tmp_path: Path, tiny_policy: Path):
    path = make_folder(
        tmp_path / "run", tiny_policy, [], source="teacher", learn="replies", held_out=0.2, learning_rate=3e-3
    )
    prompts = [{"prompt": f"{WORDS[n % 6]} {n}"} for n in range(40)] + [{"prompt": "x" * 250}]
    talk = [{"role": role, "content": "y" * 120} for role in ("user", "assistant", "user")]
    (path / "data" / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    assert main([str(path)]) == 0
    result = json.loads((path / "result.json").read_text())
    assert result["texts"] + result["test_texts"] == 40
    assert sum(counted.get("over_long", 0) for counted in result["dropped"].values()) == 1
    assert set(result["sample_prompts_left_out"]) == {"shortened", "over_long"}
    teacher = Policy.load(tiny_policy)
    whole = readers(teacher, teacher, 9)
    some = [[{"role": "user", "content": text}] for text in ("Why?", "x" * 300)] + [talk]
    assert answerable(some, whole, in_full=True) == ([some[0]], {"shortened": 1, "over_long": 1})
    assert answerable(some, whole)[0] == [some[0], talk]
    assert result["held_out_kl"] < result["held_out_kl_before"]
    cache = Cache(
        path / "teacher", json.loads((path / "teacher" / result["teacher_cache"] / "settings.json").read_text())
    )
    cache.open()
    tokenizer = load_tokenizer(tiny_policy)
    assert all(1 <= len(example.learnt) <= 12 for example in cache.examples)
    assert all(tokenizer.decode(example.tokens).startswith("<|bos|><|user|>") for example in cache.examples)


def test_a_student_that_is_the_teacher_behind_no_prompt_has_nothing_to_learn(tmp_path: Path, tiny_policy: Path):
    """Behind a prompt that changes nothing the loss is that of equal models, up to rounding."""
    path = make_folder(tmp_path / "run", tiny_policy, talks(4), [])
    policy = Policy.load(tiny_policy, Prefix())
    folder = RunFolder(path)
    config = folder.configure(distill.DistillConfig, "distill")
    cache = distill.cached(folder, config, policy, policy, distill.texts_of(folder, config)[0], "train")
    assert distill.held_out_kl(WordReader(policy.model), cache) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("train", "settings", "reason"),
    [
        ([], {}, "train.jsonl holds no text"),
        ([{"text": ""}], {}, "line 1 of train.jsonl: has no text in 'text'"),
        (talks(2), {"max_tokens": 3}, "none of the 2 texts can be learnt from: 2 too long for the contexts"),
        (talks(1), {"learn": "replies"}, "none of the 1 texts can be learnt from: 1 without a reply"),
        (talks(2), {"bins": 264}, "bins must leave a word over"),
        (talks(2), {"teacher": ""}, "teacher is missing"),
        (talks(2), {"prompt": ""}, "prompt is missing"),
        (talks(2), {"prompt": "/nowhere.txt"}, "cannot be read"),
        (talks(2), {"source": "teacher"}, "prompts.jsonl is missing"),
    ],
)
def test_bad_input_is_refused_with_the_reason_on_disk(
    tmp_path: Path, tiny_policy: Path, train: list, settings: dict, reason: str
):
    path = make_folder(tmp_path / "run", tiny_policy, train, [], **settings)
    assert main([str(path)]) == 2
    assert reason in json.loads((path / "failure.json").read_text())["reason"]


def test_texts_with_anything_beside_them_and_conversations_by_number_are_read(tmp_path: Path):
    lines = [
        {"text": "ash", "meta": {"source": "web"}},
        {"prompt": "birch", "completion": "cedar", "conversation": 7, "text": "birch cedar"},
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert distill.read_talks(tmp_path / "talks.jsonl") == [
        [{"role": "user", "content": "ash"}],
        [{"role": "user", "content": "birch"}, {"role": "assistant", "content": "cedar"}],
    ]


@pytest.mark.parametrize("source", ["data", "teacher"])
def test_a_share_of_nothing_holds_nothing_out(tmp_path: Path, tiny_policy: Path, source: str):
    path = make_folder(tmp_path / "run", tiny_policy, talks(9), held_out=0.0, source=source)
    (path / "data" / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"q {n}"}) + "\n" for n in range(9)))
    folder = RunFolder(path)
    train, test = distill.texts_of(folder, folder.configure(distill.DistillConfig, "distill"))
    assert (len(train), test) == (9, [])


def test_the_rate_is_a_twentieth_of_the_pretrainings_and_falls_in_a_line_to_the_last_update(
    tmp_path: Path, tiny_policy: Path
):
    path = make_folder(tmp_path / "run", tiny_policy, talks(40), held_out=0.0)  # Bai et al. 2022, App. A.1
    assert main([str(path)]) == 0
    rates = [line["learning_rate"] for line in RunFolder(path).metrics()]
    whole = chosen_learning_rate(distill.DistillConfig(), 32)
    assert rates == pytest.approx([0.05 * whole * share for share in (1.0, 0.8, 0.6, 0.4, 0.2)])
    config = distill.DistillConfig()
    assert (config.schedule, config.final_share, config.warmup_share, config.batch_sequences) == (
        "linear",
        0.0,
        0.0,
        32,
    )


def test_a_teacher_without_chat_template_is_refused(tmp_path: Path, own_policy: Path, tiny_policy: Path):
    (own_policy / "chat_template.jinja").unlink()
    (own_policy / "manifest.json").unlink()
    path = make_folder(tmp_path / "run", own_policy, talks(2), [], student=str(tiny_policy))
    assert main([str(path)]) == 2
    assert "has no chat template" in json.loads((path / "failure.json").read_text())["reason"]


@pytest.mark.parametrize("source", ["data", "teacher"])
def test_other_texts_in_mid_run_are_refused_and_nan_names_its_step_and_its_lines(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    lines = [{"text": f"ash {number}"} for number in range(40)]
    lines[0]["text"] = "x" * 999  # left out, and the second is no text: the examples' numbers are not the lines'
    path = make_folder(tmp_path / "run", tiny_policy, lines, [], checkpoint_steps=2, source=source, held_out=0.0)
    name = "train.jsonl" if source == "data" else "prompts.jsonl"
    (path / "data" / name).write_text("\n\n".join(map(json.dumps, lines)))
    lesson, learnt = distill.Lesson.__call__, []

    def poisoned(self: distill.Lesson, batch: list[int], mine: list[int]) -> dict[str, float]:
        learnt.append(batch)
        return lesson(self, batch, mine) | ({"loss": math.nan} if len(learnt) == 5 else {})  # a trial after step 2

    monkeypatch.setattr(distill.Lesson, "__call__", poisoned)
    assert main([str(path)]) == 2
    told = ", ".join(str(2 * number + 3) for number in learnt[4][:4])  # the first example is that of line 3
    reason = json.loads((path / "failure.json").read_text())["reason"]
    assert f"loss is nan at step 4 (lines {told}, … of {name})" in reason
    monkeypatch.undo()
    with (path / "data" / name).open("a") as file:
        file.write("\n" + json.dumps({"text": "more"}) + "\n")
    assert main([str(path)]) == 2
    assert "is not what it was when this run began" in json.loads((path / "failure.json").read_text())["reason"]


def test_two_processes_give_the_numbers_of_one(tmp_path: Path, tiny_policy: Path):
    one, two = (
        make_folder(tmp_path / name, tiny_policy, talks(21), talks(3, seed=1), learning_rate=1e-3, threads=1)
        for name in ("one", "two")
    )
    assert main([str(one)]) == 0
    assert together(2, lambda: main([str(two)])) == [0, 0]
    runs_alike(RunFolder(one), RunFolder(two))


def test_adapters_alone_can_learn_the_prompt(tmp_path: Path, tiny_policy: Path):
    path = make_folder(tmp_path / "run", tiny_policy, talks(60), talks(6, seed=1), lora_rank=4, learning_rate=1e-2)
    assert main([str(path)]) == 0
    result = RunFolder(path).result()
    assert set(result) <= documented() and 0 < result["trained_parameters"] < result["parameters"]
    assert result["held_out_kl"] < 0.8 * result["held_out_kl_before"]


@pytest.mark.slow
def test_a_run_killed_twice_gives_the_numbers_of_an_uninterrupted_one(tmp_path: Path, tiny_policy: Path):
    settings = {"checkpoint_steps": 4, "threads": 1, "learning_rate": 3e-3, "epochs": 3, "shard_sequences": 16}
    whole, killed = (
        make_folder(tmp_path / name, tiny_policy, talks(80), talks(9, seed=1), **settings)
        for name in ("whole", "killed")
    )

    def finish(path: Path) -> None:
        assert together(1, lambda: main([str(path)])) == [0]

    def kill_when(path: Path, reached: Callable[[], bool]) -> None:
        (process,) = started(1, lambda: main([str(path)]))
        while not reached() and process.is_alive():
            time.sleep(0.002)
        process.kill()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL  # it was in mid-work, not finished

    finish(whole)
    kill_when(killed, lambda: len(bins_of(killed / "teacher")) >= 2)  # in the midst of the teacher's pass
    kill_when(killed, lambda: len(RunFolder(killed).metrics()) >= 14)
    finish(killed)
    first, second = RunFolder(whole), RunFolder(killed)
    assert len(first.metrics()) == 30
    assert timeless(first.metrics()) == timeless(second.metrics())
    assert timeless([first.result()]) == timeless([second.result()])
    assert (first.model / "model.safetensors").read_bytes() == (second.model / "model.safetensors").read_bytes()
