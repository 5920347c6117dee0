"""Every job on a device that refuses what a GPU refuses: it ends, with the numbers of the CPU. test_gpu has what only a GPU can show."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.policy_runs import SMALL
from tests.training.results import result_of, run_folder
from tests.training.test_distill import make_folder as distill_folder
from tests.training.test_distill import talks
from tests.training.test_hhh import HELPFUL, tasks
from tests.training.test_ood import STRANGE, USUAL
from tests.training.test_preference import comparisons
from tests.training.test_sft import demonstrations
from training.runs.run_folder import RunFolder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
UNLIKE = {"seconds", "tokens_per_second", "peak_bytes", "self_check"}
PROMPTS = [{"prompt": f"Tell me of number {n}"} for n in range(16)]


def on_the_device(*jobs: tuple[str, Path]) -> None:
    """Run jobs one after the other in a process of its own: torch learns of a device for good."""
    given = [word for job, path in jobs for word in (job, str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.pretended_device", *given],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def numbers_of(path: Path) -> list[dict[str, Any]]:
    """The metrics of a run and its result, but for what is of the machine."""
    found = [*RunFolder(path).metrics(), result_of(path)]
    return [{name: value for name, value in one.items() if name not in UNLIKE} for one in found]


def near(one: Any, two: Any, tolerance: float) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(near(value, two[name], tolerance) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(near(*pair, tolerance) for pair in zip(one, two, strict=True))
    return bool(one == (pytest.approx(two, rel=tolerance, abs=tolerance) if isinstance(two, float) else two))


REFUSED = """
import torch
from tests.training.pretended_device import DEVICE, pretended
with pretended():
    here, there = torch.ones(2), torch.ones(2, device=DEVICE)
    for wrong in (lambda: here + there, lambda: here[there.long()], lambda: there.numpy()):
        try:
            wrong()
            print("allowed")
        except (RuntimeError, TypeError) as refused:
            print(type(refused).__name__)
    print("fine" if (there + there).device == DEVICE and (there + there.cpu().to(DEVICE)).tolist() == [2.0, 2.0] else "wrong")
"""
JOBS: dict[str, Callable[[Path, dict[str, str]], Path]] = {
    "preference": lambda path, models: run_folder(
        path, {"model": models["model"], "batch_prompts": 7, "adam_eps": 1e-4, "lm_weight": 0.5, "precision": "float32"},
        train=comparisons(30), test=comparisons(9, seed=1),
    ),
    "sft": lambda path, models: run_folder(
        path, {"model": models["model"], "learning_rate": 1e-3, "epochs": 1, "dropout": 0.0, "precision": "float32"},
        train=demonstrations(16), test=demonstrations(6),
    ),
    "distill": lambda path, models: distill_folder(
        path, Path(models["model"]), talks(12), talks(4, seed=1), precision="float32"
    ),
    "policy": lambda path, models: run_folder(
        path, SMALL | models | {"episodes": 16, "critic_pretraining": 0, "precision": "float32", "adam_eps": 1e-4},
        prompts=PROMPTS,
    ),
    "best_of": lambda path, models: run_folder(
        path, models | {"k": [1, 2, 4], "max_new_tokens": 8, "slots": 8}, prompts=PROMPTS
    ),
    "evaluate": lambda path, models: run_folder(
        path, models | {"opponent": models["model"], "max_new_tokens": 8, "slots": 4}, prompts=PROMPTS
    ),
    "ood": lambda path, models: run_folder(
        path, {"model": models["model"], "draws": 3}, inliers=USUAL, outliers=STRANGE
    ),
    "hhh": lambda path, models: tasks(run_folder(path, models) / "data", helpful=HELPFUL).parent,
}  # fmt: skip


@pytest.fixture(scope="module")
def ended(tiny_policy: Path, pm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all jobs, run on the device."""
    root = tmp_path_factory.mktemp("there")
    models = {"model": str(tiny_policy), "preference_model": str(pm_path)}
    on_the_device(*((job, made(root / job, models)) for job, made in JOBS.items()))
    return root


@pytest.mark.parametrize("job", JOBS)
def test_a_job_gives_the_numbers_of_the_cpu(
    job: str, ended: Path, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    here = JOBS[job](tmp_path / job, {"model": str(tiny_policy), "preference_model": str(pm_path)})
    assert importlib.import_module(f"training.{job}").main([str(here)]) == 0
    one, two = numbers_of(here), numbers_of(ended / job)
    assert one and near(two, one, 1e-3)


def test_policies_learn_in_bfloat16(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, built_policies: Callable[[str], Path]
) -> None:
    variants: list[dict[str, Any]] = [
        {"critic": "shared"},
        {"lora_rank": 2, "weight_average": 0.9},
        {"groups": 2, "group_policy_weight": 0.1, "group_kl": True},
        {"model": str(built_policies("gpt2")), "gradient_checkpointing": True},
    ]
    models = {"model": str(tiny_policy), "preference_model": str(pm_path)}
    short = SMALL | models | {"episodes": 16, "critic_pretraining": 0, "inner_epochs": 1, "minibatch_replies": 16}
    short |= {"evaluation_prompts": 2}
    paths = [
        run_folder(tmp_path / str(number), short | {"precision": "bfloat16"} | given, prompts=PROMPTS)
        for number, given in enumerate(variants)
    ]
    on_the_device(*(("policy", path) for path in paths))
    for path in paths:
        (line,) = RunFolder(path).metrics()
        assert line["ratio_mean"] == pytest.approx(1, abs=1e-3) and abs(line["kl"]) < 1e-2


def test_what_a_device_refuses_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["RuntimeError", "RuntimeError", "TypeError", "fine"], done.stderr
