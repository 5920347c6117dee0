"""What the doctor finds, and that it finds what is wrong."""

import hashlib
import json
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from server import cli
from server.cli.installation import check_packages, check_starter


@pytest.fixture
def environment(monkeypatch):
    """A home of its own and a free port; returns what may be set."""
    home = Path(tempfile.mkdtemp(prefix="wh"))
    for name in ("DATABASE_URL", "REDIS_URL", "WHETSTONE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WHETSTONE_HOME", str(home))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(probe.getsockname()[1]))
    yield monkeypatch
    shutil.rmtree(home)


def diagnose(capsys) -> tuple[int, dict]:
    code = cli.run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, {check["name"]: check for check in found["checks"]} | {"healthy": found["ok"]}


def test_this_installation_is_healthy_and_looking_changes_nothing(environment, capsys):
    code, found = diagnose(capsys)
    assert (code, found["healthy"]) == (0, True), found
    assert "at hand" in found["Services"]["detail"]
    assert not (Path(found["Settings"]["detail"].split()[1].rstrip(",")) / "postgres").exists()


def test_a_busy_port_and_a_half_set_environment_are_found(environment, capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        environment.setenv("PORT", str(listener.getsockname()[1]))
        code, found = diagnose(capsys)
    assert (code, found["healthy"], found["Port"]["ok"]) == (1, False, False)
    environment.setenv("DATABASE_URL", "postgresql://db/w")
    code, found = diagnose(capsys)
    assert code == 1
    assert "REDIS_URL is not" in found["Settings"]["detail"]


def test_a_mail_server_is_asked_where_there_is_one(environment, capsys):
    code, found = diagnose(capsys)
    assert (code, found["Mail"]["ok"], found["Mail"]["needed"]) == (0, False, False)
    assert "not offered" in found["Mail"]["detail"]
    environment.setenv("WHETSTONE_SMTP_URL", "smtp://127.0.0.1:1")
    environment.setenv("WHETSTONE_MAIL_FROM", "feedback@lab.example")
    code, found = diagnose(capsys)
    assert (code, found["Mail"]["ok"]) == (1, False)
    assert "127.0.0.1:1 does not take mail" in found["Mail"]["detail"]


def test_a_database_that_does_not_answer_is_found(environment, capsys):
    environment.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/w")
    environment.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    environment.setenv("WHETSTONE_SECRET", "kR7-vN2q_Xw9ZbT4mJ8sLdH1yUeF6oPa")
    code, found = diagnose(capsys)
    assert code == 1
    assert "PostgreSQL does not answer" in found["Services"]["detail"]


def test_in_words_each_line_says_how_to_mend(environment, capsys):
    environment.setenv("PORT", "0")
    assert cli.run(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "ok      Python: 3." in said
    assert "MISSING Settings: PORT is '0'; give a number from 1 to 65535." in said


def test_a_missing_package_is_needed_and_another_version_is_not(tmp_path):
    lock = tmp_path / "run.txt"
    lock.write_text("# head\nclick==0.0.1\n")
    assert (check_packages(lock).ok, check_packages(lock).needed) == (False, False)
    lock.write_text("no-such-package-at-all==1\n")
    assert (check_packages(lock).ok, check_packages(lock).needed) == (False, True)


def test_changed_or_missing_weights_are_found(tmp_path):
    assert not check_starter(tmp_path).ok
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": {"model.safetensors": {"sha256": digest, "bytes": 7}}})
    )
    assert check_starter(tmp_path).ok
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    assert "model.safetensors is not what the manifest says" in check_starter(tmp_path).detail
