"""Every experiment runs in its shortened form, and what it writes is whole."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from training import experiments
from training.experiments.writing import (
    BEGIN,
    END,
    PAGES,
    Claim,
    Findings,
    Options,
    interval,
    student_factor,
    surely_above,
    surely_within,
    table,
)
from training.runs.run_folder import code_version

SOURCES = {
    module.name: (Path(experiments.__path__[0]) / f"{module.name}.py").read_text(encoding="utf-8")
    for module in pkgutil.iter_modules(experiments.__path__)
}
NAMES = [name for name, source in SOURCES.items() if "def main(" in source]
SEEDED = [name for name in NAMES if "each_seed(" in SOURCES[name]]  # their numbers are a list, a seed each


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs_in_its_short_form(name: str, tmp_path: Path) -> None:
    importlib.import_module(f"training.experiments.{name}").main(["--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["quick"] and found["rows"] and found["claims"]
    assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_written_up(name: str) -> None:
    """Its page has prose around the block of its last whole run."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert "QUICK FORM" not in page
    assert len(page.split(BEGIN)[0]) > 300
    assert json.loads((PAGES / f"{name}.json").read_text())["quick"] is False
    assert f"({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SEEDED)
def test_a_page_says_what_its_script_says_of_its_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim or a column that came later is in both, and no figure was corrected by hand."""
    script = importlib.import_module(f"training.experiments.{name}")
    kept = json.loads((PAGES / f"{name}.json").read_text(encoding="utf-8"), object_hook=with_sizes)
    monkeypatch.setattr(script, "each_seed", lambda *_: kept["numbers"])
    script.main(["--seeds", str(kept["seeds"]), "--out", str(tmp_path)])
    again = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert (again["rows"], again["claims"]) == (kept["rows"], kept["claims"])
    page, anew = ((where / f"{name}.md").read_text(encoding="utf-8") for where in (PAGES, tmp_path))
    assert block_of(page) == block_of(anew)


def with_sizes(pairs: dict[str, Any]) -> dict[str | int, Any]:
    """Numbers of pairs as keys again: JSON has made text of them."""
    return {int(key) if key.isdigit() else key: value for key, value in pairs.items()}


def block_of(page: str) -> str:
    """The table and the verdicts; how long the run took stands below them."""
    return page.split(BEGIN)[1].split("![", maxsplit=1)[0]


def test_an_interval_is_students() -> None:
    assert interval([1.0, 2.0, 3.0]) == (2.0, pytest.approx(4.302653 / math.sqrt(3)))
    mean, half = interval([5.0])
    assert mean == 5.0 and math.isnan(half)


@pytest.mark.parametrize(
    ("freedom", "known"),
    [(1, 12.706), (2, 4.303), (5, 2.571), (9, 2.262), (15, 2.131), (16, 2.120), (23, 2.069), (60, 2.000), (120, 1.980)],
)
def test_the_factor_is_that_of_printed_tables(freedom: int, known: float) -> None:
    assert student_factor(freedom) == pytest.approx(known, abs=6e-4)


def test_verdicts_go_by_the_whole_interval() -> None:
    assert surely_above([1.0, 2.0, 1.5]) and not surely_above([-1.0, 5.0, 2.0])
    assert surely_within([0.01, -0.01, 0.0], 0.05)
    assert not surely_within([0.0, 0.2, -0.2], 0.05), "the mean is 0 and little is known"
    assert surely_above([0.1]) and not surely_within([0.1], 0.05)


def test_a_run_writes_its_block_and_keeps_the_prose(tmp_path: Path) -> None:
    page = tmp_path / "mine.md"
    page.write_text(f"# Mine\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")

    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2], [3, 4])

    findings = Findings("mine", Options(quick=False, seeds=3, out=tmp_path, processes=2))
    findings.write(rows=[{"arm": "a", "score": 1}], claims=[Claim("it rises", False, "1 < 2")], numbers=[1], draw=draw)
    text = page.read_text(encoding="utf-8")
    assert "old" not in text and text.startswith("# Mine\n\nbefore\n") and text.endswith("after\n")
    assert "| a | 1 |" in text and "**failed**: it rises (1 < 2)" in text
    assert "*3 seed(s), " in text and " 2 process(es) of 1 thread(s), " in text
    kept = json.loads((tmp_path / "mine.json").read_text())
    assert kept["claims"][0]["held"] is False
    assert (kept["processes"], kept["code_version"]) == (2, code_version())
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match="lost its marks"):
        findings.write(rows=[{"arm": "a"}], claims=[], numbers=[], draw=draw)


def test_a_table_has_a_row_each() -> None:
    assert table([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]) == "| a | b |\n|---|---|\n| 1 | x |\n| 2 | y |"
