"""On a CUDA device: the jobs give the numbers of the CPU, bfloat16 passes its self-checks, a kill is nothing. docs/gpu-checks.md."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from tests.training.test_preference import comparisons, make_folder
from training import policy
from training.models.snapshots import load_policy
from training.runs.run_folder import RunFolder
from training.sampling.engine import Engine, generate
from training.sampling.rollouts import policy_logp, rollout_of
from training.sampling.self_checks import HALF_TOLERANCE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
ROOT = Path(policy.__file__).parents[1]
UNLIKE = {"seconds", "sampler_gap", "tokens_per_second", "peak_bytes"}  # between two devices


def command(job: str, folder: RunFolder) -> list[str]:
    return [sys.executable, "-m", f"training.{job}", str(folder.path)]


def finish(job: str, folder: RunFolder, *, cuda: bool) -> list[dict]:
    """The metrics of a run in a process of its own, which sees the device or none."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({} if cuda else {"CUDA_VISIBLE_DEVICES": ""})
    assert subprocess.run(command(job, folder), env=environment, check=False).returncode == 0
    return folder.metrics()


def near(one: list[dict], two: list[dict], tolerance: float) -> None:
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        wanted = {name: number for name, number in a.items() if name not in UNLIKE}
        assert {name: b[name] for name in wanted} == pytest.approx(wanted, rel=tolerance, abs=tolerance)


def test_a_preference_run_gives_the_metrics_of_the_cpu(tmp_path: Path, tiny_policy: Path) -> None:
    settings = {"model": str(tiny_policy), "batch_prompts": 7, "precision": "float32", "adam_eps": 1e-4}
    on_cpu, on_gpu = (
        RunFolder(make_folder(tmp_path / name, comparisons(40), comparisons(9, seed=1), **settings))
        for name in ("cpu", "gpu")
    )
    near(finish("preference", on_cpu, cuda=False), finish("preference", on_gpu, cuda=True), 1e-3)


def test_a_policy_run_begins_with_the_metrics_of_the_cpu(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    on_cpu, on_gpu = (
        folder_of(tmp_path / name, tiny_policy, pm_path, precision="float32", critic_pretraining=0)
        for name in ("cpu", "gpu")
    )
    one, two = finish("policy", on_cpu, cuda=False), finish("policy", on_gpu, cuda=True)
    kept = ("score_mean", "score_std", "length_mean", "perplexity", "kl", "value_loss", "ratio_mean")
    near([{name: one[0][name] for name in kept}], [{name: two[0][name] for name in kept}], 1e-2)
    assert two[0]["sampler_gap"] < 1e-3 and abs(two[0]["kl"]) < 1e-3


@pytest.mark.parametrize("settings", [{}, {"critic": "shared"}, {"lora_rank": 2}, {"gradient_checkpointing": True}])
def test_a_policy_run_in_bfloat16_starts_at_ratio_one_and_kl_zero(
    settings: dict[str, object], tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    folder = folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0, inner_epochs=1,
                       minibatch_replies=16, **settings)  # fmt: skip
    run = run_of(folder)
    assert run.half  # by itself
    gaps = run.self_check()
    assert gaps["reference_gap"] < 1e-3 and gaps["sampler_gap_mean"] < HALF_TOLERANCE
    numbers = run.iterate(0)
    assert numbers["ratio_mean"] == pytest.approx(1, abs=1e-3) and abs(numbers["kl"]) < 1e-2
    assert {weight.dtype for weight in run.policy.parameters()} == {torch.float32}


def test_the_sampler_is_near_the_training_forward_in_bfloat16(any_policy: Path) -> None:
    model, tokenizer = load_policy(any_policy)
    model.to("cuda")
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    engine = Engine(model, tokenizer, slots=2, max_length=40, half=True)
    rollout = rollout_of(prompts, generate(engine, prompts, [1, 2, 3], 16))
    gap = (policy_logp(model, rollout, 1.0, half=True) - rollout.old_logp)[rollout.mask].abs()
    assert 0 < float(gap.mean()) < HALF_TOLERANCE


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_killed_policy_run_goes_on_as_if_nothing_had_happened(
    precision: str, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    whole, other = (folder_of(tmp_path / n, tiny_policy, pm_path, precision=precision) for n in ("whole", "other"))
    process = subprocess.Popen(command("policy", other), env=os.environ | {"PYTHONPATH": str(ROOT)})
    while process.poll() is None and len(other.metrics()) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not other.finished
    # the order of additions is not fixed on a GPU
    near(finish("policy", whole, cuda=True), finish("policy", other, cuda=True), 1e-3)
