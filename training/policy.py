"""`python -m training.policy FOLDER`: PPO of a chat policy against a preference model (Bai et al. 2022 §4.1).

Reads data/prompts.jsonl (and data/held_out.jsonl, else a share of the prompts is held out; with `ptx_weight` also
data/pretraining.jsonl); writes metrics.jsonl, checkpoint/, model/ and result.json. One iteration: 1 sample replies, 2 score
them, 3 rewards with the KL to the initial policy, 4 advantages, 5 update. Everything drawn by lot comes from the seed and the
iteration, so a run that was killed goes on to the same numbers. Where the defaults differ from the papers: the critic may be
pretrained, and a policy that moved far from the one that sampled ends the passes over a buffer early; each paper's own
settings are a preset.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import PolicyConfig
from training.failure import JobFailed
from training.job import run_job, start
from training.ppo.policy_run import PolicyRun
from training.ppo.presets import PRESETS
from training.runs.run_folder import RunFolder


def settings_of(folder: RunFolder, given: Mapping[str, Any]) -> PolicyConfig:
    """config.json and the command line over the preset over the defaults; written back complete."""
    return start(folder, PolicyConfig, "policy", given, "model", "preference_model", presets=PRESETS)


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.policy",
        description=__doc__,
        epilog="Example: whetstone train policy my-policy --preference-model my-pm/model --episodes 512",
    )
    parser.add_argument("folder", help="run folder with config.json and data/prompts.jsonl")
    parser.add_argument("--model", help="directory of the initial policy")
    parser.add_argument("--preference-model", help="directory of the preference model")
    parser.add_argument("--preset", choices=list(PRESETS), help="settings of a paper by name")
    parser.add_argument("--episodes", type=int, help="replies to learn from")
    parser.add_argument(
        "--finish", action="store_true", help="learn no more: measure and write the policy of the last checkpoint"
    )
    given = vars(parser.parse_args(arguments))
    finish = given.pop("finish")

    def work(folder: RunFolder) -> dict[str, Any]:
        run = PolicyRun(folder, settings_of(folder, given))
        if not finish:
            return run.run()
        step = run.load()
        if not step:
            raise JobFailed("there is no checkpoint to finish from; start the run without --finish")
        return run.finish(step)

    return run_job("policy", given.pop("folder"), work, given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
