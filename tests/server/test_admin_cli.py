"""The commands for people, campaigns, imports and exports, run as a person runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from server import cli
from server.settings import Settings
from tests.workers.lines import hh_lines, write


@pytest.fixture
def whetstone(
    committed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call a command; (exit code, standard output, standard error)."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_people(whetstone: Callable[..., tuple[int, str, str]], settings: Settings) -> None:
    code, out, _ = whetstone("person", "add", "Ada", "--role", "admin", "--json")
    assert (code, json.loads(out)["roles"]) == (0, ["admin"])
    code, out, _ = whetstone("person", "invite", "--role", "researcher", "--uses", "3", "--json")
    assert json.loads(out)["link"].startswith(f"{settings.public_url}/invitation/")
    code, out, _ = whetstone("person", "list", "--json")
    assert [(row["name"], row["answers"]) for row in json.loads(out)] == [("Ada", 0)]
    code, out, _ = whetstone("person", "link", "Ada")
    assert out.startswith(f"{settings.public_url}/sign-in/")
    code, out, _ = whetstone("person", "password", "Ada", "--password", "correct horse")
    assert (code, out) == (0, "Ada has another password and is signed out everywhere.\n")
    assert whetstone("person", "password", "Ada", "--password", "short")[0] == 1
    code, _, err = whetstone("person", "disable", "Ada")
    assert code == 1 and "only admin" in err
    code, _, err = whetstone("person", "disable", "Nobody")
    assert code == 1 and "person list" in err


def test_campaigns(whetstone: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    words = tmp_path / "i.md"
    words.write_text("Compare.")
    add = ("campaign", "add", "essays", "--name", "Essays", "--instructions", words, "--set", "overlap=2")
    assert whetstone(*add)[0] == 0
    assert whetstone(*add)[0] == 1
    shown = json.loads(whetstone("campaign", "show", "essays", "--json")[1])
    assert (shown["status"], shown["overlap"], shown["instructions"]) == ("paused", 2, "Compare.")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\n")
    code, out, _ = whetstone("campaign", "edit", "essays", "--set", "quota=10", "--prompts", prompts)
    assert (code, out) == (0, "quota: None -> 10\nprompts: 2 new\n")
    assert "overlap must be" in whetstone("campaign", "edit", "essays", "--set", "overlap=0")[2]
    assert whetstone("campaign", "open", "essays")[1] == "essays is open.\n"
    assert json.loads(whetstone("campaign", "list", "--json")[1])[0]["status"] == "open"


@pytest.mark.slow
def test_import_and_export_as_commands(whetstone: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    words = tmp_path / "i.md"
    words.write_text("Compare.")
    whetstone("campaign", "add", "in", "--name", "In", "--instructions", words)
    sample = write(tmp_path / "sample.jsonl", hh_lines())
    code, out, _ = whetstone("import", sample, "--campaign", "in", "--json")
    assert (code, json.loads(out)["comparisons"]) == (0, 6)
    code, _, err = whetstone("import", sample, "--campaign", "in")
    assert code == 1 and "in campaign in already" in err
    bad = write(tmp_path / "bad.jsonl", [hh_lines()[0], "{"])
    code, _, err = whetstone("import", bad, "--campaign", "in")
    assert code == 1 and "line 2: is not JSON" in err
    written = tmp_path / "out" / "hh.jsonl"
    code, out, _ = whetstone("export", "--campaign", "in", "--out", written, "--json")
    assert code == 0 and written.read_bytes() == sample.read_bytes()
    assert json.loads(written.with_name("hh.jsonl.manifest.json").read_text())["comparisons"] == 6
    assert whetstone("export", "--campaign", "in", "--out", bad / "x")[0] == 1
    assert whetstone("export", "--format", "csv", "--out", written)[0] == 2
