"""What can be tested of docker-compose.yml and the Dockerfile where no Docker engine is at hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.db import engine_for
from server.settings import Settings
from server.supervisor import children

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file with anchors and merges resolved."""
    found: dict[str, Any] = yaml.safe_load(TEXT)
    return found


def test_the_parts_are_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"db", "redis", "migrate", "web", "worker-reply", "worker-train", "beat"}


def test_every_lasting_service_has_a_health_check(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if "healthcheck" not in service] == ["migrate"]


def test_secrets_are_required_and_have_no_default() -> None:
    secret = re.findall(r"\$\{([A-Z_]*(?:PASSWORD|SECRET)[A-Z_]*)([^}]*)\}", TEXT)
    assert {name for name, _ in secret} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "WHETSTONE_SECRET"}
    assert all(rule.startswith(":?") for _, rule in secret)


def test_every_variable_is_one_the_settings_read(compose: dict[str, Any]) -> None:
    known = set(re.findall(r'"([A-Z_]{4,})"', (ROOT / "server" / "settings.py").read_text(encoding="utf-8")))
    for name in ("migrate", "web", "worker-reply", "worker-train", "beat"):
        assert set(compose["services"][name]["environment"]) <= known


def test_workers_take_the_same_queues_as_on_one_machine(compose: dict[str, Any], settings: Settings) -> None:
    table = {child.name: list(child.command) for child in children(replace(settings), cores=2)}
    for service, child in (("worker-reply", "reply"), ("worker-train", "train")):
        command = compose["services"][service]["command"]
        here = table[child]
        assert command[command.index("-Q") + 1] == here[here.index("-Q") + 1]
        for option in ("pool", "concurrency"):
            assert f"--{option}={command[command.index(f'--{option}') + 1]}" in here
        assert {word for word in here if word.startswith("--without")} <= set(command)


def test_web_and_beat_run_with_what_they_need_on_one_machine(compose: dict[str, Any], settings: Settings) -> None:
    table = {child.name: list(child.command) for child in children(replace(settings), cores=2)}
    web, here = compose["services"]["web"]["command"], table["web"]
    assert web[web.index("--timeout-graceful-shutdown") + 1] == here[here.index("--timeout-graceful-shutdown") + 1]
    assert {"server.app:create_app", "--factory", "--no-access-log"} <= set(web) & set(here)
    # Without it beat would write a pid file into the image, which its user may not.
    assert "--pidfile=" in compose["services"]["beat"]["command"]
    assert "--pidfile=" in table["beat"]


def test_postgres_has_room_for_every_pool(compose: dict[str, Any], settings: Settings) -> None:
    most = int(re.search(r"max_connections=(\d+)", " ".join(compose["services"]["db"]["command"])).group(1))  # type: ignore[union-attr]
    pool = engine_for(str(settings.database_url)).pool
    a_process = pool.size() + pool._max_overflow  # type: ignore[attr-defined]
    processes = 2 + 1 + 3 + 1  # web, reply, train with its two children, beat
    assert most >= processes * a_process


def test_health_checks_ask_for_the_names_that_the_workers_have(compose: dict[str, Any]) -> None:
    for service in ("worker-reply", "worker-train"):
        command = compose["services"][service]["command"]
        name = command[command.index("-n") + 1].replace("%h", "$$HOSTNAME")
        assert f'-d "{name}"' in compose["services"][service]["healthcheck"]["test"][1]


def test_everything_waits_for_the_migration(compose: dict[str, Any]) -> None:
    for name in ("web", "worker-reply", "worker-train", "beat"):
        assert compose["services"][name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_image_copies_only_what_exists_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources)
    assert re.search(r"^USER whetstone$", text, re.MULTILINE)
