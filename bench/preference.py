"""Preference training: our whole job beside TRL's RewardTrainer; same weights, the same pairs in the same batches.

    python -m bench.preference [--sizes 1m,10m,50m,124m] [--quick] [--json FILE]

Pairs of 32 to 256 tokens a side (half of them under 100), 8 an update. Ours is `training.preference` as it is run, with its metrics, events,
progress bar and checkpoints; a turn is one pass over the pairs. TRL's side (bench/trl_preference.py) writes no checkpoint.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.limits import measured, products_now
from bench.shapes import SHAPES, Shape, models, pairs, text, write_lines
from bench.sides import Side, Turns, in_turns
from bench.table import Report, forward, parser

UPDATES = {"1m": 16, "10m": 8, "50m": 3, "124m": 2, "0.5b": 8, "7b": 2}  # of a turn
BATCH, RATE, SEED = 8, 1e-4, 0
PEER_HALF_WIDTH = 320  # from which bfloat16 is TRL's faster precision on a CPU that multiplies it (measured with AMX)


def peer_in_half(kind: str, width: int) -> bool:
    """Whether TRL's best setting is bfloat16 on this kind of device."""
    import torch

    from training.processes.device import in_half

    return in_half("auto", torch.device(kind), width) and (kind != "cpu" or width >= PEER_HALF_WIDTH)


def serve_ours(folder: Path, size: str, updates: int) -> None:
    """Our job's turns: it is stopped and let go on where it logs the last update of each pass."""
    from training.config import PreferenceConfig
    from training.job import start
    from training.preference import train
    from training.runs.run_folder import RunFolder

    turns = Turns()

    class InTurns(RunFolder):
        def log(self, *, step: int, **numbers: Any) -> None:
            super().log(step=step, **numbers)
            if step % updates == 0:
                turns.end(loss=numbers["loss"])
                turns.begin()

    run = InTurns(folder)
    train(run, start(run, PreferenceConfig, "preference", {"model": str(models(SHAPES[size]).policy)}))


def prepare(folder: Path, shape: Shape, passes: int) -> list[tuple[list[int], ...]]:
    """Write our run folder and TRL's rows in the order in which our job takes them; return the pairs."""
    from training.data.batches import order

    updates = UPDATES[shape.name]
    rows = pairs(shape, BATCH * updates)
    lines = [
        {"prompt": text(prompt), "chosen": text(chosen[:-1]), "rejected": text(rejected[:-1])}
        for prompt, chosen, rejected in rows
    ]
    write_lines(folder / "data" / "train.jsonl", lines)
    write_lines(folder / "data" / "test.jsonl", lines[:2])
    settings = {
        "batch_prompts": BATCH, "learning_rate": RATE, "epochs": passes, "seed": SEED, "schedule": "linear", "weakest_strength": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    in_order = [
        rows[number] for epoch in range(passes) for batch in order(len(rows), BATCH, SEED, epoch) for number in batch
    ]
    write_lines(
        folder / "trl.jsonl",
        [{"chosen_ids": p + c, "rejected_ids": p + r, "length": len(p) + max(len(c), len(r))} for p, c, r in in_order],
    )
    return rows


def operations(shape: Shape, rows: list[tuple[list[int], ...]]) -> float:
    """The least that learning these pairs takes: forward and twice that backward, the prompt once for both sides, no padding."""
    total = 0.0
    for prompt, chosen, rejected in rows:
        whole = [len(prompt) + len(chosen), len(prompt) + len(rejected)]
        total += 3 * (forward(shape, whole) - forward(shape, [len(prompt)]))
    return total


def main() -> None:
    """Compare each size."""
    made = parser(__doc__, "1m,10m,50m,124m")
    made.add_argument("--peers", default="trl-default,trl-best")
    given = made.parse_args()
    if given.serve:
        asked = json.loads(given.serve)
        serve_ours(Path(asked["folder"]), asked["size"], asked["updates"])
        return

    limits = measured(given.device, given.threads)
    report = Report("preference", "pairs/s", given, limits)
    for size in given.sizes.split(",")[: 1 if given.quick else None]:
        shape = SHAPES[size]
        files = models(shape)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            rows = prepare(folder, shape, given.rounds + 2)
            asked = {
                "folder": str(folder), "size": size, "updates": UPDATES[size], "model": str(files.classifier), "batch": BATCH,
                "rate": RATE, "passes": given.rounds + 2, "half": peer_in_half(given.device, shape.width),
                "device": given.device,
            }  # fmt: skip
            ours = Side("ours", "bench.preference", ["--serve", json.dumps(asked)], threads=given.threads, device=given.device)  # fmt: skip
            sides = [stack.enter_context(ours)]
            for peer in given.peers.split(","):
                one = Side(peer, "bench.trl_preference", [json.dumps(asked | {"setting": peer})], peer=".", threads=given.threads, device=given.device)  # fmt: skip
                sides.append(stack.enter_context(one))
            found = in_turns(sides, given.rounds, lambda: products_now(given.device))
        need = operations(shape, rows)
        report.add(
            f"preference {size}",
            found,
            len(rows),
            {kind: need / found["limits"][kind] / 1e9 for kind in ("fp32", "bf16")},
        )


if __name__ == "__main__":
    main()
