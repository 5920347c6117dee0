"""Parts of a measurement: kept by name, refused under other settings, measured by several processes together."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.training.processes import together
from tests.training.results import alike, result_of, run_folder
from tests.training.test_events import shown
from training import best_of, ood, tournament
from training.runs.parts import Parts
from training.runs.run_folder import RunFolder, RunFolderError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Two that matter and one that does not."""

    seed: int = 0
    names: tuple[str, ...] = ("a",)
    threads: int = 0


def nobody(part: str, place: int) -> str:
    return f"number {place} of {part}"


def plain(_part: str, found: dict[str, float]) -> dict[str, float]:
    return {"found": next(iter(found.values()))}


def test_what_is_measured_once_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def work(name: str) -> dict[str, float]:
        asked.append(name)
        return {name: 0.1 + len(asked)}

    heard: list[tuple[int, object]] = []
    first = Parts(RunFolder(tmp_path), Settings()).measure(["x", "y"], work, whose=nobody, told=plain)
    with (tmp_path / "parts.jsonl").open("a") as file:
        file.write('{"part": "z", "fou')  # killed while it wrote
    again = Parts(RunFolder(tmp_path), Settings(threads=2))
    found = again.measure(
        ["x", "y", "z"], work, lambda step, value: heard.append((step, value)), whose=nobody, told=plain
    )
    assert found[:2] == first == [{"x": 1.1}, {"y": 2.1}]
    assert asked == ["x", "y", "z"]
    assert heard == list(enumerate(found, 1))
    logged = [{"step": step, "of": 3, "found": 0.1 + step} for step in (1, 2, 3)]
    assert RunFolder(tmp_path).metrics() == logged
    assert shown(RunFolder(tmp_path))["found"] == [(step, pytest.approx(0.1 + step)) for step in (1, 2, 3)]
    with pytest.raises(RunFolderError, match=r"seed was 0 when .* is 1 now"):
        Parts(RunFolder(tmp_path), Settings(seed=1))


def test_other_data_or_another_model_under_the_same_name_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "manifest.json").write_text("{}")
    (tmp_path / "run" / "data").mkdir(parents=True)
    folder = RunFolder(tmp_path / "run")
    (folder.data / "prompts.jsonl").write_text('{"prompt": "Why?"}\n')
    named = Settings(names=(str(model),))
    Parts(folder, named)
    Parts(folder, named)
    (folder.data / "prompts.jsonl").write_text('{"prompt": "How?"}\n')
    with pytest.raises(RunFolderError, match=r"data/prompts\.jsonl is not what it was"):
        Parts(folder, named)
    (folder.data / "prompts.jsonl").write_text('{"prompt": "Why?"}\n')
    (model / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(RunFolderError, match="model is not what it was"):
        Parts(folder, named)


def test_another_prompt_or_task_is_refused_and_parts_that_do_not_say_go_on(tmp_path: Path) -> None:
    prompt, other = tmp_path / "hhh.txt", tmp_path / "tasks" / "honest" / "task.json"
    own = tmp_path / "run" / "data" / "honest" / "task.json"
    for file in (prompt, other, own):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    folder, named = RunFolder(tmp_path / "run"), Settings(names=(f"late={prompt}", str(tmp_path / "tasks")))
    Parts(folder, named)
    header = json.loads(folder.parts_file.read_text())
    for file, told in ((prompt, f"late={prompt}"), (other, str(other)), (own, "data/honest/task.json")):
        file.write_text("[]")
        with pytest.raises(RunFolderError, match=f"^{told} is not what it was when .* delete parts.jsonl"):
            Parts(folder, named)
        file.write_text("{}")
    (own.parent.parent / "harmless").mkdir()
    (own.parent.parent / "harmless" / "task.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"data/harmless/task\.json is not what it was"):
        Parts(folder, named)
    del header["files"]  # as an earlier version began it
    folder.parts_file.write_text(json.dumps(header) + "\n")
    assert Parts(folder, named).path == folder.parts_file


@pytest.mark.slow
def test_two_processes_measure_as_one_does(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    common = {"max_new_tokens": 6, "slots": 4, "threads": 1, "preference_model": str(pm_path)}
    prompts = [{"prompt": f"Question {n}"} for n in range(5)]
    usual = [{"prompt": f"Question {n}"} for n in range(15)]
    strange = [{"prompt": "ZQ" * n} for n in range(3, 9)]
    jobs = {
        "best_of": (best_of.main, common | {"model": str(tiny_policy), "k": [1, 2]}, {"prompts": prompts}),
        "tournament": (
            tournament.main, common | {"snapshots": [str(tiny_policy), f"b={tiny_policy}", f"c={tiny_policy}"]},
            {"prompts": prompts},
        ),
        "ood": (
            ood.main, {"model": str(tiny_policy), "few_shot": [2], "draws": 2, "threads": 1}, {"inliers": usual, "outliers": strange}
        ),
    }  # fmt: skip
    for name, (main, settings, data) in jobs.items():
        one, two = (run_folder(tmp_path / f"{name}-{count}", settings, **data) for count in (1, 2))
        assert main([str(one)]) == 0
        assert together(2, lambda main=main, two=two: main([str(two)])) == [0, 0]
        alike(result_of(one), result_of(two), 1e-3)
        if (two / "parts.jsonl").exists():
            parts = [
                [json.loads(line)["part"] for line in (path / "parts.jsonl").read_text().splitlines()[1:]]
                for path in (one, two)
            ]
            assert parts[0] == parts[1]
