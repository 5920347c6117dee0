"""PPO: our whole job beside TRL 1.12's PPOTrainer (the last release that has it); same weights, prompts, lengths and passes.

    python -m bench.policy [--sizes 1m,10m] [--quick] [--json FILE]

A turn is one iteration: a reply of 64 tokens to each prompt of 16 to 64 (none ends early), scores, reference, values, four
passes with one update each, policy and critic apart. Ours is `training.policy` as it is run: metrics, events, progress bar,
checkpoints every 20 seconds. TRL's side (bench/trl_policy.py) writes no checkpoint and keeps the same number of episodes a backward pass.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.limits import measured, products_now
from bench.shapes import SHAPES, Shape, models, prompts, text, write_lines
from bench.sides import Side, Turns, in_turns
from bench.table import Report, forward, parser

# episodes an iteration, and of one of TRL's backward passes (its memory grows with them and with the vocabulary)
EPISODES = {"1m": (64, 16), "10m": (64, 16), "50m": (8, 4), "124m": (4, 4), "0.5b": (64, 8), "7b": (16, 4)}
NEW, PASSES, TEMPERATURE, KL_WEIGHT, RATE = 64, 4, 0.7, 0.05, 1e-5


def serve_ours(folder: Path, settings: dict[str, Any]) -> None:
    """Our job's turns: it is stopped and let go on where it logs an iteration."""
    from training.config import load_config
    from training.policy import PolicyConfig, PolicyRun
    from training.runs.run_folder import RunFolder

    turns = Turns()

    class InTurns(RunFolder):
        def log(self, *, step: int, **numbers: Any) -> None:
            super().log(step=step, **numbers)
            assert numbers["length_mean"] == NEW
            assert numbers["minibatches"] == PASSES
            turns.end(kl=numbers["kl"], score=numbers["score_mean"])
            turns.begin()

    run = PolicyRun(InTurns(folder), load_config(PolicyConfig, settings))
    run.engine.stop_ids = frozenset()  # a random model ends its replies by chance
    run.run()


def prepare(folder: Path, shape: Shape, episodes: int, more: dict[str, Any]) -> list[list[int]]:
    """Write our run folder and TRL's prompts; return the prompts."""
    files = models(shape)
    rows = prompts(shape, episodes, 16, 64)
    write_lines(folder / "data" / "prompts.jsonl", [{"prompt": text(row)} for row in rows])
    write_lines(folder / "data" / "held_out.jsonl", [{"prompt": text(rows[0])}])
    write_lines(folder / "trl.jsonl", [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows])
    settings = {
        "model": str(files.policy), "preference_model": str(files.pm), "episodes": 1000 * episodes, "rollout_replies": episodes,
        "minibatch_replies": episodes, "inner_epochs": PASSES, "critic_pretraining": 0, "max_new_tokens": NEW,
        "temperature": TEMPERATURE, "kl_weight": KL_WEIGHT, "score_normalisation": "none", "missing_end_penalty": 0.0,
        "learning_rate": RATE, "critic_learning_rate": RATE, "warmup_iterations": 0, "approx_kl_stop": 0.0, "slots": 64,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings | more))
    return rows


def operations(shape: Shape, rows: list[list[int]]) -> float:
    """The least an iteration takes: sampling, three forward passes, then each pass forward and backward of policy and critic."""
    lengths = [len(row) + NEW for row in rows]
    read = NEW * len(rows)  # tokens whose log-probability is wanted
    with_words, without = forward(shape, lengths, read), forward(shape, lengths)
    return 2 * with_words + 2 * without + 3 * PASSES * (with_words + without)


def main() -> None:
    """Compare each size."""
    made = parser(__doc__, "1m,10m")
    made.add_argument("--peers", default="trl-default,trl-fp32")
    made.add_argument("--episodes", type=int, help="an iteration; by default by size")
    made.add_argument(
        "--settings", default="{}", help="JSON that goes over ours: a row of its own, for other algorithms"
    )
    given = made.parse_args()
    if given.serve:
        folder = Path(given.serve)
        serve_ours(folder, json.loads((folder / "settings.json").read_text()))
        return
    limits = measured(given.device, given.threads)
    report = Report("policy", "episodes/s", given, limits)
    more = json.loads(given.settings)
    label = "".join(f", {name} {value}" for name, value in more.items())
    for size in given.sizes.split(",")[: 1 if given.quick else None]:
        shape = SHAPES[size]
        episodes, micro = EPISODES[size]
        episodes = given.episodes or episodes
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            rows = prepare(folder, shape, episodes, more)
            asked = {
                "folder": str(folder), "models": [str(file) for file in models(shape)], "episodes": episodes, "new": NEW,
                "micro": min(micro, episodes), "passes": PASSES, "temperature": TEMPERATURE, "kl_weight": KL_WEIGHT, "rate": RATE,
                "device": given.device,
            }  # fmt: skip
            ours = Side("ours", "bench.policy", ["--serve", str(folder)], threads=given.threads, device=given.device)
            sides = [stack.enter_context(ours)]
            for peer in given.peers.split(","):
                one = Side(peer, "bench.trl_policy", [json.dumps(asked | {"setting": peer})], peer="ppo", threads=given.threads, device=given.device)  # fmt: skip
                sides.append(stack.enter_context(one))
            found = in_turns(sides, given.rounds, lambda: products_now(given.device))
        need = operations(shape, rows)
        least = {kind: need / found["limits"][kind] / 1e9 for kind in ("fp32", "bf16")}
        report.add(f"policy {size}{label}", found, episodes, least)


if __name__ == "__main__":
    main()
