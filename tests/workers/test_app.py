"""The workers' Celery application on a Redis that dies."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from server.embedded import valkey
from server.embedded.places import find_places
from server.embedded.process import die_with_parent, wait_until
from server.transaction import celery_broker_url

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_worker_in_mid_task_takes_new_work_after_redis_was_killed(tmp_path):
    places = find_places(tmp_path / "home")
    url = valkey.redis_url(places)
    begun, log = tmp_path / "begun", tmp_path / "worker.log"
    environment = {"REDIS_URL": url, "DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/none"}
    environment |= {"WHETSTONE_SECRET": secrets.token_urlsafe(48), "WHETSTONE_HOME": str(tmp_path / "home")}
    client = Celery(broker=celery_broker_url(url))
    redis = valkey.start_valkey(places)

    def send(task, **arguments):
        client.send_task(task, kwargs=arguments, queue="train")

    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tests.workers.napping", "worker", "-Q", "train", "--pool=prefork",
             "--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=INFO"],
            cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - no threads run here
        )  # fmt: skip
    try:
        send("nap", seconds=8, begun=str(begun))
        assert wait_until(begun.exists, worker, 60), log.read_text()
        redis.kill()
        redis.wait()
        redis = valkey.start_valkey(places)
        send("mark", file=str(tmp_path / "first"))
        assert wait_until((tmp_path / "first").exists, worker, 30), log.read_text()
        # The lost connection cannot acknowledge the nap any more.
        assert wait_until(lambda: re.search(r"Task nap\S* succeeded", log.read_text()) is not None, worker, 30)
        send("mark", file=str(tmp_path / "second"))
        assert wait_until((tmp_path / "second").exists, worker, 30), log.read_text()
    finally:
        client.close()
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        valkey.stop_valkey(redis)
