"""A policy from before the collapse outlives it, and a run that stopped can still hand out its model."""

import json
import re
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training import policy
from training.models.last_good import LastGood
from training.models.snapshots import check_snapshot, load_policy


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("window", [1, 3])
def test_there_is_always_one_a_window_old_and_never_more_than_two(window: int, tmp_path: Path) -> None:
    good = LastGood(tmp_path / "good", window)
    for step in range(1, 20):
        found = good.before(step)
        if step >= 2 * window:
            assert found is not None
            at, tensors = found
            assert step - 2 * window < at <= step - window
            assert tensors["served.x"].item() == at
        good.keep(step, lambda now=step: {"served.x": torch.tensor(float(now))})
        assert len(good.steps()) <= 2
    good.forget()
    assert good.before(100) is None


def test_a_collapse_stops_the_run_and_leaves_the_policy_from_before_it(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window ends with step 7: what is handed out is from before step 5, though there are checkpoints of 4, 5 and 6."""
    folder = folder_of(
        tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0, episodes=16 * 12, checkpoint_steps=1
    )
    run = run_of(folder)
    iterate, seen = run.iterate, []

    def collapsing(iteration: int) -> dict[str, float]:
        numbers = iterate(iteration)
        seen.append(weights(run.policy))
        late = iteration >= 6
        return numbers | {"length_mean": 90.0 if late else 10.0, "perplexity": 1.1 if late else 9.0,
                          "kl_per_token": 2.0 if late else 0.1}  # fmt: skip

    monkeypatch.setattr(run, "iterate", collapsing)
    monkeypatch.setattr("training.policy.PolicyRun", lambda *given: run)
    assert policy.main([str(folder.path)]) == 2
    reason = json.loads(folder.failure_file.read_text())["reason"]
    assert "step 7" in reason and "grew from 10 to 37" in reason and "model/ holds the policy of step 3" in reason
    assert not folder.finished
    assert len(folder.metrics()) == 7
    assert torch.equal(weights(load_policy(folder.model)[0]), seen[2])
    summary = check_snapshot(folder.model)
    assert summary.provenance["episodes"] == 48
    assert folder.load_checkpoint().step == 6


def test_an_alarm_that_is_off_lets_the_run_go_on(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    touchy = {"collapse_length": 1e-6, "collapse_perplexity": 1e6, "collapse_kl": 0.0, "collapse_window": 1}
    folder = folder_of(tmp_path / "on", tiny_policy, pm_path, **touchy)
    assert policy.main([str(folder.path)]) == 2
    # a critic-only step's KL is 0 but for rounding, on either side of the bound of 0
    assert re.match(r"step [23]: the policy has collapsed", json.loads(folder.failure_file.read_text())["reason"])
    folder = folder_of(tmp_path / "off", tiny_policy, pm_path, **touchy, collapse_alarm=False)
    assert policy.main([str(folder.path)]) == 0
    assert not (folder.path / "good").exists()


def test_a_run_that_stopped_can_be_finished_where_it_stands(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0)
    assert policy.main([str(folder.path), "--finish"]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    run = run_of(folder)
    folder.log(step=1, of=3, **run.iterate(0))
    run.save(1)
    stands = weights(run.policy)
    assert policy.main([str(folder.path), "--finish"]) == 0
    result = folder.result()
    assert (result["iterations"], result["episodes"]) == (1, 16)
    assert torch.equal(weights(load_policy(folder.model)[0]), stands)
