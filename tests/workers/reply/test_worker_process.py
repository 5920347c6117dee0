"""Real Celery workers: one is killed in mid-reply and another finishes with the same words; the page's first words are quick."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from server.transaction import send

CLONE = Path(__file__).resolve().parents[3]


@pytest.fixture
def start_worker(settings, committed, redis, tmp_path):
    """Start `celery worker` as `whetstone up` does; all are killed at the end."""
    started = []

    def start(name):
        log = (tmp_path / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", "reply", "--pool=threads"]
        process = subprocess.Popen(
            [
                *command,
                "--concurrency=16",
                "-n",
                f"{name}@%h",
                "--without-gossip",
                "--without-mingle",
                "--loglevel=INFO",
            ],
            cwd=CLONE,
            env={**os.environ, **replace(settings, artifacts=str(tmp_path)).environment(), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        started.append((process, log))
        give_up = time.monotonic() + 90
        while not redis.keys(f"reply_worker:*/{process.pid}/*"):
            assert process.poll() is None and time.monotonic() < give_up, (tmp_path / f"{name}.log").read_text()
            time.sleep(0.1)
        return process

    yield start
    for process, log in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


@pytest.mark.slow
def test_another_worker_finishes_what_a_killed_one_began(chats, start_worker, redis_url, tiny_policy):
    snapshot = chats.register("tiny", tiny_policy)
    chats.campaign_served_by(snapshot)
    first = start_worker("first")
    warm = chats.turn([snapshot] * 2)
    assert send(redis_url, "reply", {"turn_id": warm})
    assert chats.wait(warm, seconds=60).status == "ready"

    # Many long turns, so that the kill comes in the middle of some.
    turns = [chats.turn([snapshot] * 2, f"Long story {number}", max_new_tokens=200) for number in range(12)]
    for turn_id in turns:
        send(redis_url, "reply", {"turn_id": turn_id})
    give_up = time.monotonic() + 60
    while not any(entry["event"] == "text" for turn_id in turns for entry in chats.heard(turn_id)):
        assert time.monotonic() < give_up
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    begun = [turn_id for turn_id in turns if chats.look(turn_id).status == "sampling"]
    partial = {turn_id: chats.shown(turn_id) for turn_id in begun}
    assert any(partial.values())

    start_worker("second")  # asks again by itself for what the dead process of this host had claimed
    for turn_id in begun:  # those that the first had not claimed yet: as the sweep does
        send(redis_url, "reply", {"turn_id": turn_id})
    for turn_id in turns:
        turn = chats.wait(turn_id, seconds=90)
        assert turn.status == "ready"
        assert chats.shown(turn_id) == {c.position: c.text for c in turn.candidates if c.text}
        for position, text in partial.get(turn_id, {}).items():
            # by the seeds; rounding may part two noisy texts late, never at the beginning
            assert turn.candidates[position].text[:10].startswith(text[:10])
    assert any(c.attempts == 2 for turn_id in turns for c in chats.look(turn_id).candidates)
