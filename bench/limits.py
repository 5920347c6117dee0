"""What the machine can do: matrix products by precision and rows, memory bandwidth by size, the cost of one operator.

python -m bench.limits [--quick] [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LARGE = {"cpu": 2048, "cuda": 8192}


def seconds_of(work: Callable[[], object], device: str, repeats: int, least: float) -> float:
    """Return the median seconds of a call; a repeat lasts at least `least` seconds."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def timed(count: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(count):
            work()
        wait()
        return (time.perf_counter() - began) / count

    timed(2)
    count = max(1, int(least / max(timed(1), 1e-7)))
    return statistics.median(timed(count) for _ in range(repeats))


def gflops(rows: int, inner: int, outer: int, dtype: torch.dtype, device: str, repeats: int, least: float) -> float:
    """Return GFLOP/s of rows [rows, inner] times weights [inner, outer]."""
    x = torch.randn(rows, inner, device=device).to(dtype)
    weight = torch.randn(outer, inner, device=device).to(dtype)
    took = seconds_of(lambda: torch.nn.functional.linear(x, weight), device, repeats, least)
    return 2 * rows * inner * outer / took / 1e9


def bandwidth(megabytes: float, device: str, repeats: int, least: float) -> float:
    """Return GB/s of reading this much float32 once, by whichever of a matrix-vector product and a sum is faster."""
    weight = torch.ones(max(1, int(megabytes * 250)), 1000, device=device)  # written, so that its pages exist
    x = torch.ones(1000, device=device)
    took = min(
        seconds_of(work, device, repeats, least)
        for work in (lambda: torch.mv(weight, x), lambda: weight.view(-1).sum())
    )
    return weight.numel() * 4 / took / 1e9


def measured(device: str, threads: int, *, quick: bool = True) -> dict[str, Any]:
    """Measure; about ten seconds when quick."""
    torch.set_num_threads(threads)
    repeats, least = (3, 0.1) if quick else (5, 0.2)
    large = LARGE[device]
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    found: dict[str, Any] = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    found |= {name: gflops(large, large, large, kind, device, repeats, least) for name, kind in kinds.items()}
    sizes = (4, 40, 200) if quick else (1, 4, 16, 40, 100, 200, 500)
    found["bandwidth"] = {str(size): bandwidth(size, device, repeats, least) for size in sizes}
    if not quick:
        found["rows"] = {
            f"{name} {rows}x{width}x{3 * width}": gflops(rows, width, 3 * width, kind, device, repeats, least)
            for name, kind in kinds.items()
            for rows in (1, 8, 64, 1024)
            for width in (128, 320, 512, 768)
        }
        x = torch.randn(8, 128, device=device)
        found["operator_us"] = 1e6 * seconds_of(lambda: x + x, device, repeats, least)
    return found


def products_now(device: str) -> dict[str, float]:
    """Return GFLOP/s of large matrix products at this moment, by precision; about half a second."""
    large = LARGE[device]
    return {
        name: gflops(large, large, large, kind, device, 1, 0.1)
        for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measured(given.device, given.threads, quick=given.quick)
    print(f"large matrix products: fp32 {found['fp32']:,.0f}, bf16 {found['bf16']:,.0f} GFLOP/s")
    print("memory, GB/s: " + ", ".join(f"{size} MB {rate:.0f}" for size, rate in found["bandwidth"].items()))
    for name, rate in found.get("rows", {}).items():
        print(f"  {name:>20} {rate:9,.1f} GFLOP/s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
