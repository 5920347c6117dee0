"""Sampling: our engine beside Hugging Face `generate`; same weights, prompts and lengths, temperature 1, no top-k or top-p.

    python -m bench.generate [--sizes 1m,10m,50m,124m] [--batches 1,8,64] [--quick] [--json FILE]

A turn writes 64 tokens after each of B prompts of 64, as often as it takes to last a while. No reply ends early.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

from bench.limits import bandwidth, measured, products_now
from bench.shapes import SHAPES, Shape, models, prompts
from bench.sides import Side, Turns, in_turns
from bench.table import Report, forward, parser

LEAST_SECONDS = 0.6  # of a turn
GUESSES = {"1m": 500, "10m": 130, "50m": 40, "124m": 15, "0.5b": 30, "7b": 30}  # the peer's tokens a second at batch 1


def repeats(shape: Shape, batch: int, new: int) -> int:
    """Return how often a turn writes its batch, so that it lasts about as long as LEAST_SECONDS."""
    return max(1, round(LEAST_SECONDS * GUESSES[shape.name] * min(batch, 8) ** 0.6 / (batch * new)))


def serve_ours(shape: Shape, batch: int, asked: dict[str, Any]) -> None:
    """Our engine's turns."""
    from training.models.snapshots import load_policy
    from training.processes.device import device_of_choice
    from training.sampling.engine import Engine, generate

    turns = Turns()
    model, tokenizer = load_policy(models(shape).policy)
    engine = Engine(model.to(device_of_choice()), tokenizer, slots=batch)
    engine.stop_ids = frozenset()  # a random model ends its replies by chance
    rows, new = prompts(shape, batch, asked["prompt"], asked["prompt"]), asked["new"]
    seeds = list(range(batch))
    while True:
        for _ in range(asked["repeats"]):
            made = generate(engine, rows, seeds, new)
            assert int(made.mask.sum()) == batch * new
        turns.end()
        turns.begin()


def serve_generate(shape: Shape, batch: int, asked: dict[str, Any], dtype: str) -> None:
    """Hugging Face's turns."""
    import torch
    from transformers import AutoModelForCausalLM

    turns = Turns()
    model = AutoModelForCausalLM.from_pretrained(models(shape).policy, dtype=getattr(torch, dtype)).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    ids = torch.tensor(prompts(shape, batch, asked["prompt"], asked["prompt"]), device=model.device)
    settings = {
        "max_new_tokens": asked["new"], "do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0,
        "pad_token_id": 0, "eos_token_id": None,
    }  # fmt: skip
    while True:
        for _ in range(asked["repeats"]):
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
            assert made.shape[1] == asked["prompt"] + asked["new"]
        turns.end()
        turns.begin()


def least_seconds(shape: Shape, batch: int, asked: dict[str, Any], limits: dict[str, Any]) -> dict[str, float]:
    """At least so long: the prompt's products, then each token's products or its weights and keys and values read once."""
    found = {}
    for kind, size in (("fp32", 4), ("bf16", 2)):
        flops = limits[kind] * 1e9
        took = forward(shape, [asked["prompt"]] * batch, batch) / flops
        weights = (shape.body + shape.head) * size
        for length in range(asked["prompt"], asked["prompt"] + asked["new"] - 1):
            cache = 2 * shape.layers * shape.width / shape.group * length * size * batch
            reading = (weights + cache) / (limits[f"memory {kind}"] * 1e9)
            products = batch * (2 * (shape.body + shape.head) + 4 * shape.layers * shape.width * length) / flops
            took += max(reading, products)
        found[kind] = took
    return found


def limits_now(shape: Shape, device: str) -> dict[str, float]:
    """Matrix products, and reading memory of the size of the weights in either precision."""
    megabytes = (shape.body + shape.head) * 4 / 1e6
    reading = {
        f"memory {kind}": bandwidth(size, device, 1, 0.05)
        for kind, size in (("fp32", megabytes), ("bf16", megabytes / 2))
    }
    return products_now(device) | reading


def main() -> None:
    """Compare each size and batch."""
    made = parser(__doc__, "1m,10m,50m,124m")
    made.add_argument("--batches", default="1,8,64")
    made.add_argument("--prompt", type=int, default=64)
    made.add_argument("--new", type=int, default=64)
    made.add_argument("--peers", help="of generate-default, generate-bf16")
    given = made.parse_args()
    if given.serve:
        serve(given)
        return
    peers = (given.peers or ("generate-bf16" if given.device == "cuda" else "generate-default")).split(",")
    limits = measured(given.device, given.threads)
    report = Report("generate", "tokens/s", given, limits)
    for size in given.sizes.split(",")[: 1 if given.quick else None]:
        shape = SHAPES[size]
        models(shape)
        for batch in map(int, given.batches.split(",")):
            asked = {"prompt": given.prompt, "new": given.new, "repeats": repeats(shape, batch, given.new)}
            with ExitStack() as stack:
                sides = [
                    stack.enter_context(
                        Side(
                            name, "bench.generate", ["--serve", json.dumps(asked | {"side": name, "size": size, "batch": batch})],
                            peer="" if name == "ours" else ".", threads=given.threads, device=given.device,
                        )
                    )
                    for name in ("ours", *peers)
                ]  # fmt: skip
                found = in_turns(sides, given.rounds, lambda shape=shape: limits_now(shape, given.device))
            least = {
                kind: took * asked["repeats"]
                for kind, took in least_seconds(shape, batch, asked, found["limits"]).items()
            }
            report.add(f"generate {size} {batch}", found, batch * given.new * asked["repeats"], least)


def serve(given: argparse.Namespace) -> None:
    """Be one side."""
    asked = json.loads(given.serve)
    shape, batch = SHAPES[asked["size"]], asked["batch"]
    if asked["side"] == "ours":
        serve_ours(shape, batch, asked)
    else:
        serve_generate(shape, batch, asked, "bfloat16" if asked["side"].endswith("bf16") else "float32")


if __name__ == "__main__":
    main()
