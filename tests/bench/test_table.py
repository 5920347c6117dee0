"""What the comparison makes of the turns of two sides."""

import argparse
import json
from pathlib import Path

import pytest

from bench.shapes import SHAPES
from bench.sides import in_turns
from bench.table import Report, forward


class Played:
    """A side whose turns take given seconds."""

    def __init__(self, name: str, seconds: list[float]) -> None:
        self.name, self.left = name, list(seconds)

    def turn(self) -> dict[str, float]:
        seconds = self.left.pop(0)
        return {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_mb": 10.0}

    def cpu_seconds(self) -> float:
        return 0.0


def test_a_ratio_is_the_median_of_the_rounds_and_the_limit_is_asked_in_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [Played("ours", [1.0, 2.0, 4.0]), Played("trl-default", [3.0, 4.0, 20.0])]
    limits = iter([100.0, 300.0, 200.0])
    found = in_turns(sides, 3, lambda: {"fp32": next(limits), "bf16": 1.0})
    assert found["limits"] == {"fp32": 200.0, "bf16": 1.0}
    report = Report(
        "policy", "episodes/s", argparse.Namespace(json=tmp_path / "found.json"), {"fp32": 1.0, "bf16": 1.0}
    )
    report.add("policy 1m", found, 64, {"fp32": 0.5, "bf16": 0.1})
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["ratio_least"], row["ratio"], row["ratio_most"]) == (2.0, 3.0, 5.0)
    assert (row["ours"], row["peer"], row["cpu_ratio"]) == (32.0, 16.0, 2.0)
    assert row["share_of_limit"]["fp32"] == 0.25
    assert (row["required"], row["moonshot"]) == (2.5, 6)
    assert "policy 1m, trl-default" in capsys.readouterr().out


def test_operations_of_a_forward_pass_by_hand() -> None:
    # 1m: 4 layers of 4·128² + 3·128·352 weights; a causal pass over 10 tokens sees half of 10² places, two products each
    body = 4 * (4 * 128 * 128 + 3 * 128 * 352)
    assert forward(SHAPES["1m"], [10], 3) == 2 * body * 10 + 4 * 2 * 128 * 100 + 2 * 3 * 128 * 2048
