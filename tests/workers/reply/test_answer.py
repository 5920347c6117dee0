"""A turn from queued to ready, through real rows, a real stream and a real (tiny) model."""

import shutil
import threading
import time
from datetime import UTC, datetime, timedelta

from server.models import Turn
from server.transaction import transaction
from training.models.snapshots import load_policy, render
from training.sampling.engine import Engine, Request
from workers.reply import rows
from workers.reply.answer import answer
from workers.reply.asks import Written
from workers.reply.spelling import whole_text


def alone(folder, message, seed, max_new_tokens=24):
    """The reply that the model gives with nothing else about."""
    model, tokenizer = load_policy(folder)
    engine = Engine(model, tokenizer, slots=2)
    prompt = render(tokenizer, [{"role": "user", "content": message}])
    engine.submit(Request("only", prompt, max_new_tokens, seed=seed))
    ids, logp = [], 0.0
    while not engine.idle:
        for event in engine.step():
            logp += event.logp
            if event.finish_reason != "stop":
                ids.append(event.token_id)
    return whole_text(tokenizer, ids), logp


def test_both_candidates_are_written_streamed_and_stored(chats, worker, tiny_policy):
    turn_id = chats.turn([chats.register("tiny", tiny_policy)] * 2)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    assert turn.ready_at is not None
    for candidate in turn.candidates:
        text, logp = alone(tiny_policy, turn.message, candidate.seed)
        assert candidate.text == text
        assert abs(candidate.log_probability - logp) < 1e-3
        assert candidate.status == "done"
        assert candidate.finish_reason in ("stop", "length")
        assert candidate.attempts == 1
        assert candidate.token_count <= 24
    heard = [entry["event"] for entry in chats.heard(turn_id)]
    assert heard[-1] == "ready"
    assert heard.count("done") == 2
    assert "restart" not in heard
    assert chats.shown(turn_id) == {place: c.text for place, c in enumerate(turn.candidates) if c.text}


def test_a_message_that_comes_twice_changes_nothing(chats, worker, tiny_policy):
    turn_id = chats.turn([chats.register("tiny", tiny_policy)] * 2)
    answer(turn_id, worker)
    before, heard = chats.look(turn_id), chats.heard(turn_id)
    answer(turn_id, worker)
    after = chats.look(turn_id)
    assert [c.attempts for c in after.candidates] == [1, 1]
    assert after.ready_at == before.ready_at
    assert chats.heard(turn_id) == heard


def test_many_turns_at_once_are_each_as_if_alone(chats, worker, tiny_policy):
    snapshot = chats.register("tiny", tiny_policy)
    turns = [chats.turn([snapshot] * 2, f"Question {number}?") for number in range(40)]
    threads = [threading.Thread(target=answer, args=(turn, worker)) for turn in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, turn_id in enumerate(turns):
        turn = chats.look(turn_id)
        assert turn.status == "ready"
        shown = chats.shown(turn_id)
        assert all(shown.get(c.position, "") == c.text for c in turn.candidates)
        if number % 10 == 0:
            assert turn.candidates[1].text == alone(tiny_policy, turn.message, turn.candidates[1].seed)[0]


def test_a_turn_joins_while_a_long_one_is_being_written(chats, worker, tiny_policy, monkeypatch):
    step = Engine.step
    monkeypatch.setattr(
        Engine, "step", lambda engine: (time.sleep(0.005), step(engine))[1]
    )  # as slow as a larger model
    snapshot = chats.register("tiny", tiny_policy)
    answer(chats.turn([snapshot] * 2), worker)
    # byte-level noise rarely ends: 200 tokens take many steps
    long = [chats.turn([snapshot] * 2, f"Long {number}", max_new_tokens=200) for number in range(8)]
    short = chats.turn([snapshot] * 2, "Short", max_new_tokens=2)
    threads = [threading.Thread(target=answer, args=(turn, worker)) for turn in [*long, short]]
    for thread in threads:
        thread.start()
    threads[-1].join(20)
    finished_first = chats.look(short).status == "ready" and any(chats.look(t).status == "sampling" for t in long)
    for thread in threads:
        thread.join(60)
    assert finished_first
    assert all(chats.look(turn).status == "ready" for turn in long)


def test_damaged_and_missing_weights_fail_their_candidate_alone(chats, worker, tiny_policy, tmp_path):
    good = chats.register("good", tiny_policy)
    folder = shutil.copytree(tiny_policy, tmp_path / "damaged")
    bad = chats.register("damaged", folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    mixed, fine = chats.turn([good, bad]), chats.turn([good] * 2)
    answer(mixed, worker)
    answer(fine, worker)
    turn = chats.look(mixed)
    assert turn.status == "failed"
    assert [c.status for c in turn.candidates] == ["done", "failed"]
    assert "model.safetensors is damaged" in turn.candidates[1].failure
    assert "damaged" not in turn.failure  # a person never sees names or paths
    assert str(tmp_path) not in turn.failure
    assert chats.heard(mixed)[-1] == {"event": "failed", "reason": turn.failure}
    assert chats.look(fine).status == "ready"

    (folder / "model.safetensors").unlink()
    missing = chats.turn([bad, bad])
    answer(missing, worker)
    assert "model.safetensors is missing" in chats.look(missing).candidates[0].failure

    weights[-3] ^= 1  # mended: it serves without a restart
    (folder / "model.safetensors").write_bytes(weights)
    mended = chats.turn([bad, bad])
    answer(mended, worker)
    assert chats.look(mended).status == "ready"


def test_what_a_dead_worker_left_is_begun_again_with_the_same_words(chats, worker, tiny_policy, redis):
    snapshot = chats.register("tiny", tiny_policy)
    turn_id = chats.turn([snapshot] * 2)
    answer(turn_id, worker)
    texts = [c.text for c in chats.look(turn_id).candidates]
    _undo(chats, turn_id)
    answer(turn_id, worker)  # claimed by a worker that may still live: nothing happens
    assert chats.look(turn_id).status == "sampling"
    chats.edit(turn_id, heartbeat_at=_ago(21))
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    assert [c.text for c in turn.candidates] == texts
    assert [c.attempts for c in turn.candidates] == [2, 2]
    assert [entry["event"] for entry in chats.heard(turn_id)].count("restart") == 2
    assert chats.shown(turn_id) == {c.position: c.text for c in turn.candidates}


def test_a_reply_at_which_the_worker_dies_again_and_again_is_given_up(chats, worker, tiny_policy):
    turn_id = chats.turn([chats.register("tiny", tiny_policy)] * 2)
    chats.edit(turn_id, attempts=5)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "failed"
    assert "stopped while it was answering" in turn.failure
    assert ["Given up" in candidate.failure for candidate in turn.candidates] == [True, True]
    assert worker.local.names() == []  # nothing was begun


def test_what_a_dead_process_of_this_host_had_is_asked_for_at_the_start(chats, worker, tiny_policy, settings):
    turn_id = chats.turn([chats.register("tiny", tiny_policy)] * 2)
    host = worker.name.split("/")[0]
    for name, left in ((f"{host}/4194304/1/7", True), ("elsewhere/1/1/7", False), (f"{worker.name}/7", False)):
        chats.edit(turn_id, status="sampling", claimed_by=name, heartbeat_at=_ago(1))
        with transaction(worker.database_url, worker.redis_url) as db:
            assert bool(rows.ask_again_for_the_dead(db)) is left, name
            db.info.clear()
    with transaction(worker.database_url, worker.redis_url) as db:
        db.info.clear()


def test_a_claim_that_was_lost_stores_nothing(chats, worker, tiny_policy):
    turn_id = chats.turn([chats.register("tiny", tiny_policy)] * 2)
    with transaction(worker.database_url, worker.redis_url) as db:
        asks, withheld = rows.claim(db, turn_id, "first")
    assert (len(asks), withheld) == (2, False)
    chats.edit(turn_id, heartbeat_at=_ago(30))
    with transaction(worker.database_url, worker.redis_url) as db:
        again, _ = rows.claim(db, turn_id, "second")
        assert rows.renew(db, {ask.candidate_id: ask.claim for ask in asks}) == {ask.candidate_id for ask in asks}
        assert rows.renew(db, {ask.candidate_id: ask.claim for ask in again}) == set()
        stored, status, _ = rows.settle(db, turn_id, [(asks[0], Written("late", 0.0, 1, "stop"))])
        assert (stored, status) == ([], "sampling")
        stored, status, _ = rows.settle(db, turn_id, [(ask, Written("mine", 0.0, 1, "stop")) for ask in again])
        assert (stored, status) == (again, "ready")
    assert [c.text for c in chats.look(turn_id).candidates] == ["mine", "mine"]


def test_the_oldest_turns_are_dropped_whole_and_said(chats, worker, tiny_policy):
    snapshot = chats.register("tiny", tiny_policy)  # 256 tokens of one byte each
    first = chats.turn([snapshot] * 2, "a" * 150, max_new_tokens=60)
    answer(first, worker)
    assert "dropped_messages" not in chats.look(first).candidates[0].sampling
    second = chats.next_turn(first, "b" * 100, [snapshot] * 2, max_new_tokens=60)
    answer(second, worker)
    sampling = chats.look(second).candidates[0].sampling
    assert sampling == {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 60, "dropped_messages": 2}


def test_a_message_longer_than_the_model_fails_with_a_sentence(chats, worker, tiny_policy):
    turn_id = chats.turn([chats.register("tiny", tiny_policy)] * 2, "a" * 300)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "failed"
    assert "too long" in turn.failure
    assert "room for" in turn.candidates[0].failure


def test_every_architecture_answers(chats, worker, built_policies):
    snapshots = [chats.register(family, built_policies(family)) for family in ("gpt2", "qwen2")]
    turn_id = chats.turn(snapshots)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    for candidate, family in zip(turn.candidates, ("gpt2", "qwen2"), strict=True):
        assert candidate.text == alone(built_policies(family), turn.message, candidate.seed)[0]


def _ago(seconds):
    return datetime.now(UTC) - timedelta(seconds=seconds)


def _undo(chats, turn_id):
    """As if the worker had been killed just before it stored its replies."""
    with chats._sessions.begin() as db:
        turn = db.get_one(Turn, turn_id)
        turn.status, turn.ready_at = "sampling", None
        for candidate in turn.candidates:
            candidate.status, candidate.text, candidate.heartbeat_at = "sampling", None, _ago(1)
            candidate.claimed_by = "elsewhere/1/1/1"
