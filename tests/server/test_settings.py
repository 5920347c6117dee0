"""What the environment may say, and what it may not."""

import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from server import cli, settings
from server.settings import SettingsError, load_settings

SECRET = "kR7-vN2q_Xw9ZbT4mJ8sLdH1yUeF6oPa"
OWN = {"DATABASE_URL": "postgres://me:pw@db/w", "REDIS_URL": "redis://r:6379/0", "WHETSTONE_SECRET": SECRET}


def test_nothing_given_is_an_embedded_home_on_the_loopback(tmp_path):
    found = load_settings({"WHETSTONE_HOME": str(tmp_path / "home")})
    assert (found.host, found.port, found.demo, found.embedded) == ("127.0.0.1", 8000, False, True)
    assert found.public_url == "http://127.0.0.1:8000"
    assert found.artifacts == str(tmp_path / "home" / "artifacts")
    assert not found.cookie_secure


def test_artifacts_are_one_folder_wherever_a_command_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_settings({**OWN, "WHETSTONE_HOME": str(tmp_path), "WHETSTONE_ARTIFACTS": "shared/models"})
    assert found.artifacts == str(tmp_path / "shared" / "models")
    with pytest.raises(SettingsError, match="mounting"):
        load_settings({**OWN, "WHETSTONE_HOME": str(tmp_path), "WHETSTONE_ARTIFACTS": "s3://bucket/models"})


def test_the_home_gets_a_secret_of_its_own_that_stays(tmp_path):
    first, again = (load_settings({"WHETSTONE_HOME": str(tmp_path)}) for _ in range(2))
    other = load_settings({"WHETSTONE_HOME": str(tmp_path / "other")})
    assert first.secret == again.secret != other.secret
    assert len(first.secret) >= 64
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_secret_is_not_shown_by_accident(tmp_path):
    assert SECRET not in repr(load_settings({**OWN, "WHETSTONE_HOME": str(tmp_path)}))
    assert "pw" not in repr(load_settings({**OWN, "WHETSTONE_HOME": str(tmp_path)}))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_spelling_of_postgres_is_taken(scheme):
    assert load_settings({**OWN, "DATABASE_URL": f"{scheme}://me@db/w"}).database_url == "postgresql+psycopg://me@db/w"


def test_settings_survive_the_way_through_a_childs_environment(tmp_path):
    given = {**OWN, "WHETSTONE_HOME": str(tmp_path), "PORT": "81", "WHETSTONE_PUBLIC_URL": "https://lab.org/"}
    found = load_settings(given)
    assert load_settings(found.environment()) == found
    assert found.cookie_secure
    assert found.public_url == "https://lab.org"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"REDIS_URL": ""}, "DATABASE_URL is set and REDIS_URL is not"),
        ({"DATABASE_URL": " "}, "REDIS_URL is set and DATABASE_URL is not"),
        ({"WHETSTONE_SECRET": ""}, "shorter than 32"),
        ({"WHETSTONE_SECRET": "x7" * 15}, "shorter than 32"),
        ({"WHETSTONE_SECRET": "a" * 64}, "can be guessed"),
        ({"WHETSTONE_SECRET": "change-me-change-me-0123456789-abc"}, "can be guessed"),
        ({"DATABASE_URL": "sqlite:///x.db"}, "needs PostgreSQL"),
        ({"REDIS_URL": "memcache://x"}, "REDIS_URL begins with 'memcache'"),
        ({"PORT": "eighty"}, "PORT is 'eighty'"),
        ({"PORT": "70000"}, "from 1 to 65535"),
        ({"WHETSTONE_PUBLIC_URL": "lab.org"}, "WHETSTONE_PUBLIC_URL is 'lab.org'"),
        ({"WHETSTONE_DEMO": "perhaps"}, "give 1 or 0"),
        ({"WHETSTONE_TRAIN_PROCESSES": "0"}, "give the number of GPUs"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(wrong, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        load_settings({**OWN, **wrong})


def test_services_of_ones_own_need_a_secret_of_ones_own():
    with pytest.raises(SettingsError, match="WHETSTONE_SECRET is needed"):
        load_settings({name: value for name, value in OWN.items() if name != "WHETSTONE_SECRET"})


def test_a_refusal_does_not_show_the_password():
    with pytest.raises(SettingsError) as refused:
        load_settings({**OWN, "DATABASE_URL": "mysql://me:hunter2@db/w"})
    assert "hunter2" not in str(refused.value)


def test_a_home_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(SettingsError, match="set WHETSTONE_HOME to another folder"):
        load_settings({"WHETSTONE_HOME": str(tmp_path / "home")})


def test_every_variable_is_in_the_table_at_the_top():
    source = Path(settings.__file__).read_text()
    read = set(re.findall(r'given\.get\("([A-Z_]+)"', source)) | {"WHETSTONE_SECRET"}
    assert read == set(re.findall(r"^\| ([A-Z_]+) ", settings.__doc__, re.MULTILINE))


class TestCommandLine:
    """The frame around every command."""

    def test_help_lists_commands_without_importing_them(self):
        probe = "import sys, server.cli as c; c.run(['--help']); assert not {'sqlalchemy', 'torch', 'redis'} & set(sys.modules)"
        done = subprocess.run([_python(), "-c", probe], capture_output=True, text=True, check=True, cwd=_root())
        assert "Bring the database to this version's tables." in done.stdout

    @pytest.mark.parametrize(
        ("arguments", "code"), [(["nothing"], 2), (["train", "juggle"], 2), (["train"], 2), ([], 2)]
    )
    def test_a_wrong_call_is_2(self, arguments, code):
        assert cli.run(arguments) == code

    def test_a_wrong_environment_is_3_and_one_sentence_on_standard_error(self, monkeypatch, capsys):
        monkeypatch.setenv("PORT", "none")
        assert cli.run(["migrate"]) == 3
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("whetstone: PORT is 'none'")

    def test_every_command_has_help_with_an_example(self, capsys):
        for name in cli.whetstone.list_commands(None):
            assert cli.run([name, "--help"]) == 0
            assert "Example" in capsys.readouterr().out, name

    def test_the_version_is_the_projects(self, capsys):
        assert cli.run(["--version"]) == 0
        project = tomllib.loads((_root() / "pyproject.toml").read_text())["project"]
        assert capsys.readouterr().out.split() == ["whetstone", project["version"]]


def _root() -> Path:
    return Path(settings.__file__).parents[1]


def _python() -> str:
    import sys

    return sys.executable
