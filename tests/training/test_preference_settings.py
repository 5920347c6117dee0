"""The preference job's objectives, stages, splits and presets, each run once at tiny scale."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.documented import documented
from tests.training.test_preference import WORDS, comparisons, make_folder, timeless
from training import preference
from training.config import BadConfig, PreferenceConfig, load_config
from training.config.preference import PRESETS
from training.data.feedback import parse_feedback, read_data, read_experts
from training.failure import JobFailed
from training.lines.records import Comparison
from training.models.models import PreferenceModel
from training.models.snapshots import check_snapshot, load_policy
from training.preference import learning_rate, main, settings_of, started
from training.runs.run_folder import RunFolder


def rankings(count: int, seed: int = 0, **beside: object) -> list[dict]:
    """Rankings of four replies by their number of exclamation marks; the last two are tied."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        marks = ["!!", "!", ".", ","]
        replies = [" ".join(draw.choices(WORDS, k=draw.randint(1, 3))) + mark for mark in marks]
        places = draw.sample(range(4), 4)
        made.append(
            {
                "prompt": f"{draw.choice(WORDS)} {number}",
                "replies": [replies[place] for place in places],
                "ranks": [(1, 2, 3, 3)[place] for place in places],
                **beside,
            }
        )
    return made


def marked(count: int, seed: int = 0) -> list[dict]:
    return [
        {"prompt": pair["prompt"], "reply": pair[side], "good": side == "chosen"}
        for pair, side in zip(comparisons(count, seed), ["chosen", "rejected"] * count, strict=False)
    ]


def result_of(path: Path, policy: Path | str, train: list[dict], test: list[dict] | None = None, **how: object) -> dict:
    folder = RunFolder(make_folder(path, train, test, model=str(policy), **how))
    assert main([str(path)]) == 0, (path / "failure.json").read_text()
    names: set[str] = {*folder.result(), *folder.metrics()[0]}
    for name in ("accuracy_by_margin", "accuracy_by_threshold"):
        for item in folder.result()[name]:
            names |= set(item)
    assert names <= documented()
    return folder.result()


def failure_of(path: Path, train: list[dict], test: list[dict] | None = None, **how: object) -> str:
    make_folder(path, train, test, **how)
    assert main([str(path)]) == 2
    return json.loads((path / "failure.json").read_text())["reason"]


def test_rankings_and_comparisons_are_learnt_in_one_file(tmp_path: Path, tiny_policy: Path):
    test = rankings(20, seed=1, mode="helpful") + comparisons(10, seed=2)
    train = rankings(100) + comparisons(60, seed=3)
    result = result_of(tmp_path / "run", tiny_policy, train, test, margin_bands=5)
    assert (result["prompts"], result["pairs"], result["updates"]) == (160, 100 * 5 + 60, 10)
    assert result["test_pairs"] == 20 * 5 + 10 and result["accuracy"] > 0.8
    assert result["accuracy_by_mode"]["helpful"]["pairs"] == 100
    assert [band["pairs"] for band in result["accuracy_by_margin"]] == [22] * 5
    assert result["accuracy_by_margin"][-1]["accuracy"] >= result["accuracy_by_margin"][0]["accuracy"]
    assert result["accuracy_by_turn"]["1"]["pairs"] == 110
    counts = [item["pairs"] for item in result["accuracy_by_threshold"]]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_pooled_makes_as_many_updates_of_as_many_pairs(tmp_path: Path, tiny_policy: Path):
    result = result_of(tmp_path / "run", tiny_policy, rankings(64), [], grouping="pooled")
    assert (result["prompts"], result["pairs"], result["updates"]) == (64, 320, 4)


def test_good_and_bad_are_told_apart_by_the_sign(tmp_path: Path, tiny_policy: Path):
    train = comparisons(120) + marked(60, seed=5)
    result = result_of(tmp_path / "run", tiny_policy, train, comparisons(20, seed=1) + marked(9, 7), objective="binary")
    assert result["updates"] == round(300 / round(16 * 300 / 180))
    assert result["binary_accuracy"] > 0.8 and result["binary_log_loss"] < 0.6
    assert (result["test_replies"], result["test_pairs"]) == (49, 20) and result["accuracy"] > 0.8


def test_imitation_ranks_by_words_and_writes_a_policy(tmp_path: Path, tiny_policy: Path):
    path = tmp_path / "run"
    result = result_of(path, tiny_policy, comparisons(200), comparisons(30, seed=1), objective="imitation", epochs=2)
    losses = [line["loss"] for line in RunFolder(path).metrics()]
    assert losses[0] > 4 and losses[-1] < losses[0] - 0.5
    assert result["accuracy"] > 0.6  # "!" has been read more often than "."
    assert result["log_loss"] is None and result["online_accuracy"] is None and "shift" not in result
    assert check_snapshot(path / "model").kind == "policy"
    before, after = load_policy(tiny_policy)[0], load_policy(path / "model")[0]
    assert not torch.equal(before.get_output_embeddings().weight, after.get_output_embeddings().weight)


def answers(count: int) -> list[dict]:
    made = []
    for number, pair in enumerate(comparisons(count)):
        good, bad = (pair[side][0]["content"] for side in ("chosen", "rejected"))
        texts = [{"text": bad, "upvotes": number % 2}, {"text": good, "upvotes": 6 + number % 9, "accepted": True}]
        made.append({"prompt": pair["prompt"], "answers": texts})
    return made


def test_pretraining_comes_before_finetuning(tmp_path: Path, tiny_policy: Path):
    first = tmp_path / "pmp"
    result = result_of(first, tiny_policy, [*answers(40), {"prompt": "a", "answers": []}], [], preset="pmp")
    assert (result["pairs"], result["dropped"]["train"]) == (80, {"too_few_answers": 1})
    ranked = result_of(tmp_path / "ranked", tiny_policy, answers(40), [], preset="pmp", pmp_pairs="ranked")
    assert ranked["pairs"] == 40
    pm, _ = PreferenceModel.load(first / "model")
    kept, renewed = (
        started(PreferenceConfig(model=str(first / "model"), start_head=head, seed=3)).model
        for head in ("keep", "renew")
    )
    assert torch.equal(kept.head.weight, pm.head.weight)
    assert torch.equal(renewed.head.weight, PreferenceModel.from_policy(tiny_policy, seed=3)[0].head.weight)
    for one, other, begun in zip(*(m.backbone.parameters() for m in (kept, renewed, pm)), strict=True):
        assert torch.equal(one, begun) and torch.equal(other, begun)
    finetuned = result_of(tmp_path / "second", first / "model", comparisons(48), comparisons(10, seed=1))
    assert finetuned["test_pairs"] == 10
    assert check_snapshot(tmp_path / "second/model").provenance["started_from"] == "model"


def test_the_rates_of_the_stages():
    rate = lambda **how: learning_rate(PreferenceConfig(**how), 4096)
    assert rate(stage="pmp", lm_learning_rate=2e-4) == pytest.approx(2e-5)
    assert rate(lm_learning_rate=2e-4) == pytest.approx(2e-6)
    assert rate(lm_learning_rate=2e-4, learning_rate=7e-4) == 7e-4 and rate() == 1e-5


@pytest.mark.parametrize(("preset", "share"), [("pmp", "0.1"), ("hh_rlhf", "0.01")])
def test_a_presets_rate_that_nobody_named_is_told(preset: str, share: str, capsys: pytest.CaptureFixture):
    config = load_config(PreferenceConfig, PRESETS[preset] | {"preset": preset})
    assert learning_rate(config, 128) == 1e-3
    said = f"the preset {preset} asks for {share} of the rate of pretraining, and lm_learning_rate does not name it"
    assert f"{said}; the rate is 0.001, by the model's width" in capsys.readouterr().err
    for named in ({"lm_learning_rate": 1e-3}, {"learning_rate": 1e-4}, {"preset": "starter"}):
        learning_rate(dataclasses.replace(config, **named), 128)
    assert capsys.readouterr().err == ""


def test_the_language_term_goes_on_where_the_vocabulary_head_is_the_embedding(tmp_path: Path, built_policies: Any):
    models = {}
    for family in ("gpt2", "llama"):  # GPT-2's are tied, this Llama's are not
        model, tokenizer = PreferenceModel.from_policy(built_policies(family), seed=1, words=True)
        model.save(tmp_path / family, tokenizer)
        models[family] = model
    again = started(PreferenceConfig(model=str(tmp_path / "gpt2"), lm_weight=1.0)).model
    states, words = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 3])
    assert torch.allclose(again.word_losses(states, words), models["gpt2"].word_losses(states, words))
    reason = failure_of(tmp_path / "run", comparisons(9), [], model=str(tmp_path / "llama"), lm_weight=1.0)
    assert "without a vocabulary head, which the language loss needs" in reason
    reason = failure_of(tmp_path / "copy", comparisons(9), [], model=str(tmp_path / "gpt2"), objective="imitation")
    assert "imitation trains a policy" in reason


@pytest.mark.parametrize("on", ["held_out", "demonstrations"])
def test_scores_average_nothing_where_it_is_asked_for(tmp_path: Path, tiny_policy: Path, on: str):
    path, shown = tmp_path / "run", [{"prompt": "elm", "completion": "ash!"}, {"prompt": "fir", "completion": "dill!"}]
    (path / "data").mkdir(parents=True)
    (path / "data" / "demonstrations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shown))
    test = comparisons(20, seed=1)
    for name, lines in (("train", comparisons(32)), ("test", test)):
        (path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "config.json").write_text(json.dumps({"model": str(tiny_policy), "shift_on": on, "learning_rate": 3e-3}))
    assert main([str(path)]) == 0
    start = started(PreferenceConfig(model=str(path / "model")))
    reader = preference.Reader(start.model, pad=start.tokenizer.pad_token_id)
    pairs = [parse_feedback(json.dumps(line), 1) for line in test]
    if on == "demonstrations":
        pairs = preference.read_demonstrated(RunFolder(path))
    scores = preference.flat(reader, preference.in_tokens(pairs, start.tokenizer, reader, PreferenceConfig()).ranked)
    assert scores.mean().item() == pytest.approx(start.model.shift, abs=1e-4)
    train = [parse_feedback(json.dumps(line), 1) for line in comparisons(32)]
    scores = preference.flat(reader, preference.in_tokens(train, start.tokenizer, reader, PreferenceConfig()).ranked)
    assert scores.std(correction=0).item() == pytest.approx(start.model.scale, rel=1e-4)
    assert abs(scores.mean().item() - start.model.shift) > 1e-3  # or the test would say nothing


def test_a_fold_holds_people_out_and_measures_the_others_too(tmp_path: Path, tiny_policy: Path):
    lines = [line | {"person": f"person {n % 10}"} for n, line in enumerate(comparisons(200))]
    how = {"split_by": "person", "folds": 5, "fold": 1, "held_out": 0.2}
    result = result_of(tmp_path / "run", tiny_policy, lines, **how)
    assert result["test_pairs"] == 40  # two of ten people
    assert result["in_group"]["test_pairs"] + result["pairs"] == 160
    assert 15 < result["in_group"]["test_pairs"] < 50 and result["in_group"]["accuracy"] > 0.5


def test_it_is_held_against_experts_and_never_learns_them(tmp_path: Path, tiny_policy: Path):
    train, test = comparisons(48, distribution="base"), comparisons(10, seed=1, distribution="online")
    alone = result_of(tmp_path / "alone", tiny_policy, train, test)
    path = make_folder(tmp_path / "run", train, test, model=str(tiny_policy))
    wrong = [line | {"chosen": line["rejected"], "rejected": line["chosen"]} for line in comparisons(4, seed=2)]
    experts = comparisons(10, seed=1) + wrong
    experts += [comparisons(1)[0] | {"chosen": [{"role": "assistant", "content": "word " * 900}]}]
    (path / "data" / "experts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in experts))
    assert main([str(path)]) == 0
    result = RunFolder(path).result()
    told = result["experts"]
    # the test's own ten pairs, told as well as there, and four more that are the wrong way round
    assert told["test_pairs"] == 14
    assert 0 <= round(told["accuracy"] * 14) - round(alone["accuracy"] * 10) <= 4
    assert result["dropped"]["experts"] == {"over_long": 1} and result["shortened"]["experts"] == 0
    assert {name: alone[name] for name in ("accuracy", "log_loss", "shift", "scale")} == {
        name: result[name] for name in ("accuracy", "log_loss", "shift", "scale")
    }
    assert "experts" not in alone and "experts" not in alone["dropped"]
    assert result["accuracy_by_distribution"].keys() == {"online"}


def test_experts_are_read_as_the_stage_reads_its_pairs(tmp_path: Path):
    path = make_folder(tmp_path / "run", [])
    folder, pmp = RunFolder(path), PreferenceConfig(model="m", stage="pmp")
    assert read_experts(folder, pmp) == []
    (path / "data" / "experts.jsonl").write_text(json.dumps(comparisons(1)[0]))
    (plain,) = read_experts(folder, PreferenceConfig(model="m"))
    assert isinstance(plain, Comparison)
    tagged = [(pair.chosen, pair.rejected) for pair in read_experts(folder, pmp) if isinstance(pair, Comparison)]
    assert tagged == [
        (f"GOOD:{plain.chosen}", f"BAD:{plain.chosen}"),
        (f"BAD:{plain.rejected}", f"GOOD:{plain.rejected}"),
    ]


def test_scores_may_be_shifted_alone(tmp_path: Path, tiny_policy: Path):
    divided, shifted = (
        result_of(tmp_path / how, tiny_policy, comparisons(16), comparisons(4, seed=1), scale=how)
        for how in ("deviation", "none")
    )
    assert (shifted["scale"], shifted["shift"]) == (1.0, divided["shift"]) and divided["scale"] != 1.0
    assert shifted["log_loss"] == divided["log_loss"]
    norm = json.loads((tmp_path / "none" / "model" / "preference.json").read_text())
    assert norm == {"shift": shifted["shift"], "scale": 1.0}


def test_two_halves_train_on_what_the_other_does_not(tmp_path: Path, tiny_policy: Path):
    a, b = (
        result_of(tmp_path / half, tiny_policy, comparisons(80), comparisons(4, seed=1), half=half)
        for half in ("a", "b")
    )
    assert a["pairs"] + b["pairs"] == 80 and min(a["pairs"], b["pairs"]) > 20


@pytest.mark.parametrize(
    ("train", "settings", "reason"),
    [
        ([line | {"good": True} for line in marked(9)], {"objective": "binary"}, "every reply is marked good"),
        ([line | {"good": False} for line in marked(9)], {"objective": "imitation"}, "9 marked bad, which imitation"),
        (marked(9), {}, "9 marked replies, which only the objective 'binary' learns from"),
        ([line | {"ranks": [2, 2, 2, 2]} for line in rankings(9)], {}, "9 with no reply better than another"),
        ([line | {"chosen": "no"} | {"rejected": f"yes {n}"} for n, line in enumerate(comparisons(9))], {},
         "the best reply is the same in all 9 examples"),
        ([line | {"rejected": "no"} | {"chosen": f"yes {n}"} for n, line in enumerate(comparisons(9))], {},
         "the worst reply is the same in all 9 examples"),
        ([line | {"rejected": "no"} | {"chosen": f"yes {n}"} for n, line in enumerate(comparisons(9))],
         {"objective": "binary"}, "the bad reply is the same in all 9 examples"),
        ([line | {"reply": "no" if line["good"] else f"yes {n}"} for n, line in enumerate(marked(18))],
         {"objective": "binary"}, "the good reply is the same in all 9 examples"),
        ([line | {"chosen": "no"} | {"rejected": f"yes {n}"} for n, line in enumerate(comparisons(9))],
         {"objective": "imitation"}, "the good reply is the same in all 9 examples"),
        ([line | {"chosen": "no"} | {"rejected": f"yes {n}"} for n, line in enumerate(comparisons(9))],
         {"stage": "pmp"}, "the better reply of the pairs is the same in all 9 examples"),
        ([line | {"rejected": "no"} | {"chosen": f"yes {n}"} for n, line in enumerate(comparisons(9))],
         {"stage": "pmp"}, "the worse reply of the pairs is the same in all 9 examples"),
        (rankings(3), {"max_tokens": 4}, "3 longer than the model can read"),
        (answers(3), {}, "they are for preference-model pretraining: stage pmp"),
        (comparisons(9), {"split_by": "person"}, "a record names none"),
        (comparisons(9), {"shift_on": "demonstrations"}, "demonstrations.jsonl is missing"),
        (comparisons(9), {"shift_on": "held_out", "held_out": 0.0}, "nothing was held out"),
        (comparisons(9), {"preset": "best"}, "preset must be one of starter, hh_rlhf, instructgpt, pmp, moss"),
        (comparisons(9, mode="helpful"), {"mode_weights": {"helpful": 0}}, "everything in the data the weight 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_refused(tmp_path: Path, tiny_policy: Path, train: list, settings: dict, reason: str):
    test = None if "split_by" in settings else []
    assert reason in failure_of(tmp_path / "run", train, test, model=str(tiny_policy), **settings)


def test_a_model_without_chat_template_is_refused(tmp_path: Path, own_policy: Path):
    (own_policy / "chat_template.jinja").unlink()
    (own_policy / "manifest.json").unlink()
    assert "has no chat template" in failure_of(tmp_path / "run", comparisons(9), [], model=str(own_policy))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode_weights": {"helpful": -1}}, "mode_weights['helpful'] must be at least 0"),
        ({"mode_weights": {"helpful": "much"}}, "mode_weights.helpful must be a number"),
        ({"strength_margins": [1, 2]}, "needs a number for each of 4 strengths"),
        ({"folds": 5, "fold": 5}, "fold must lie between 0 and folds - 1"),
        ({"folds": 1}, "folds be 0 or at least 2"),
        ({"objective": "imitation", "shift_on": "held_out"}, "imitation trains a policy"),
        ({"objective": "imitation", "stage": "pmp"}, "would learn to write the tags"),
        ({"objective": "imitation", "lm_weight": 1.0}, "lm_weight would weigh nothing"),
        ({"stage": "pmp", "pmp_pairs": "binarised", "lm_weight": 1.0}, "lm_weight would teach to write"),
        ({"objective": "binary", "strength_as": "margin"}, "strength_as 'margin' is about pairs"),
        ({"objective": "imitation", "grouping": "pooled"}, "grouping 'pooled' is about pairs"),
        ({"batch_prompts": 0}, "batch_prompts must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, reason: str):
    with pytest.raises(BadConfig) as raised:
        load_config(PreferenceConfig, settings)
    assert reason in str(raised.value)


def test_a_half_by_person_measures_novelty_on_its_own_people_alone(tmp_path: Path):
    lines = [
        line | {"person": f"person {number % 20}", "conversation": f"conversation {number}"}
        for number, line in enumerate(comparisons(400))
    ]
    folder = RunFolder(make_folder(tmp_path / "run", lines))
    config = PreferenceConfig(split_by="person", half="a", held_out=0.3)
    train, test, in_group = ({record.person for record in part} for part in read_data(folder, config))
    assert in_group and in_group <= train and not test & train


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_give_way_to_what_is_named(preset: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"preset": preset, "batch_prompts": 5}))
    config = settings_of(RunFolder(tmp_path), {"model": "m", "preset": None})
    assert (config.preset, config.batch_prompts, config.model) == (preset, 5, "m")
    for name, value in PRESETS[preset].items():
        assert name == "batch_prompts" or getattr(config, name) == value
    other = "moss" if preset == "starter" else "starter"
    with pytest.raises(BadConfig, match=f"begun with the preset '{preset}'"):
        settings_of(RunFolder(tmp_path), {"preset": other})


@pytest.mark.parametrize(
    "settings",
    [{"lm_weight": 0.5}, {"grouping": "pooled", "mode_weights": {"helpful": 2.0}}, {"objective": "binary"},
     {"objective": "imitation"}, {"stage": "pmp"}],
    ids="-".join,
)  # fmt: skip
def test_a_killed_run_goes_on_to_the_same_numbers(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch, settings: dict
):
    train = rankings(16, mode="helpful") + comparisons(16, seed=1)
    how = {"checkpoint_steps": 2, "batch_prompts": 8, "model": str(tiny_policy), **settings}
    whole, stopped = (
        make_folder(tmp_path / name, train, comparisons(4, seed=2), **how) for name in ("whole", "stopped")
    )
    assert main([str(whole)]) == 0

    class Killed(BaseException):
        pass

    update = preference.Fit.update

    def dying(self: preference.Fit, batch: list[int]) -> dict[str, float]:
        if self.step == 3:
            raise Killed
        return update(self, batch)

    monkeypatch.setattr(preference.Fit, "update", dying)
    with pytest.raises(Killed):
        main([str(stopped)])
    monkeypatch.undo()
    assert main([str(stopped)]) == 0
    folders = RunFolder(whole), RunFolder(stopped)
    assert len(folders[0].metrics()) >= 4
    assert timeless(folders[0].metrics()) == timeless(folders[1].metrics())
    assert timeless([folders[0].result()]) == timeless([folders[1].result()])


def test_a_weight_for_a_mode_that_is_not_there_is_told(
    tmp_path: Path, tiny_policy: Path, capsys: pytest.CaptureFixture
):
    train = comparisons(9, mode="helpful") + comparisons(9, seed=1, mode="red_team")
    result_of(tmp_path / "run", tiny_policy, train, [], mode_weights={"red_team": 3, "redteam": 2})
    assert "mode_weights names redteam, a mode that nothing in the data has" in capsys.readouterr().err
    assert RunFolder(tmp_path / "run").settings()["mode_weights"] == {"red_team": 3.0, "redteam": 2.0}


def test_a_folder_of_a_version_before_presets_goes_on(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"job": "preference", "code_version": "old", "model": "m"}))
    assert settings_of(RunFolder(tmp_path), {}).preset == "starter"


def test_an_empty_part_is_told_from_bad_data(tmp_path: Path, tiny_policy: Path):
    lines = [line | {"conversation": "one"} for line in comparisons(9)]
    folder = RunFolder(make_folder(tmp_path / "run", lines, held_out=1.0, model=str(tiny_policy)))
    with pytest.raises(JobFailed, match="the training part is empty"):
        preference.train(folder, settings_of(folder, {}))
