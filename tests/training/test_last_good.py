"""A policy from before the collapse outlives it, and a run that stopped can still hand out its model."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training import policy
from training.failure import JobFailed
from training.models.last_good import LastGood
from training.models.snapshots import check_snapshot, load_policy
from training.ppo.policy_run import PolicyRun


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


def ruined(run: PolicyRun) -> None:
    with torch.no_grad():
        run.policy.get_output_embeddings().weight[5, 0] = math.nan


def test_what_is_not_a_number_hands_out_the_policy_from_before_its_window(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(
        tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0, episodes=16 * 12, checkpoint_steps=1,
        collapse_perplexity=1e-9, collapse_runaway=1e9, collapse_noise=1e9,
    )  # fmt: skip
    run = run_of(folder)
    iterate, seen = run.iterate, []

    def ruining(iteration: int) -> dict[str, float]:
        numbers = iterate(iteration)
        if iteration == 6:
            ruined(run)
        seen.append(weights(run.policy))
        return numbers

    monkeypatch.setattr(run, "iterate", ruining)
    monkeypatch.setattr("training.policy.PolicyRun", lambda *given: run)
    assert policy.main([str(folder.path)]) == 2
    reason = json.loads(folder.failure_file.read_text())["reason"]
    assert "of the policy is not a number after step 7" in reason
    assert "last checkpoint is kept. model/ holds the policy of step 3, from before that" in reason
    assert torch.equal(weights(load_policy(folder.model)[0]), seen[2])
    assert folder.load_checkpoint().step == 6


def test_weights_that_make_no_numbers_are_kept_nowhere(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0))
    numbers = run.iterate(0)
    run.save(1)
    with torch.no_grad():  # finite, and more than the products can hold
        for weight in run.learner.critic.parameters():
            weight.fill_(3e38)
    with pytest.raises(JobFailed, match=r"the critic's value after step 2 is not a number; .*last checkpoint is kept"):
        run.save(2)
    with pytest.raises(JobFailed, match="the critic's value after step 3"):
        run._watch(3, numbers)
    assert run.folder.load_checkpoint().step == 1
    assert run.last_good.steps() == []


def test_a_policy_of_no_numbers_is_not_handed_out(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0))
    run.iterate(0)
    ruined(run)
    with pytest.raises(JobFailed, match="not a number after step 1, on held-out prompts"):
        run.finish(1)
    assert not run.folder.model.exists()


@pytest.mark.parametrize("warm", [0, 1])
def test_a_rate_that_tears_everything_leaves_no_model_and_no_checkpoint(
    warm: int, tmp_path: Path, tiny_policy: Path, pm_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its only step is the last of the run's first iteration, so that no loss has been taken with what it made."""
    folder = folder_of(
        tmp_path / "run", tiny_policy, pm_path, learning_rate=1e25, critic_pretraining=0, checkpoint_steps=1,
        inner_epochs=1, minibatch_replies=16, episodes=16, approx_kl_stop=0.0, warmup_iterations=warm,
    )  # fmt: skip
    for _ in range(2):
        assert policy.main([str(folder.path)]) == 2
        assert ("warning: all 1 iterations are of the warm-up of 1" in capsys.readouterr().err) == bool(warm)
        reason = json.loads(folder.failure_file.read_text())["reason"]
        assert "the policy's log-probability after step 1 is not a number; lower learning_rate" in reason
        assert not folder.model.exists()
        assert not folder.checkpoint.exists()


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
