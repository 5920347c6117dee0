"""PPO on tiny random models: it climbs, it resumes to the same numbers, and it refuses to start on a false footing."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.policy_runs import folder_of, run_of
from tests.training.processes import killed, started
from training import policy
from training.config import BadConfig, PolicyConfig, load_config
from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.models.snapshots import check_snapshot, load_policy, save_policy
from training.policy import settings_of
from training.ppo.presets import PRESETS
from training.ppo.rates import rate_share
from training.runs.run_folder import RunFolder

WATCHED = {
    "step", "of", "score_mean", "reward_mean", "kl", "kl_k3", "kl_per_token", "length_mean", "entropy", "clip_fraction",
    "approx_kl", "explained_variance", "value_loss", "policy_loss", "perplexity", "eos_share", "seconds",
}  # fmt: skip


def timeless(folder: RunFolder) -> list[dict]:
    return [{name: number for name, number in line.items() if name != "seconds"} for line in folder.metrics()]


def digest(folder: RunFolder) -> dict:
    return json.loads((folder.model / "manifest.json").read_text())["files"]["model.safetensors"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_policy: Path, pm_path: Path) -> RunFolder:
    """An uninterrupted small run."""
    folder = folder_of(tmp_path_factory.mktemp("runs") / "whole", tiny_policy, pm_path)
    assert policy.main([str(folder.path)]) == 0
    return folder


def test_a_run_leaves_metrics_a_servable_model_and_a_result(whole: RunFolder) -> None:
    lines = whole.metrics()
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[-1]) >= WATCHED
    assert all(line["of"] == 4 for line in lines)
    # The critic alone learns first: the second rollout is still the initial policy's.
    assert [line["critic_only"] for line in lines] == [1, 0, 0, 0]
    assert abs(lines[0]["kl_k3"]) < 1e-4 and abs(lines[1]["kl_k3"]) < 1e-4 < lines[3]["kl_k3"]
    assert check_snapshot(whole.model).kind == "policy"
    result = whole.result()
    assert result["episodes"] == 48
    assert result["kl_k3"] > 0
    assert result["win_rate_ci95"][0] <= result["win_rate"] <= result["win_rate_ci95"][1]
    assert result["self_check"]["sampler_gap"] < 1e-4
    assert max(line["sampler_gap"] for line in lines) < 1e-4
    assert {*lines[0], *lines[-1], *result, *result["self_check"]} <= documented()


def test_the_sampler_is_no_wider_than_prompts_and_replies_ask_for(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path))
    longest = max(map(len, [*run.prompts.train, *run.prompts.held_out]))
    assert run.engine.max_length == longest + run.config.max_new_tokens < run.policy.config.max_position_embeddings


def test_every_weight_of_the_policy_moved(whole: RunFolder, tiny_policy: Path) -> None:
    new, old = load_policy(whole.model)[0], load_policy(tiny_policy)[0]
    pairs = zip(new.named_parameters(), old.parameters(), strict=True)
    assert [name for (name, after), before in pairs if torch.equal(after, before)] == []


def test_what_died_midway_goes_on_to_the_same_numbers(
    whole: RunFolder, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    folder = folder_of(tmp_path / "cut", tiny_policy, pm_path)
    run = run_of(folder)
    run.gaps = run.self_check()
    for iteration in range(3):  # step 3 is logged and half of its successor's work would be lost
        folder.log(step=iteration + 1, of=4, **run.iterate(iteration))
        if iteration == 1:
            run.save(2)
    assert policy.main([str(folder.path)]) == 0
    assert timeless(folder) == timeless(whole)
    assert digest(folder) == digest(whole)
    assert folder.result()["win_rate"] == whole.result()["win_rate"]
    assert folder.result()["self_check"] == run.gaps


@pytest.mark.slow
def test_kill_nine_and_restart_equal_an_uninterrupted_run(
    whole: RunFolder, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    folder = folder_of(tmp_path / "killed", tiny_policy, pm_path)
    for steps in (1, 3):
        killed(folder, started(1, lambda: policy.main([str(folder.path)])), steps)
    # as its owner would start it
    command = [sys.executable, "-m", "training.policy", str(folder.path)]
    environment = os.environ | {"PYTHONPATH": str(Path(policy.__file__).parents[1])}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert timeless(folder) == timeless(whole)
    assert digest(folder) == digest(whole)


EVERYTHING = {
    "ptx": {"ptx_weight": 2.0, "ptx_ratio": 0.5, "ptx_tokens": 16},
    "average": {"weight_average": 0.9},
    "groups": {"groups": 2, "group_kl": True, "group_policy_weight": 0.1, "group_balance": 0.1, "critic": "shared"},
    "attached groups": {"groups": 3, "group_features": "critic", "group_policy_weight": 0.1},
    "adaptive KL": {"kl_target": 0.01, "kl_horizon": 32.0, "kl_unit": "reply"},
    "schedules": {"schedule": "inverse_sqrt", "critic_pretraining": 3, "critic_pretraining_patience": 1,
                  "critic_learning_rate": 0.0, "prompt_weights": {"helpful": 2, "red_team": 1}, "buffer_rollouts": 2,
                  "rollout_replies": 8},
    "off": {"importance_sampling": "off", "clip": 0.0, "entropy_weight": 0.01, "entropy_threshold": 4.0,
            "missing_end": "replace", "critic": "policy", "advantage_clip": 0.5, "dual_clip": 3.0},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYTHING)
def test_whatever_is_switched_on_a_resumed_run_goes_on_to_the_same_numbers(
    name: str, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    """The second process begins at the checkpoint of step 2, after step 3 had been logged."""
    folders = [folder_of(tmp_path / which, tiny_policy, pm_path, **EVERYTHING[name]) for which in ("whole", "cut")]
    for folder in folders:
        (folder.data / "pretraining.jsonl").write_text('{"text": "The river rises."}\n{"text": "Bread needs salt."}\n')
        modes = ("helpful", "red_team", "helpful")
        lines = [json.dumps({"prompt": f"Number {n}", "mode": modes[n % 3]}) for n in range(24)]
        (folder.data / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    whole, cut = folders
    assert policy.main([str(whole.path)]) == 0
    assert {key for line in whole.metrics() for key in line} | set(whole.result()) <= documented()
    run = run_of(cut)
    run.gaps = run.self_check()
    for iteration in range(3):
        cut.log(step=iteration + 1, of=run.iterations, **run.iterate(iteration))
        if iteration == 1:
            run.save(2)
    assert policy.main([str(cut.path)]) == 0
    assert [{**line, "of": 0} for line in timeless(cut)] == [{**line, "of": 0} for line in timeless(whole)]
    assert digest(cut) == digest(whole)


@pytest.mark.slow
def test_rewards_climb(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    """A random policy hardly ever ends a reply; where that costs more than all else it must learn to."""
    folder = folder_of(tmp_path / "climb", tiny_policy, pm_path, episodes=384, rollout_replies=32, minibatch_replies=16,
                       learning_rate=1e-2, missing_end_penalty=5.0, kl_weight=0.0, schedule="constant",
                       warmup_iterations=0)  # fmt: skip
    assert policy.main([str(folder.path)]) == 0
    lines = folder.metrics()
    first, last = (sum(line["reward_mean"] for line in part) / 3 for part in (lines[:3], lines[-3:]))
    assert last > first + 2
    assert lines[-1]["eos_share"] > lines[0]["eos_share"] + 0.4
    assert lines[-1]["length_mean"] < lines[0]["length_mean"]


@pytest.mark.slow
def test_a_heavier_kl_weight_keeps_the_policy_nearer(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    kl = []
    for weight in (0.0, 2.0):
        folder = folder_of(tmp_path / str(weight), tiny_policy, pm_path, episodes=160, kl_weight=weight)
        assert policy.main([str(folder.path)]) == 0
        kl.append(folder.result()["kl_k3"])
    assert kl[1] < kl[0]


def test_what_is_learnt_from_is_the_score_to_come_less_the_divergence_to_come(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    """With γ = λ = 1 the target at a token is all that is still to come, which plain forward passes tell as well."""
    plain = {"gamma": 1.0, "lam": 1.0, "whiten_advantages": False, "score_normalisation": "none", "score_clip": 0.0}
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0, kl_weight=0.5,
                           missing_end_penalty=2.0, **plain))  # fmt: skip
    with torch.no_grad():
        words = run.policy.get_output_embeddings().weight
        words[run.end_id] *= 3  # so that some replies end
        words[20:60] *= 2  # and the reference is another model
    sampled_by, learnt, update = copy.deepcopy(run.policy), [], run.learner.update
    run.learner.update = lambda experience, *rest: learnt.append(experience) or update(experience, *rest)
    numbers = run.iterate(0)
    (experience,) = learnt
    rollout = experience.rollout
    assert 0 < numbers["eos_share"] < 1 and numbers["kl"] > 0.1
    for row in range(16):
        begin, end = int(rollout.prompt_length[row]), int(rollout.length[row])
        tokens = rollout.tokens[row : row + 1, :end]
        read = tokens if rollout.ended[row] else torch.cat([tokens, torch.tensor([[run.end_id]])], 1)
        with torch.no_grad():
            score = run.pm.scores(read, torch.tensor([read.shape[1] - 1])) - (0.0 if rollout.ended[row] else 2.0)
            new, old = (
                model(tokens).logits[0, begin - 1 : -1].log_softmax(-1).gather(1, tokens[0, begin:, None])[:, 0]
                for model in (sampled_by, run.reference)
            )
        to_come = score - 0.5 * (new - old).flip(0).cumsum(0).flip(0)
        assert torch.allclose(experience.target[row, : end - begin], to_come, atol=1e-4)
        judged = experience.old_value[row, : end - begin]
        assert torch.allclose(experience.advantage[row, : end - begin], to_come - judged, atol=1e-4)


def test_an_adaptive_weight_rises_above_its_target(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = folder_of(tmp_path / "a", tiny_policy, pm_path, episodes=96, kl_target=1e-4, kl_horizon=16.0)
    assert policy.main([str(folder.path)]) == 0
    assert "warning" not in capsys.readouterr().err
    weights = [line["kl_weight"] for line in folder.metrics()]
    assert weights[0] == weights[1] and weights[-1] > 1.2 * weights[0]


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_a_shared_trunk_and_other_families(family: str, tmp_path: Path, built_policies) -> None:
    start = built_policies(family)
    pm, tokenizer = PreferenceModel.from_policy(start, seed=3)
    pm.save(tmp_path / "pm", tokenizer)
    folder = folder_of(tmp_path / "shared", start, tmp_path / "pm", critic="shared", episodes=32)
    assert policy.main([str(folder.path)]) == 0
    assert folder.metrics()[0]["kl_k3"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_give_way_to_what_is_named(preset: str, tmp_path: Path) -> None:
    for name in PRESETS[preset]:
        assert name in PolicyConfig.__dataclass_fields__
    assert load_config(PolicyConfig, PRESETS[preset])
    folder = tmp_path / preset
    folder.mkdir()
    named = {"model": "m", "preference_model": "p", "preset": preset, "kl_weight": 0.77}
    (folder / "config.json").write_text(json.dumps(named))
    config = settings_of(RunFolder(folder), {"preset": None})
    assert config.kl_weight == 0.77
    assert config.inner_epochs == PRESETS[preset].get("inner_epochs", PolicyConfig().inner_epochs)
    assert settings_of(RunFolder(folder), {}) == config  # a second start finds the same settings
    other = "vanilla" if preset == "starter" else "starter"
    with pytest.raises(BadConfig, match=f"begun with the preset '{preset}'"):  # or every old setting would outrank it
        settings_of(RunFolder(folder), {"preset": other})


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_learns_from_replies_of_its_own_length(preset: str, tmp_path: Path, tiny_policy: Path) -> None:
    model, tokenizer = load_policy(tiny_policy)
    model.config.max_position_embeddings = 1024
    save_policy(tmp_path / "long", model, tokenizer, seed=7)
    pm, tokenizer = PreferenceModel.from_policy(tmp_path / "long", seed=3)
    pm.save(tmp_path / "pm", tokenizer)
    folder = folder_of(tmp_path / "run", tmp_path / "long", tmp_path / "pm")
    own = set(PRESETS[preset]) | {"max_new_tokens", "critic_pretraining"}
    named = {name: value for name, value in folder.settings().items() if name not in own}
    named |= {
        "rollout_replies": 16,
        "minibatch_replies": 8,
        "episodes": 16,
        "learning_rate": 1e-4,
        "checkpoint_steps": 0,
    }
    folder.config_file.write_text(json.dumps(named | {"preset": preset}))
    (folder.data / "pretraining.jsonl").write_text('{"text": "The river rises."}\n{"text": "Bread needs salt."}\n')
    run = run_of(folder)
    before = copy.deepcopy(run.policy.state_dict())
    numbers = run.iterate(run.iterations - 1)
    assert (numbers["episodes"], numbers["critic_only"]) == (16, 0)
    assert numbers["length_mean"] > 40  # a random policy seldom ends a reply
    assert not all(torch.equal(before[name], weight) for name, weight in run.policy.state_dict().items())


def test_the_presets_stand_side_by_side_in_the_guide() -> None:
    guide = (Path(policy.__file__).parents[1] / "docs" / "researcher.md").read_text("utf-8")
    heads = next(line for line in guide.splitlines() if "| starter |" in line)
    assert set(re.split(r"[|, ]+", heads)) - {""} == set(PRESETS)
    rows = {
        cells[1].strip(): cells[2:]
        for line in guide.splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) > 9
    }
    columns = [cell.strip() for cell in heads.split("|")[2:-1]]
    for place, names in enumerate(columns):
        for number, preset in enumerate(names.split(", ")):
            config = PolicyConfig(**PRESETS[preset])
            penalty = rows["KL penalty, `kl_weight` / `kl_unit`"][place].replace(",", " ").split()
            assert float(penalty[number] if penalty else 0) == config.kl_weight
            sizes = rows["replies a buffer, a minibatch, passes"][place].replace(",", " ").split()
            assert sizes == [str(n) for n in (config.iteration_replies, config.minibatch_replies, config.inner_epochs)]
            assert float(rows["average of the weights"][place].strip() or 0) == config.weight_average
            assert f"{config.gamma:g}, {config.lam:g}" == rows["γ, λ of the advantages"][place].strip()


def test_the_rate_warms_up_from_a_tenth_and_falls_as_the_schedule_says() -> None:
    def shares(**settings: object) -> list[float]:
        return [rate_share(PolicyConfig(rollout_replies=16, **settings), turn, 6) for turn in range(6)]

    flat = shares(schedule="constant", warmup_iterations=2)
    assert flat == pytest.approx([0.1, 0.55, 1.0, 1.0, 1.0, 1.0])
    assert shares(schedule="linear", warmup_iterations=0) == pytest.approx([1.0, 0.85, 0.7, 0.55, 0.4, 0.25])
    cosine = shares(schedule="cosine", warmup_iterations=0)
    assert cosine[0] == 1.0 and cosine[3] == pytest.approx(0.55) and cosine == sorted(cosine, reverse=True)
    # MOSS: up from a tenth, then sqrt(w / t): 2/3 and 2/4 and so on under the root
    root = shares(schedule="inverse_sqrt", warmup_iterations=2)
    assert root == pytest.approx([0.1, 0.55, (2 / 3) ** 0.5, 0.5**0.5, (2 / 5) ** 0.5, (2 / 6) ** 0.5])
    assert shares(schedule="halving", halving_episodes=32, warmup_iterations=0) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    half = shares(schedule="constant", warmup_share=0.5, warmup_iterations=1, warmup_floor=0.0)
    assert half[:4] == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    # annealed to nothing, which the step after the last would have
    assert shares(schedule="linear", warmup_iterations=0, final_share=0.0) == pytest.approx(
        [n / 6 for n in range(6, 0, -1)]
    )
    assert shares(schedule="cosine", warmup_iterations=0, final_share=0.0)[3] == pytest.approx(0.5)


def test_bad_input_is_refused_with_a_reason(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    def reason(name: str, prompts: str | None = None, **settings: object) -> str:
        folder = folder_of(tmp_path / name, tiny_policy, pm_path, **settings)
        if prompts is not None:
            (folder.data / "prompts.jsonl").write_text(prompts)
        assert policy.main([str(folder.path)]) == 2
        assert not folder.finished
        return json.loads(folder.failure_file.read_text())["reason"]

    assert "line 2" in reason("json", '{"prompt": "a"}\n{"prompt": \n')
    assert "role" in reason("role", '{"messages": [{"role": "robot", "content": "x"}]}\n')
    assert "no prompt" in reason("empty", "\n")
    assert "at least one of each" in reason("one", '{"prompt": "only one"}\n')
    assert "clip" in reason("clip", clip=-0.1)
    assert "learning_rat" in reason("unknown", learning_rat=1.0)
    assert "policy, not a preference model" in reason("pm", preference_model=str(tiny_policy))
    assert "is missing" in reason("model", model="")


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "nan", tiny_policy, pm_path))
    run.iterate(0)
    run.save(1)
    with torch.no_grad():
        run.learner.critic.head.weight.fill_(float("nan"))
    with pytest.raises(JobFailed, match=r"step 2, epoch 1, minibatch 1"):
        run.iterate(1)
    again = run_of(run.folder)
    assert again.load() == 1
    assert bool(again.learner.critic.head.weight.isfinite().all())


def test_a_run_does_not_go_on_with_another_preference_model(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, capsys: pytest.CaptureFixture
) -> None:
    own = shutil.copytree(pm_path, tmp_path / "pm")
    run = run_of(folder_of(tmp_path / "run", tiny_policy, own))
    run.iterate(0)
    run.save(1)
    shutil.rmtree(own)
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=4)
    pm.save(own, tokenizer)
    assert policy.main([str(run.folder.path)]) == 2
    assert f"the model {own} is not what it was when this run began" in capsys.readouterr().err


def test_a_finished_run_is_not_run_again(whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    before = (copy / "result.json").read_bytes()
    assert policy.main([str(copy)]) == 0
    assert "finished" in capsys.readouterr().err
    assert (copy / "result.json").read_bytes() == before
