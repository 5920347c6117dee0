"""A model in shards (FSDP2, here on gloo) learns as a whole one does, whatever each process has to do."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from tests.training.processes import killed, started, together
from tests.training.results import runs_alike
from tests.training.test_distributed import TRICKS, ppo, told
from tests.training.test_preference import comparisons, make_folder
from training import policy, preference, sft
from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy
from training.policy import settings_of
from training.ppo import policy_models
from training.ppo.policy_models import load_models
from training.processes import distributed, ranks
from training.processes.sharding import Level, clip_gradients, shard, whole
from training.runs.run_folder import RunFolder
from training.supervised import fitting
from training.trunk import passes


def run_of(path: Path, policy: Path, **settings: object) -> RunFolder:
    """Seven prompts an update: one process has more passes than the other."""
    settings = {"batch_prompts": 7, "checkpoint_steps": 3, "threads": 1, "adam_eps": 1e-4, **settings}
    return RunFolder(make_folder(path, comparisons(60), comparisons(9, seed=1), model=str(policy), **settings))


def test_each_process_holds_its_part_of_the_blocks(tmp_path: Path, tiny_policy: Path):
    def say() -> object:
        model, _ = PreferenceModel.from_policy(tiny_policy, seed=1)
        before = distributed.exact_sum(model)
        blocks = sum(weight.numel() for weight in model.backbone.layers.parameters())
        shard(model, torch.device("cpu"))
        held = sum(
            weight.to_local().numel() for weight in model.backbone.layers.parameters() if isinstance(weight, DTensor)
        )
        with whole(model):
            after = distributed.exact_sum(model)
            saved = {name for name, weight in model.state_dict().items() if isinstance(weight, DTensor)}
        return [blocks, held, before == after, sorted(saved), isinstance(model.backbone.embed_tokens.weight, DTensor)]

    for blocks, held, same, saved, embedded in told(2, tmp_path, say):
        assert held == blocks / 2
        assert same and not saved and not embedded


# GPT-2 returns a view of its last states; nothing here writes into them
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_shards_learn_as_one_whole_process(
    family: str, tmp_path: Path, built_policies, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(passes, "CPU_TOKENS", 150)  # several passes an update
    one, two = (
        run_of(tmp_path / name, built_policies(family), lm_weight=0.5, sharding="full") for name in ("one", "two")
    )
    assert preference.main([str(one.path)]) == 0  # a process alone has nothing to share
    assert together(2, lambda: preference.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)
    weights = [dict(PreferenceModel.load(folder.model)[0].named_parameters()) for folder in (one, two)]
    assert max(float((weights[0][name] - weights[1][name]).detach().abs().max()) for name in weights[0]) < 1e-3


def test_adapters_in_shards_learn_as_whole_ones(tmp_path: Path, tiny_policy: Path):
    one, two = (run_of(tmp_path / name, tiny_policy, lora_rank=4, sharding="full") for name in ("one", "two"))
    assert preference.main([str(one.path)]) == 0
    assert together(2, lambda: preference.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)


def test_shards_that_recompute_their_blocks_learn_as_one_whole_process(tmp_path: Path, tiny_policy: Path):
    one = run_of(tmp_path / "one", tiny_policy)
    two = run_of(tmp_path / "two", tiny_policy, sharding="full", gradient_checkpointing=True)
    assert preference.main([str(one.path)]) == 0
    assert together(2, lambda: preference.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)


def test_finetuning_in_shards_looks_at_the_whole_model(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    settings = {"batch_sequences": 7, "epochs": 2, "max_new_tokens": 6, "preference_model": str(pm_path)}
    settings |= {"model": str(tiny_policy), "threads": 1, "sharding": "full", "adam_eps": 1e-4}
    one, two = (
        RunFolder(make_folder(tmp_path / name, comparisons(40), comparisons(5, seed=1), **settings))
        for name in ("one", "two")
    )
    assert sft.main([str(one.path)]) == 0
    assert together(2, lambda: sft.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)


def test_a_killed_run_of_shards_is_ended_by_a_whole_process(tmp_path: Path, tiny_policy: Path):
    one, other = (run_of(tmp_path / name, tiny_policy, sharding="full") for name in ("one", "other"))
    assert preference.main([str(one.path)]) == 0
    for count, lines in ((2, 4), (1, 7)):
        killed(other, started(count, lambda: preference.main([str(other.path)])), lines)
    assert together(2, lambda: preference.main([str(other.path)])) == [0, 0]
    runs_alike(one, other)


PPO_SETTINGS = {
    "own critic": {"critic_pretraining": 1},
    "a head on the policy's trunk and every trick": TRICKS,
    # value_clip: no token may stand so near its edge that rounding decides whether it is counted
    "groups that reach into the critic": {
        "groups": 2,
        "group_features": "critic",
        "group_policy_weight": 0.1,
        "value_clip": 1.0,
    },
    "adapters": {"lora_rank": 4, "learning_rate": 1e-3},
    "blocks computed again": {"gradient_checkpointing": True, "critic": "policy"},
}


@pytest.mark.parametrize("settings", PPO_SETTINGS.values(), ids=PPO_SETTINGS.keys())
def test_a_policy_in_shards_learns_as_a_whole_one(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, settings: dict[str, object]
):
    one, two = (ppo(tmp_path / name, tiny_policy, pm_path, sharding="full", **settings) for name in ("one", "two"))
    assert policy.main([str(one.path)]) == 0
    assert together(2, lambda: policy.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)
    weights = [dict(load_policy(folder.model)[0].named_parameters()) for folder in (one, two)]
    assert max(float((weights[0][name] - weights[1][name]).detach().abs().max()) for name in weights[0]) < 1e-3


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")
def test_a_policy_that_the_engine_samples_through_its_own_forward_learns_in_shards(
    tmp_path: Path, built_policies, tiny_policy: Path
):
    gpt2 = built_policies("gpt2")
    model, tokenizer = PreferenceModel.from_policy(gpt2, seed=1)
    model.save(tmp_path / "pm", tokenizer)
    one, two = (ppo(tmp_path / name, gpt2, tmp_path / "pm", sharding="full") for name in ("one", "two"))
    assert policy.main([str(one.path)]) == 0
    assert together(2, lambda: policy.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)


def test_a_killed_policy_run_of_shards_is_ended_by_a_whole_process_and_by_shards(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
):
    one, other = (
        ppo(tmp_path / name, tiny_policy, pm_path, sharding="full", weight_average=0.5, episodes=60)
        for name in ("one", "other")
    )
    assert policy.main([str(one.path)]) == 0
    killed(other, started(2, lambda: policy.main([str(other.path)])), 2)
    killed(other, started(1, lambda: policy.main([str(other.path)])), 3)
    assert together(2, lambda: policy.main([str(other.path)])) == [0, 0]
    runs_alike(one, other)


def test_four_models_in_shards_are_a_part_each(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    folder = ppo(tmp_path / "run", tiny_policy, pm_path, sharding="full")

    def say() -> object:
        models = load_models(settings_of(folder, {}), torch.device("cpu"))
        found = []
        for model in (models.policy, models.reference, models.pm, models.critic):
            blocks = [weight for name, weight in model.named_parameters() if ".layers." in f".{name}"]
            found.append([sum(w.numel() for w in blocks), sum(w.to_local().numel() for w in blocks)])
        return found

    for said in told(2, tmp_path, say):
        assert all(held == blocks / 2 for blocks, held in said)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_nobody_leaves_a_collapsed_run_before_its_model_is_written(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch, sharding: str
):
    touchy = {"collapse_length": 1e-6, "collapse_perplexity": 1e6, "collapse_kl": -1.0, "collapse_window": 1}
    monkeypatch.setattr("training.config.policy.at_least", lambda *_: None)  # a KL bound that is always passed
    folder = ppo(tmp_path / "run", tiny_policy, pm_path, sharding=sharding, critic_pretraining=0, **touchy)
    written = policy_models.save_policy

    def slowly(*given: object, **more: object) -> object:
        time.sleep(1.0)
        return written(*given, **more)

    monkeypatch.setattr(policy_models, "save_policy", slowly)

    def run() -> int:
        code = policy.main([str(folder.path)])
        (tmp_path / f"{ranks.rank()}.json").write_text(json.dumps(folder.model.exists()))
        return code

    assert together(2, run) == [2, 2]
    assert "model/ holds the policy of step 1" in json.loads(folder.failure_file.read_text())["reason"]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [True, True]


def test_a_model_is_gathered_for_looks_alone(tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch):
    folder = run_of(tmp_path / "run", tiny_policy, sharding="full")
    gathers = []
    gather = fitting.whole
    monkeypatch.setattr(fitting, "whole", lambda model: gathers.append(1) or gather(model))

    def run() -> int:
        code = preference.main([str(folder.path)])
        (tmp_path / f"{ranks.rank()}.json").write_text(json.dumps(len(gathers)))
        return code

    assert together(2, run) == [0, 0]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [1, 1]  # after the last update


def test_a_gathered_model_goes_back_into_shards_when_measuring_fails(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = run_of(tmp_path / "run", tiny_policy, sharding="full")
    gathered: list[object] = []

    @contextmanager
    def counted(model: object) -> Iterator[None]:
        gathered.append(model)
        try:
            with whole(model):
                yield
        finally:
            gathered.clear()

    def failing(*_: object) -> None:
        (tmp_path / f"{ranks.rank()}.json").write_text(json.dumps(len(gathered)))
        raise JobFailed("out of luck")

    def heard(_self: RunFolder, _reason: str) -> bool:
        (tmp_path / f"{ranks.rank()}.after.json").write_text(json.dumps(len(gathered)))
        return False

    monkeypatch.setattr(fitting, "whole", counted)
    monkeypatch.setattr(preference, "measured", failing)
    monkeypatch.setattr(RunFolder, "write_failure", heard)
    assert together(2, lambda: preference.main([str(folder.path)])) == [2, 2]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == 1
        assert json.loads((tmp_path / f"{rank}.after.json").read_text()) == 0


def test_after_an_error_nobody_is_told_of_passes():
    level = Level(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="out of luck"), level.learning():
        raise ValueError("out of luck")
    assert not level.listening


@pytest.mark.parametrize("scale", [0.01, 0.999999, 1.0, 3.0, float("nan"), float("inf")])
def test_gradients_are_clipped_as_torch_clips_them(scale: float) -> None:
    ours, theirs = (torch.nn.ParameterList(torch.zeros(size) for size in ((3, 4), (5,), (2,))) for _ in range(2))
    grads = [torch.randn(3, 4), torch.randn(5)]
    unit = torch.cat([grad.flatten() for grad in grads]).norm()
    for side in (ours, theirs):  # the last weight has no gradient
        for weight, grad in zip(side[:2], grads, strict=True):
            weight.grad = grad / unit * scale
    norm = clip_gradients(ours.parameters(), 1.0)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    assert torch.equal(torch.tensor(norm), expected) or (scale != scale and norm != norm)
    for mine, plain in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine.grad, plain.grad, rtol=0, atol=0, equal_nan=True)
    assert ours[2].grad is None
