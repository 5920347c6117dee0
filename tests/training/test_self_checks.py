"""Every check of the start can fail: each is shown a fault of its own."""

from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training.failure import JobFailed
from training.ppo.policy_run import PolicyRun
from training.sampling.rollouts import Rollout, reply_seeds, sample
from training.sampling.self_checks import check_start, check_tokenizers


@pytest.fixture
def run(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> PolicyRun:
    return run_of(folder_of(tmp_path / "run", tiny_policy, pm_path))


def rollout_of(run: PolicyRun) -> Rollout:
    run.engine.refresh(run.policy)
    return sample(run.engine, run.prompts.train[:6], reply_seeds(0, 0, 6), 12, 1.0)


def shifted_when_alone(_module: torch.nn.Module, _inputs: tuple, outputs):
    """A backbone whose states depend on whether a row has company."""
    if len(outputs.last_hidden_state) == 1:
        outputs.last_hidden_state = outputs.last_hidden_state.roll(1, -1)
    return outputs


def test_a_sound_start_passes(run: PolicyRun) -> None:
    assert max(run.self_check().values()) < 1e-4


def test_a_sampler_with_other_weights_is_found(run: PolicyRun) -> None:
    rollout = rollout_of(run)
    with torch.no_grad():
        next(run.policy.model.layers[0].parameters()).add_(0.05)
    with pytest.raises(JobFailed, match="ratio 1"):
        check_start(run.policy, run.reference, run.pm, rollout, 1.0)


def test_a_policy_without_numbers_is_named_and_not_its_sampler(run: PolicyRun) -> None:
    rollout = rollout_of(run)
    with torch.no_grad():
        next(run.policy.model.layers[0].parameters())[0] = torch.nan
    with pytest.raises(JobFailed, match=r"the policy gives no numbers: its weights are damaged.* restore `model`"):
        check_start(run.policy, run.reference, run.pm, rollout, 1.0)


def test_a_preference_model_without_numbers_is_named(run: PolicyRun) -> None:
    rollout = rollout_of(run)
    with torch.no_grad():
        run.pm.head.bias.fill_(torch.inf)
    with pytest.raises(JobFailed, match=r"the preference model gives no numbers: .* restore `preference_model`"):
        check_start(run.policy, run.reference, run.pm, rollout, 1.0)


def test_a_reference_that_is_not_the_initial_policy_is_found(run: PolicyRun) -> None:
    with torch.no_grad():
        next(run.reference.model.layers[0].parameters()).add_(0.05)
    with pytest.raises(JobFailed, match="KL 0"):
        check_start(run.policy, run.reference, run.pm, rollout_of(run), 1.0)


def test_another_temperature_than_the_samplers_is_found(run: PolicyRun) -> None:
    with pytest.raises(JobFailed, match="ratio 1"):
        check_start(run.policy, run.reference, run.pm, rollout_of(run), 0.7)


def test_log_probabilities_that_depend_on_company_are_found(run: PolicyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "training.sampling.rollouts.PART_EVENNESS", 0.0
    )  # all six in one pass, as the fault needs company
    run.policy.model.register_forward_hook(shifted_when_alone)
    with pytest.raises(JobFailed, match="log-probabilities depend on padding"):
        check_start(run.policy, run.reference, run.pm, rollout_of(run), 1.0)


def test_scores_that_depend_on_company_are_found(run: PolicyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.sampling.rollouts.PART_EVENNESS", 0.0)
    run.pm.backbone.register_forward_hook(shifted_when_alone)
    with pytest.raises(JobFailed, match="scores depend on padding"):
        check_start(run.policy, run.reference, run.pm, rollout_of(run), 1.0)


def test_tokenizers_that_differ_are_refused(tokenizer) -> None:
    class Other:
        pad_token_id, eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    class Same(Other):
        pad_token_id = tokenizer.eos_token_id

    check_tokenizers(tokenizer, tokenizer)
    with pytest.raises(JobFailed, match="other tokens"):
        check_tokenizers(tokenizer, Other())
    with pytest.raises(JobFailed, match="the opponent reads other tokens"):
        check_tokenizers(tokenizer, Other(), "opponent")
    with pytest.raises(JobFailed, match="pad token"):
        check_tokenizers(Same(), Same())
