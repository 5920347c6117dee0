"""The private services, started, killed and started again for real; as root also as an ordinary user."""

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from server.embedded import HomeInUseError, ServiceError, holder_of, own_services, services
from server.embedded.error import explain
from server.embedded.lock import Holder, Lock
from server.embedded.places import Account, can_reach, find_places
from server.settings import load_settings

ROOT = Path(__file__).parents[2]
OWNER = [sys.executable, "-m", "tests.server.owner"]


class Owner:
    """Another process that has the services of a home."""

    def __init__(self, home: Path, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [*OWNER, str(home), *([] if user is None else [str(user)])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.told = self.read()

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the owner ended without a word"
        return json.loads(line)

    def ask(self, word: str):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self, number: int | None = None) -> int:
        """Let it stop in order, or kill it."""
        if number is not None:
            self.process.send_signal(number)
        self.process.stdin.close()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


@pytest.fixture
def home():
    """A home that anyone may walk to; as root its data stay in it."""
    folder = Path(tempfile.mkdtemp(prefix="wh"))
    folder.chmod(0o755)
    yield folder
    for place in (folder, *Path(tempfile.gettempdir()).glob(f"whetstone-*/{folder.name}")):
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def made():
    """A home that has been started before, for tests that only start it again."""
    folder = Path(tempfile.mkdtemp(prefix="wh"))
    with services(load_settings({"WHETSTONE_HOME": str(folder)})):
        pass
    yield folder
    shutil.rmtree(folder)


def psql(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        found = connection.execute(query)
        return found.fetchall() if found.description else []


def wait_for_end(pids: list[int], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


def users() -> list[int | None]:
    """Ourselves; and, as root, an ordinary user too."""
    return [None] if os.geteuid() else [None, pytest.param(pwd.getpwnam("nobody").pw_uid, marks=pytest.mark.slow)]


@pytest.mark.parametrize("user", users(), ids=["ourselves", "ordinary-user"][: len(users())])
def test_what_was_committed_survives_every_kill(home, user):
    if user is not None:
        os.chown(home, user, user)
    owner = Owner(home, user)
    url, redis_url, first = owner.told["database"], owner.told["redis"], owner.told["pids"]

    def run(query: str) -> list[tuple]:
        return psql(url, query) if user is None else psql_as(user, url, query)

    run("create table kept (x int)")
    run("insert into kept values (1)")
    with Redis.from_url(redis_url) as redis:
        redis.lpush("queue", "a message")

    for pid in first:  # the servers die; their owner brings them back at the same address
        os.kill(pid, signal.SIGKILL)
    revived = []
    deadline = time.monotonic() + 10  # a process whose threads are still ending does not count as ended yet
    while len(revived) < 2 and time.monotonic() < deadline:
        revived += owner.ask("revive")
        second = owner.read()["pids"]
    assert sorted(revived) == ["PostgreSQL", "Valkey"]
    assert not set(first) & set(second)
    run("insert into kept values (2)")

    owner.end(signal.SIGKILL)  # the owner dies; its servers do not outlive it
    if sys.platform.startswith("linux"):
        assert wait_for_end(second)
    owner = Owner(home, user)
    assert owner.told["database"] == url
    assert run("select x from kept order by x") == [(1,), (2,)]
    with Redis.from_url(redis_url) as redis:
        assert redis.lrange("queue", 0, -1) == [b"a message"]
    assert owner.end() == 0
    assert wait_for_end(owner.told["pids"], 1)


def psql_as(user: int, url: str, query: str) -> list[tuple]:
    """A query as another user of the system."""
    program = "import sys, os, json, psycopg, encodings.idna\nos.setgroups([])\nos.setgid(int(sys.argv[3]))\nos.setuid(int(sys.argv[3]))\n"
    program += "c = psycopg.connect(sys.argv[1], autocommit=True)\nr = c.execute(sys.argv[2])\n"
    program += "print(json.dumps(r.fetchall() if r.description else []))"
    command = [sys.executable, "-c", program, url.replace("+psycopg", ""), query, str(user)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(row) for row in json.loads(done.stdout)]


def test_a_second_start_says_who_has_the_home_and_a_command_attaches(made):
    owner = Owner(made)
    settings = load_settings({"WHETSTONE_HOME": str(made)})
    with pytest.raises(HomeInUseError, match=rf"process {owner.process.pid} \(a test\) at http://127.0.0.1:8000"):
        own_services(settings, doing="another").__enter__()
    with services(settings) as urls:
        assert urls.database_url == owner.told["database"]
    assert psql(urls.database_url, "select 1") == [(1,)]  # what attached did not stop it
    assert holder_of(made).pid == owner.process.pid
    owner.end()
    assert holder_of(made) is None


def test_a_note_of_a_dead_owner_misleads_nobody(made):
    owner = Owner(made)
    owner.end(signal.SIGKILL)
    assert (made / "services.json").exists()
    with services(load_settings({"WHETSTONE_HOME": str(made)})) as urls:
        assert psql(urls.database_url, "select current_user") == [("whetstone",)]


@pytest.mark.slow
def test_a_deep_home_has_its_sockets_in_a_short_private_folder(home):
    deep = home / ("d" * 60) / ("e" * 60)
    with services(load_settings({"WHETSTONE_HOME": str(deep)})) as urls:
        assert psql(urls.database_url, "select 1") == [(1,)]
        sockets = Path(urls.redis_url.removeprefix("unix://")).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert sockets.parent == Path(tempfile.gettempdir())
    shutil.rmtree(sockets)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as somebody else")
def test_a_home_that_nobody_cannot_reach_keeps_its_data_elsewhere_and_only_we_may_use_them(home):
    home.chmod(0o700)
    closed = home / "closed"
    with services(load_settings({"WHETSTONE_HOME": str(closed)})) as urls:
        base = Path((closed / "data-folder").read_text().strip())
        assert base.parent == Path(tempfile.gettempdir())
        assert (base / "postgres" / "PG_VERSION").exists()
        assert psql(urls.database_url, "select 1") == [(1,)]
        with pytest.raises(AssertionError, match="Peer authentication failed"):
            psql_as(pwd.getpwnam("nobody").pw_uid, urls.database_url, "select 1")
    shutil.rmtree(closed)
    find_places(home / "closed-too")  # the data of a removed throw-away home go with the next start
    assert not base.exists()
    shutil.rmtree((home / "closed-too" / "data-folder").read_text().strip())


def test_data_of_another_version_are_left_alone_with_advice(made):
    settings = load_settings({"WHETSTONE_HOME": str(made)})
    with services(settings):
        pass
    version = made / "postgres" / "PG_VERSION"
    true_version = version.read_text()
    version.write_text("15\n")
    with pytest.raises(ServiceError, match=r"export, and import into a new home"), services(settings):
        pass
    assert (made / "postgres" / "base").is_dir()
    assert holder_of(made) is None
    version.write_text(true_version)


@pytest.mark.slow
def test_a_creation_cut_short_is_begun_anew(home):
    half = home / "postgres.part"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with services(load_settings({"WHETSTONE_HOME": str(home)})) as urls:
        assert psql(urls.database_url, "show server_version_num")[0][0] >= "160000"
    assert not half.exists()


def test_the_database_is_durable_and_listens_to_no_network(made):
    with services(load_settings({"WHETSTONE_HOME": str(made)})) as urls:
        for name, wanted in (
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("listen_addresses", ""),
            ("timezone", "UTC"),
        ):
            assert psql(urls.database_url, f"show {name}") == [(wanted,)], name
        with Redis.from_url(urls.redis_url, decode_responses=True) as redis:
            for name, wanted in (("port", "0"), ("appendonly", "yes"), ("maxmemory-policy", "noeviction")):
                assert redis.config_get(name) == {name: wanted}
        assert stat.S_IMODE((made / "postgres").stat().st_mode) == 0o700


def test_given_services_are_used_and_nothing_is_started(made):
    given = {
        "DATABASE_URL": "postgres://db/w",
        "REDIS_URL": "redis://r",
        "WHETSTONE_SECRET": "kR7-vN2q_Xw9ZbT4mJ8sLdH1yUeF6oPa",
    }
    with services(load_settings({**given, "WHETSTONE_HOME": str(made / "none")})) as urls:
        assert (urls.database_url, urls.redis_url) == ("postgresql+psycopg://db/w", "redis://r")
    assert not (made / "none").exists()


def test_a_lock_is_exclusive_and_says_who(tmp_path):
    ours, theirs = Lock(tmp_path / "l"), Lock(tmp_path / "l")
    assert theirs.holder() is None
    assert ours.take()
    assert not theirs.take()
    ours.sign(Holder(7, "a test", "nowhere"))
    assert theirs.holder() == Holder(7, "a test", "nowhere")
    ours.release()
    assert theirs.take()
    theirs.release()


def test_who_can_walk_to_a_folder(tmp_path):
    stranger = Account("stranger", 54321, 54321)
    (tmp_path / "a").mkdir(mode=0o700)
    assert not can_reach(tmp_path / "a", stranger)
    assert can_reach(Path("/"), stranger)


def test_a_full_disk_is_named():
    said = 'FATAL:  could not write lock file "postmaster.pid": No space left on device'
    assert explain(said) == "The disk is full: free some space and start again."
    assert explain("something else") == ""
