"""`whetstone snapshot` as an operator types it, on a real database."""

import json
import shutil
from pathlib import Path

import pytest

from server import cli
from server.cli import fetching
from server.db import session_factory
from server.errors import BadInput
from server.services.snapshots import registry
from tests import factories
from tests.training.conftest import built_policies, pm_path, tiny_policy, tokenizer
from training.models.models import PreferenceModel

__all__ = ["built_policies", "pm_path", "tiny_policy", "tokenizer"]


@pytest.fixture
def whetstone(settings, committed, tmp_path, monkeypatch, capfd):
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WHETSTONE_ARTIFACTS", str(tmp_path / "artifacts"))

    def call(*arguments):
        capfd.readouterr()
        code = cli.run(["snapshot", *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.mark.slow
def test_add_list_check_deploy_and_roll_back(whetstone, committed, tiny_policy, tmp_path):
    with session_factory(committed).begin() as db:
        factories.campaign(db, slug="helpful", served_by=factories.snapshot(db, name="before"))
    assert whetstone("add", tiny_policy, "--name", "mine", "--copy")[0] == 0
    folder = tmp_path / "artifacts" / "snapshots" / "mine"
    assert (folder / "model.safetensors").read_bytes() == (tiny_policy / "model.safetensors").read_bytes()
    code, _, err = whetstone("add", tiny_policy, "--name", "mine")
    assert (code, "mine already" in err) == (1, True)
    assert whetstone("check", "mine")[0] == 0

    assert whetstone("deploy", "mine:3", "before:1", "--campaign", "helpful")[0] == 0
    found = {one["name"]: one["serves"] for one in json.loads(whetstone("list", "--json")[1])}
    assert found == {"mine": {"helpful": 0.75}, "before": {"helpful": 0.25}}
    assert whetstone("rollback", "--campaign", "helpful")[0] == 0
    assert json.loads(whetstone("show", "before", "--json")[1])["serves"] == {"helpful": 1.0}

    (folder / "model.safetensors").write_bytes(b"other")
    code, _, err = whetstone("check", "mine")
    assert (code, "damaged" in err) == (1, True)


@pytest.mark.slow
def test_a_preference_model_is_registered_as_one_and_scores_for_the_best_of_k(
    whetstone, tiny_policy, pm_path, tmp_path
):
    assert whetstone("add", tiny_policy, "--name", "mine")[0] == 0
    for name, copied in (("there", []), ("here", ["--copy"])):
        code, out, _ = whetstone("add", pm_path, "--name", name, *copied)
        assert (code, f"--preference-model {name}" in out) == (0, True)
        assert json.loads(whetstone("show", name, "--json")[1])["kind"] == "pm"
        assert whetstone("best-of", f"best-{name}", "--policy", "mine", "--preference-model", name)[0] == 0
    assert whetstone("check", "there")[0] == 0
    assert whetstone("check", "best-here")[0] == 0
    folder = tmp_path / "artifacts" / "snapshots" / "here"
    PreferenceModel.load(folder)  # the copy can be loaded
    (folder / "head.safetensors").write_bytes(b"other")
    code, _, err = whetstone("check", "best-here")
    assert (code, "head.safetensors is damaged" in err) == (1, True)


@pytest.mark.slow
def test_what_cannot_be_served_is_refused_with_a_sentence_and_leaves_nothing(whetstone, tiny_policy, tmp_path):
    folder = shutil.copytree(tiny_policy, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    (folder / "manifest.json").unlink()
    code, _, err = whetstone("add", folder, "--name", "bare", "--copy")
    assert (code, f"{folder} has no chat template" in err) == (1, True)
    code, _, err = whetstone("add", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--name", "far")
    assert (code, "did not answer" in err) == (1, True)
    assert json.loads(whetstone("list", "--json")[1]) == []
    assert list((tmp_path / "artifacts" / "snapshots").iterdir()) == []


def test_wrong_calls_and_names_are_refused(whetstone):
    assert whetstone("add", "--name", "x")[0] == 2
    code, _, err = whetstone("deploy", "nobody", "--campaign", "helpful")
    assert (code, "There is no snapshot nobody" in err) == (1, True)
    code, _, err = whetstone("add", "neither/here/nor", "--name", "x")
    assert (code, "neither a directory" in err) == (1, True)


def test_files_that_are_not_those_of_their_manifest_are_not_signed_anew(tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").write_bytes(b"whole")
    manifest = registry.folder_manifest(tmp_path, "pm")
    (tmp_path / registry.MANIFEST).write_text(
        json.dumps(manifest | {"files": manifest["files"] | {"left_out.bin": {}}})
    )
    fetching._sign(tmp_path)
    assert json.loads((tmp_path / registry.MANIFEST).read_text()) == manifest  # of what is here
    (tmp_path / "head.safetensors").write_bytes(b"holed")
    with pytest.raises(BadInput, match=r"head\.safetensors is damaged"):
        fetching._sign(tmp_path)
