"""Which prompts of a PPO run measure it, and what is said where they do not."""

import json
from pathlib import Path

import pytest

from tests.training.policy_runs import folder_of, run_of


def test_held_out_prompts_that_are_trained_on_are_counted_and_said(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = folder_of(tmp_path / "run", tiny_policy, pm_path)
    assert run_of(folder).prompts.held_out_trained == 0
    assert "warning" not in capsys.readouterr().err
    lines = (folder.data / "prompts.jsonl").read_text().splitlines()
    own = [json.dumps({"prompt": f"What is {n} good for?"}) for n in range(3)]
    (folder.data / "held_out.jsonl").write_text("\n".join(own + lines[:2]) + "\n")
    run = run_of(folder)
    assert run.prompts.held_out_trained == 2
    assert "warning: 2 of 5 held-out prompts are trained on too" in capsys.readouterr().err
    run.iterate(0)
    assert run.finish(1)["held_out_trained"] == 2
    (folder.data / "held_out.jsonl").write_text("\n".join(own) + "\n")
    assert run_of(folder).prompts.held_out_trained == 0


def test_the_spread_of_what_is_earned_is_logged(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    numbers = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path)).iterate(0)
    assert 0 < numbers["reward_std"] < numbers["reward_most"] - numbers["reward_least"]
