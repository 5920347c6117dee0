"""What is kept in memory: preloaded before it is asked, shared, let go when unused; a broken model stops only its own."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.reply import local, threads
from workers.reply import worker as worker_module
from workers.reply.answer import answer
from workers.reply.loading import table_size


def wait_until(holds, seconds=20):
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(local, "IDLE_SECONDS", 0.05)


def test_what_is_deployed_is_loaded_before_anyone_asks(chats, worker, tiny_policy):
    chats.campaign_served_by(chats.register("tiny", tiny_policy))
    worker._beat()
    wait_until(lambda: worker.local.names() == ["tiny"])


def test_what_is_asked_while_the_process_stops_breaks_no_thread(chats, worker, tiny_policy, monkeypatch):
    left = []
    monkeypatch.setattr(threads.os, "_exit", left.append)  # how a broken thread takes its process with it
    chats.campaign_served_by(chats.register("late", tiny_policy))
    worker.local.stop()
    worker._beat()
    wait_until(lambda: worker.local._loading)
    wait_until(worker.local._inbox.empty)
    assert (left, worker.local.names()) == ([], [])


def test_what_serves_nowhere_is_let_go_in_time(chats, worker, tiny_policy, quick, monkeypatch):
    kept = chats.register("kept", tiny_policy)
    chats.campaign_served_by(kept)
    answer(chats.turn([kept, chats.register("passing", tiny_policy)]), worker)
    worker._beat()
    assert sorted(worker.local.names()) == ["kept", "passing"]
    monkeypatch.setattr(local, "UNUSED_SECONDS", 0.1)
    wait_until(lambda: worker.local.names() == ["kept"])


def test_beyond_the_most_the_least_recently_used_goes(chats, worker, tiny_policy, quick, monkeypatch):
    monkeypatch.setattr(local, "MAX_RESIDENT", 1)
    first, second = chats.register("first", tiny_policy), chats.register("second", tiny_policy)
    for snapshots in ([first] * 2, [second] * 2, [first, second]):
        turn_id = chats.turn(snapshots)
        answer(turn_id, worker)
        assert chats.look(turn_id).status == "ready"
    wait_until(lambda: len(worker.local.names()) == 1)


def test_where_more_serve_than_have_room_none_is_loaded_in_turn(chats, worker, tiny_policy, quick, monkeypatch):
    monkeypatch.setattr(local, "MAX_RESIDENT", 1)
    first, second = chats.register("first", tiny_policy), chats.register("second", tiny_policy)
    chats.campaign_served_by(first)
    chats.campaign_served_by(second)
    answer(chats.turn([second] * 2), worker)
    wait_until(lambda: worker.local.names() == ["second"])
    loaded: list[str] = []
    monkeypatch.setattr(worker.local, "_load", lambda source: loaded.append(source.name))
    for _ in range(3):
        worker._beat()
    wait_until(worker.local._inbox.empty)
    assert loaded == []


def test_a_model_that_breaks_fails_its_replies_and_is_loaded_anew(chats, worker, tiny_policy, monkeypatch):
    snapshot = chats.register("tiny", tiny_policy)
    answer(chats.turn([snapshot] * 2), worker)
    resident = next(iter(worker.local._residents.values()))

    def broken():
        raise RuntimeError("out of memory")

    monkeypatch.setattr(resident.engine, "step", broken)
    turn_id = chats.turn([snapshot] * 2)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "failed"
    assert "out of memory" in turn.candidates[0].failure
    assert "memory" not in turn.failure
    again = chats.turn([snapshot] * 2)
    answer(again, worker)
    assert chats.look(again).status == "ready"


def test_a_large_model_gets_fewer_and_shorter_slots():
    class Config:
        num_hidden_layers, hidden_size, num_attention_heads, num_key_value_heads = 32, 4096, 32, 8
        max_position_embeddings = 131_072

    assert table_size(Config) == (4096, 2)  # 0.25 MB a column, 1 GiB a slot

    class Starter:
        num_hidden_layers, hidden_size, num_attention_heads, num_key_value_heads = 4, 192, 4, 4
        max_position_embeddings = 512

    assert table_size(Starter) == (512, 64)


def test_many_threads_share_one_worker(monkeypatch):
    made = []

    class Slow:
        def __init__(self, settings):
            time.sleep(0.05)  # as long as it takes for others to ask, too
            made.append(self)

        def start(self):
            pass

    monkeypatch.setattr(worker_module, "ReplyWorker", Slow)
    monkeypatch.setattr(worker_module, "connected_settings", lambda: None)
    worker_module._made.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: worker_module.resident_worker(), range(8)))
    worker_module._made.cache_clear()
    assert len(made) == 1
    assert all(one is made[0] for one in found)
