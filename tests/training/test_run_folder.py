"""A run folder survives a kill at any moment and is used by one process at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training import results
from training.config import BadConfig, PreferenceConfig, TournamentConfig, load_config
from training.job import run_job
from training.runs import files, run_folder
from training.runs.named import named_models
from training.runs.run_folder import RunFolder, RunFolderError, code_version


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(RunFolderError, match="nowhere is not a directory"):
        RunFolder(tmp_path / "nowhere")


def test_metrics_after_the_checkpoint_are_cut(folder: RunFolder):
    for step in range(1, 6):
        folder.log(step=step, loss=step / 2)
        if step == 3:
            folder.save_checkpoint(3, {"w": torch.tensor([1.0, 2.0])}, {"cursor": 7})
    checkpoint = folder.load_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state, checkpoint.tensors["w"].tolist()) == (3, {"cursor": 7}, [1.0, 2.0])
    assert [line["loss"] for line in folder.metrics()] == [0.5, 1.0, 1.5]


def test_without_a_checkpoint_metrics_begin_anew(folder: RunFolder):
    folder.log(step=1, loss=1.0)
    assert folder.load_checkpoint() is None
    assert folder.metrics() == []


def test_a_half_written_last_line_is_dropped(folder: RunFolder):
    folder.log(step=1, loss=1.0)
    with folder.metrics_file.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert [line["step"] for line in folder.metrics()] == [1]
    folder.cut_metrics(9)
    folder.log(step=2, loss=2.0)
    assert [line["step"] for line in folder.metrics()] == [1, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_no_number_is_named(folder: RunFolder, bad: float):
    with pytest.raises(ValueError, match=r"kl is .* at step 4"):
        folder.log(step=4, kl=bad)
    assert not folder.metrics_file.exists()


def test_a_checkpoint_goes_on_with_the_settings_and_data_that_it_came_from_alone(folder: RunFolder):
    folder.data.mkdir()
    train, settings = folder.data / "train.jsonl", {"learning_rate": 0.1, "threads": 1}
    train.write_text('{"a": 1}\n')
    folder.config_file.write_text(json.dumps(settings))
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})

    def again() -> int:
        found = RunFolder(folder.path).load_checkpoint()
        assert found is not None
        return found.step

    folder.config_file.write_text(json.dumps(settings | {"threads": 2}))  # no number comes from it
    assert again() == 1
    folder.config_file.write_text(json.dumps(settings | {"learning_rate": 0.2}))
    with pytest.raises(RunFolderError, match=r"learning_rate was 0\.1 when this run began and config\.json says 0\.2"):
        again()
    folder.config_file.write_text(json.dumps(settings))
    train.write_text('{"a": 2}\n')
    with pytest.raises(RunFolderError, match=r"data/train\.jsonl .* is not what it was"):
        again()
    train.write_text('{"a": 1}\n')
    (folder.data / "test.jsonl").write_text("")
    with pytest.raises(RunFolderError, match=r"data/test\.jsonl .* is not what it was"):
        again()
    (folder.data / "test.jsonl").unlink()
    assert again() == 1


def test_another_model_in_the_named_directory_is_refused(folder: RunFolder, tmp_path: Path):
    """With a manifest, which has the hashes of its files, and without one."""
    for name in ("policy", "pm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"1")
    (tmp_path / "pm" / "manifest.json").write_text("{}")
    named = {"model": str(tmp_path / "policy"), "preference_model": str(tmp_path / "pm"), "cache": str(tmp_path)}
    files.write_json(folder.config_file, named)
    assert folder.load_checkpoint() is None
    (tmp_path / "policy" / ".cache").mkdir()
    (tmp_path / "policy" / ".cache" / "of").write_bytes(b"no part of a model")
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})
    assert RunFolder(folder.path).load_checkpoint() is not None
    for path, before, now in (
        (tmp_path / "policy" / "model.safetensors", b"1", b"2"),
        (tmp_path / "pm" / "manifest.json", b"{}", b'{"files": {}}'),
    ):
        path.write_bytes(now)
        with pytest.raises(RunFolderError, match=rf"the model {path.parent} is not what it was when this run began"):
            RunFolder(folder.path).load_checkpoint()
        path.write_bytes(before)
    assert RunFolder(folder.path).load_checkpoint() is not None


def test_another_text_in_the_named_file_is_refused_and_runs_that_do_not_say_go_on(
    folder: RunFolder, tmp_path: Path
) -> None:
    prompt = tmp_path / "hhh.txt"
    prompt.write_text("Be kind.")
    files.write_json(folder.config_file, {"prompt": str(prompt), "prefixes": [f"late={prompt}"]})
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})
    folder.write_result({})
    assert RunFolder(folder.path).load_checkpoint() is not None
    RunFolder(folder.path).refuse_others("distill", {})
    prompt.write_text("Be terse.")
    for refused in (RunFolder.load_checkpoint, lambda found: found.refuse_others("distill", {})):
        with pytest.raises(
            RunFolderError, match=rf"the file {prompt} is not what it was when this run began; put it back"
        ):
            refused(RunFolder(folder.path))
    state = json.loads((folder.checkpoint / "state.json").read_text())
    assert list(state["begun"].pop("files")) == [str(prompt), f"late={prompt}"]
    files.write_json(folder.checkpoint / "state.json", state)
    assert RunFolder(folder.path).load_checkpoint() is not None
    RunFolder(folder.path).refuse_others("distill", {})


def test_what_a_run_begins_with_is_what_it_finds_at_its_start(folder: RunFolder, tmp_path: Path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"1")
    files.write_json(folder.config_file, {"model": str(tmp_path / "policy")})
    assert folder.load_checkpoint() is None
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"2")  # loaded before, so the run goes on with the first
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})
    with pytest.raises(RunFolderError, match="is not what it was"):
        RunFolder(folder.path).load_checkpoint()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(folder: RunFolder):
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})

    def killed(part: Path) -> None:
        (part / "tensors.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.replace_directory(folder.checkpoint, killed)
    with folder.lock():
        found = folder.load_checkpoint()
    assert found is not None and found.step == 1
    assert not list(folder.path.glob(".checkpoint.*"))


def test_a_kill_between_the_two_renames_is_undone(folder: RunFolder):
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})
    folder.checkpoint.rename(folder.path / ".checkpoint.old")
    with folder.lock():
        found = folder.load_checkpoint()
    assert found is not None and found.step == 1


def test_a_damaged_checkpoint_says_what_to_do(folder: RunFolder):
    folder.save_checkpoint(1, {"w": torch.zeros(100)}, {})
    file = folder.checkpoint / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunFolderError, match=r"damaged .* delete it to start the run again"):
        folder.load_checkpoint()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(folder: RunFolder):
    with folder.lock():
        code = (
            "import sys; from training.runs.run_folder import RunFolder, RunFolderError\n"
            "try:\n  RunFolder(sys.argv[1]).lock().__enter__()\nexcept RunFolderError as e: print(e)"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True, check=True
        )
    assert f"is in use by process {os.getpid()}" in told.stdout
    with folder.lock():  # free again
        pass


def test_a_folder_that_cannot_be_written_to_is_said(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    with folder.lock():
        pass
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write everywhere
        with (
            pytest.raises(RunFolderError, match=r"cannot be written to \(Permission denied\), as a run"),
            folder.lock(),
        ):
            pass
        folder.result_file.write_text("{}")
        with pytest.raises(RunFolderError, match=r"it is finished, and its result\.json stands"), folder.lock():
            pass
        folder.result_file.unlink()
    (folder.path / ".lock").unlink()
    (folder.path / ".lock").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot be written to \(Is a directory\)"), folder.lock():
        pass


def test_launching_imports_no_torch():
    code = "import sys, training.runs.run_folder, training.lines.records; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_configure_writes_every_setting_with_code_version(folder: RunFolder):
    files.write_json(folder.config_file, {"model": "m", "epochs": 2})
    config = folder.configure(PreferenceConfig, "preference", seed=5, model=None)
    assert (config.model, config.epochs, config.seed) == ("m", 2, 5)
    written = json.loads(folder.config_file.read_text())
    assert written["batch_prompts"] == 16 and written["seed"] == 5 and written["job"] == "preference"
    assert len(written["code_version"]) == 12
    assert folder.configure(PreferenceConfig, "preference") == config  # reads back what it wrote


def test_a_run_keeps_the_code_version_it_began_with_and_hashes_nothing_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    folder.configure(PreferenceConfig, "preference", model="m")
    begun = folder.settings()["code_version"]
    monkeypatch.setattr(run_folder, "code_version", lambda: pytest.fail("the sources are read again"))
    folder.configure(PreferenceConfig, "preference")
    assert folder.settings()["code_version"] == begun


def test_the_kernels_are_part_of_the_code_version_and_what_is_compiled_is_not(tmp_path: Path):
    versions = set()
    for name in ("a.py", "native/sum.c", "native/sum.h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
        versions.add(code_version(tmp_path))
    assert len(versions) == 3
    (tmp_path / "native" / "sum.so").write_text("1")
    assert code_version(tmp_path) in versions


def test_another_job_or_another_setting_in_mid_run_is_refused(folder: RunFolder):
    folder.configure(PreferenceConfig, "preference", model="m")
    with pytest.raises(RunFolderError, match="belongs to the job 'preference'"):
        folder.configure(PreferenceConfig, "policy")
    folder.save_checkpoint(1, {"w": torch.zeros(1)}, {})
    with pytest.raises(RunFolderError, match="model was 'm' when this run began"):
        folder.configure(PreferenceConfig, "preference", model="other")


@pytest.mark.parametrize("kind", [list, tuple])
def test_the_same_list_again_is_no_other_setting(kind: type, folder: RunFolder):
    begun = folder.configure(TournamentConfig, "tournament", snapshots=kind("ab"))
    folder.parts_file.write_text("{}\n")  # something is measured
    assert folder.configure(TournamentConfig, "tournament", snapshots=kind("ab")) == begun
    with pytest.raises(RunFolderError, match=r"snapshots was \['a', 'b'\] when this run began"):
        folder.configure(TournamentConfig, "tournament", snapshots=kind("ac"))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"learning_rat": 1.0}, r"^unknown setting 'learning_rat'; did you mean 'learning_rate'[^,]*\?$"),
        ({"steps": 1}, "unknown setting 'steps'; PreferenceConfig knows adam_beta2, .*, weight_decay"),
        ({"epochs": "1"}, "epochs must be a whole number, not '1'"),
        ({"epochs": True}, "epochs must be a whole number, not True"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"model": 3}, "model must be text"),
        ({"schedule": "sine"}, "schedule must be one of 'cosine', 'linear', 'constant', not 'sine'"),
        ({"held_out": 1.5}, "held_out must lie between 0 and 1"),
        ({"max_grad_norm": 0}, "max_grad_norm must be above 0"),
    ],
)
def test_a_bad_setting_is_named(settings: dict, complaint: str):
    with pytest.raises(BadConfig, match=complaint):
        load_config(PreferenceConfig, settings)


def test_a_whole_number_serves_as_a_float():
    assert load_config(PreferenceConfig, {"lm_weight": 1}).lm_weight == 1.0


def test_a_finished_run_is_not_taken_for_one_of_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.config_file.write_text(json.dumps({"seed": 3, "k": [1, 2]}))
    folder.write_result({"seconds": 1.0})
    for given, code in (
        ({}, 0),
        ({"seed": 3, "k": (1, 2)}, 0),
        ({"seed": None}, 0),
        ({"seed": 4}, 2),
        ({"k": (1,)}, 2),
    ):
        assert run_job("sft", str(folder.path), lambda _folder: {}, given) == code
        told = capsys.readouterr().err
        assert ("its result.json stands" in told) == (code == 0) and ("start a new folder" in told) == (code == 2)
    assert folder.result() == {"seconds": 1.0} and not folder.failure_file.exists()
    folder.checkpoint.mkdir()
    (folder.checkpoint / "state.json").write_text(json.dumps({"begun": {"settings": {"seed": 3}, "data": {}}}))
    assert run_job("sft", str(folder.path), lambda _folder: {}) == 0
    folder.config_file.write_text(json.dumps({"seed": 5}))
    assert run_job("sft", str(folder.path), lambda _folder: {}) == 2
    assert "seed was 3 when this run began and config.json says 5" in capsys.readouterr().err


def test_a_finished_run_is_not_taken_for_one_of_another_job_or_of_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("checkpoint", "parts"):
        folder = results.run_folder(tmp_path / kind, {"job": "sft"}, train=[{"text": "one"}])
        run = RunFolder(folder)
        if kind == "checkpoint":
            run.save_checkpoint(1, {}, {})
        else:
            run.parts_file.write_text(json.dumps({"data": run.data_hashes()}) + "\n")
        run.write_result({"seconds": 1.0})
        assert run_job("sft", str(folder), lambda _folder: {}) == 0
        assert run_job("preference", str(folder), lambda _folder: {}) == 2
        assert "belongs to the job 'sft', not 'preference'" in capsys.readouterr().err
        (folder / "data/train.jsonl").write_text("other")
        assert run_job("sft", str(folder), lambda _folder: {}) == 2
        assert "data/train.jsonl of" in capsys.readouterr().err


def test_what_is_interrupted_says_where_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = results.run_folder(tmp_path / "run", {})

    def interrupted(run: RunFolder) -> dict:
        raise KeyboardInterrupt

    def saved(run: RunFolder) -> dict:
        run.save_checkpoint(7, {}, {})
        raise KeyboardInterrupt

    for work, where in ((interrupted, "from the beginning"), (saved, "from the checkpoint of step 7")):
        assert run_job("sft", str(folder), work) == 130
        assert f"interrupted; the same command goes on {where}" in capsys.readouterr().err
    assert not (folder / "failure.json").exists()


def test_what_parts_of_earlier_versions_do_not_say_is_no_difference_and_damage_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = results.run_folder(tmp_path / "run", {}, test=[{"text": "one"}])
    RunFolder(folder).write_result({"seconds": 1.0})
    for header, code in (("{}\n", 0), ("", 2), ("{", 2)):
        (folder / "parts.jsonl").write_text(header)
        assert run_job("hhh", str(folder), lambda _folder: {}) == code
        assert ("is damaged" in capsys.readouterr().err) == (code == 2)


def test_what_is_interrupted_before_there_is_a_folder_ends_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.job.RunFolder", interrupted)
    assert run_job("sft", str(tmp_path / "none"), lambda _folder: {}) == 130
    assert "from the beginning" in capsys.readouterr().err


def test_snapshots_that_are_named_are_hashed_too(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    plain, named = named_models([str(tmp_path)]), named_models({"snapshots": [f"mine={tmp_path}"]})
    assert list(plain.values()) == list(named.values()) and list(named) == [f"mine={tmp_path}"]
