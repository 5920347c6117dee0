"""Several processes do one run: their sums are the whole, and a run of two is the run of one."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of
from tests.training.processes import killed, started, together
from tests.training.results import runs_alike
from tests.training.test_preference import comparisons, make_folder, timeless
from training import evaluate, policy, preference, sft
from training.models.snapshots import load_policy, save_policy
from training.processes import distributed, ranks
from training.runs.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def told(count: int, path: Path, say: Callable[[], object]) -> list:
    """What `say` gives on each of `count` processes."""

    def work() -> int:
        with distributed.joined():
            (path / f"{ranks.rank()}.json").write_text(json.dumps(say()))
            distributed.barrier()
        return 0

    assert together(count, work) == [0] * count
    return [json.loads((path / f"{rank}.json").read_text()) for rank in range(count)]


def test_one_process_is_alone():
    assert (ranks.size(), ranks.rank(), ranks.leads()) == (1, 0, True)
    assert distributed.share([3, 1, 2]) == [3, 1, 2]
    assert distributed.summed({"a": 2.0}) == {"a": 2.0}


def test_processes_add_numbers_and_gradients_even_where_one_has_none(tmp_path: Path):
    def say() -> object:
        weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
        if ranks.rank() != 2:
            weights[0].grad = torch.tensor([1.0, 10.0]) * (ranks.rank() + 1)
        if ranks.rank() == 1:
            weights[1].grad = torch.tensor([0.5, 0.25])
        distributed.add_gradients(weights)
        numbers = {"all": float(ranks.rank())} | ({"one": 7.5} if ranks.rank() == 1 else {})
        return {
            "numbers": distributed.summed(numbers),
            "gradients": [None if weight.grad is None else weight.grad.tolist() for weight in weights],
            "share": distributed.share([5, 6, 7, 8]),
            "first": distributed.said_first(f"from {ranks.rank()}"),
            "nan": math.isnan(distributed.summed({"x": math.nan if ranks.rank() == 2 else 1.0})["x"]),
            "differing": [distributed.differing({"a": 1, "b": ranks.rank()}), distributed.differing({"a": 1})],
        }

    said = told(3, tmp_path, say)
    shares = [each.pop("share") for each in said]
    assert shares == [[5, 8], [6], [7]]
    assert said[0] == said[1] == said[2]
    assert said[0]["numbers"] == {"all": 3.0, "one": 7.5}
    assert said[0]["gradients"] == [[3.0, 30.0], [0.5, 0.25], None]
    assert said[0]["first"] == "from 0" and said[0]["nan"] and said[0]["differing"] == ["b", None]


SETTINGS = {"batch_prompts": 7, "checkpoint_steps": 3, "threads": 1}


def run_of(path: Path, policy: Path, **settings: object) -> Path:
    """A folder whose batches do not divide evenly, the last one of a single pair's share for two processes."""
    return make_folder(path, comparisons(60), comparisons(9, seed=1), model=str(policy), **SETTINGS | settings)


def test_two_processes_give_the_losses_of_one(tmp_path: Path, tiny_policy: Path):
    one, two = run_of(tmp_path / "one", tiny_policy), run_of(tmp_path / "two", tiny_policy)
    assert preference.main([str(one)]) == 0
    assert together(2, lambda: preference.main([str(two)])) == [0, 0]
    runs_alike(RunFolder(one), RunFolder(two))
    assert len(list((two / "events").iterdir())) == 1


LAUNCHERS = {
    "torchrun": ["torchrun", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_of_two_that_another_launcher_starts_has_the_losses_of_one(
    launcher: str, tmp_path: Path, tiny_policy: Path
) -> None:
    one, two = run_of(tmp_path / "one", tiny_policy), run_of(tmp_path / "two", tiny_policy)
    assert preference.main([str(one)]) == 0
    program, *options = LAUNCHERS[launcher]
    said = subprocess.run(
        [Path(sys.executable).with_name(program), *options, "--tee", "3", "--log_dir", tmp_path / "logs",
         "-m", "training.preference", two],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    # Two were started, and neither was refused the folder, as one that thought itself alone would have been.
    assert {log.parent.name for log in (tmp_path / "logs").rglob("stderr.log")} == {"0", "1"}
    runs_alike(RunFolder(one), RunFolder(two))


def test_a_run_of_two_that_was_killed_goes_on_whoever_takes_it_up(tmp_path: Path, tiny_policy: Path):
    """Begun by two, killed, gone on with by one, killed, ended by two: the numbers of an uninterrupted run of one."""
    one, other = run_of(tmp_path / "one", tiny_policy), run_of(tmp_path / "other", tiny_policy)
    assert preference.main([str(one)]) == 0
    for count, lines in ((2, 4), (1, 7)):
        killed(RunFolder(other), started(count, lambda: preference.main([str(other)])), lines)
    assert together(2, lambda: preference.main([str(other)])) == [0, 0]
    runs_alike(RunFolder(one), RunFolder(other))
    assert timeless(RunFolder(other).metrics())[0]["step"] == 1


def test_what_one_process_cannot_use_all_refuse_with_its_reason(tmp_path: Path, tiny_policy: Path):
    nothing = make_folder(tmp_path / "nothing", [], model=str(tiny_policy))
    assert together(2, lambda: preference.main([str(nothing)])) == [2, 2]
    assert "holds no comparison" in json.loads((nothing / "failure.json").read_text())["reason"]
    busy = run_of(tmp_path / "busy", tiny_policy)
    with RunFolder(busy).lock():
        assert together(2, lambda: preference.main([str(busy)])) == [2, 2]
    assert not (busy / "failure.json").exists()


def test_a_failure_of_one_process_ends_all_with_its_reason(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = run_of(tmp_path / "run", tiny_policy)
    lesson = preference.Lesson.__call__

    def broken(self: preference.Lesson, batch: list[int], mine: list[int]) -> object:
        if ranks.rank() == 1 and len(RunFolder(folder).metrics()) >= 2:
            raise ValueError("out of luck")
        return lesson(self, batch, mine)

    monkeypatch.setattr(preference.Lesson, "__call__", broken)
    codes = together(2, lambda: preference.main([str(folder)]))
    assert codes == [1, 1]
    assert json.loads((folder / "failure.json").read_text())["reason"] == "process 1 of 2: ValueError: out of luck"


def test_processes_that_begin_with_other_weights_are_refused(
    tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = run_of(tmp_path / "run", tiny_policy)
    whole = distributed.exact_sum
    monkeypatch.setattr(distributed, "exact_sum", lambda module: whole(module) + ranks.rank())
    assert together(2, lambda: preference.main([str(folder)])) == [2, 2]
    assert "disagree on their weights" in json.loads((folder / "failure.json").read_text())["reason"]


# Nothing divides evenly. Rounding moves a gradient near zero, of which Adam with its usual ε makes whole steps: a larger one keeps
# the weights alike too. Either way longer runs part when rounding turns the draw of a token (docs/decisions.md).
PPO = {
    "episodes": 40,
    "rollout_replies": 15,
    "minibatch_replies": 7,
    "checkpoint_steps": 1,
    "adam_eps": 1e-3,
    "critic_adam_eps": 1e-3,
}


def ppo(path: Path, tiny_policy: Path, pm_path: Path, **settings: object) -> RunFolder:
    folder = folder_of(path, tiny_policy, pm_path, **PPO | settings)
    texts = [json.dumps({"text": f"number {n} is {n * n}"}) + "\n" for n in range(9)]  # read with ptx_weight alone
    (folder.data / "pretraining.jsonl").write_text("".join(texts))
    return folder


USUAL = {"adam_eps": 1e-8, "critic_adam_eps": 1e-8}
TRICKS = {
    "critic": "shared",
    "groups": 2,
    "group_policy_weight": 0.1,
    "group_kl": True,
    "entropy_weight": 0.01,
    "entropy_threshold": 3.0,
    "weight_average": 0.5,
    "kl_target": 1.0,
    "ptx_weight": 0.5,
    "ptx_ratio": 0.4,
}


@pytest.mark.parametrize("settings", [USUAL, TRICKS], ids=["plain, with the usual ε", "every trick"])
def test_two_processes_learn_a_policy_as_one_does(tmp_path: Path, tiny_policy: Path, pm_path: Path, settings: dict):
    one, two = (ppo(tmp_path / name, tiny_policy, pm_path, **settings) for name in ("one", "two"))
    assert policy.main([str(one.path)]) == 0
    assert together(2, lambda: policy.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)


def test_a_policy_run_of_two_that_was_killed_is_ended_by_one_as_if_nothing_had_happened(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
):
    one, other = (ppo(tmp_path / name, tiny_policy, pm_path) for name in ("one", "other"))
    assert policy.main([str(one.path)]) == 0
    killed(other, started(2, lambda: policy.main([str(other.path)])), 2)
    assert policy.main([str(other.path)]) == 0
    runs_alike(one, other)


def test_two_processes_evaluate_as_one_does(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    model, tokenizer = load_policy(tiny_policy)
    model.get_output_embeddings().weight.data += 0.05 * torch.randn(264, 32, generator=torch.Generator().manual_seed(1))
    save_policy(tmp_path / "other", model, tokenizer)
    folders = []
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        folder = RunFolder(tmp_path / name)
        (folder.data / "prompts.jsonl").write_text(
            "".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(5))
        )
        settings = {"model": str(tmp_path / "other"), "opponent": str(tiny_policy)}
        folder.config_file.write_text(
            json.dumps(settings | {"preference_model": str(pm_path), "max_new_tokens": 9, "threads": 1})
        )
        folders.append(folder)
    assert evaluate.main([str(folders[0].path)]) == 0
    assert together(2, lambda: evaluate.main([str(folders[1].path)])) == [0, 0]
    runs_alike(*folders)


def test_two_processes_finetune_as_one_does(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    folders = []
    for name in ("one", "two"):
        path = make_folder(
            tmp_path / name,
            comparisons(40),
            comparisons(5, seed=1),
            model=str(tiny_policy),
            preference_model=str(pm_path),
            batch_sequences=7,
            epochs=2,
            max_new_tokens=6,
            threads=1,
        )
        folders.append(RunFolder(path))
    assert sft.main([str(folders[0].path)]) == 0
    assert together(2, lambda: sft.main([str(folders[1].path)])) == [0, 0]
    runs_alike(*folders)
