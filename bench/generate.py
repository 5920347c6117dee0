"""Sampling: our engine beside Hugging Face `generate`, same weights, prompts, lengths and settings, in turn in one run.

    python -m bench.generate --model training/starter/model --batches 1,8,64

Prints tokens a second of both and the ratio ours / theirs, medians over pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from training.engine import Engine, generate
from training.snapshots import load_policy


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="training/starter/model")
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, tokenizer = load_policy(given.model)
    # No reply may end early: both sides must write the same number of tokens.
    model.generation_config.eos_token_id = None
    rows = []
    for batch in map(int, given.batches.split(",")):
        ids = torch.randint(10, model.config.vocab_size, (batch, given.prompt))
        engine = Engine(model, tokenizer, slots=batch)
        engine.stop_ids = frozenset()
        prompts = ids.tolist()

        def ours(engine: Engine = engine, prompts: list[list[int]] = prompts) -> None:
            made = generate(engine, prompts, list(range(len(prompts))), given.new)
            assert int(made.mask.sum()) == len(prompts) * given.new

        def theirs(ids: torch.Tensor = ids) -> None:
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
                max_new_tokens=given.new, pad_token_id=tokenizer.pad_token_id, eos_token_id=None,
            )  # fmt: skip
            assert made.shape[1] == given.prompt + given.new

        ours()
        theirs()
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(given.pairs)]
        tokens = batch * given.new
        rows.append(
            {
                "batch": batch,
                "ours_tokens_per_second": round(tokens / statistics.median(a for a, _ in pairs)),
                "generate_tokens_per_second": round(tokens / statistics.median(b for _, b in pairs)),
                "ratio": round(statistics.median(b / a for a, b in pairs), 2),
            }
        )
    if given.json:
        print(json.dumps({"what": "generate", "model": given.model, "new": given.new, "rows": rows}))
    else:
        for row in rows:
            print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
