"""Small PPO runs on the tiny random models of conftest.py."""

import json
from pathlib import Path

from training.policy import settings_of
from training.ppo.policy_run import PolicyRun
from training.runs.run_folder import RunFolder

SMALL = {
    "episodes": 48,
    "rollout_replies": 16,
    "minibatch_replies": 8,
    "critic_pretraining": 1,
    "max_new_tokens": 12,
    "slots": 8,
    "learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "evaluation_prompts": 8,
    "checkpoint_steps": 2,
    "threads": 1,
}


def folder_of(path: Path, tiny_policy: Path, pm_path: Path, **settings: object) -> RunFolder:
    (path / "data").mkdir(parents=True)
    lines = [json.dumps({"prompt": f"Tell me of number {n}{'.' * (n % 5)}"}) for n in range(24)]
    lines.append(json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
                                          {"role": "user", "content": "Sing."}]}))  # fmt: skip
    (path / "data/prompts.jsonl").write_text("\n".join(lines) + "\n")
    (path / "config.json").write_text(
        json.dumps({"model": str(tiny_policy), "preference_model": str(pm_path), **SMALL, **settings})
    )
    return RunFolder(path)


def run_of(folder: RunFolder) -> PolicyRun:
    return PolicyRun(folder, settings_of(folder, {}))
