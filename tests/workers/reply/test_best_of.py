"""The best of k replies in the chat: chosen rightly, shown in the end, the same by the same seed, and whatever may break."""

import math
import shutil
import threading
import time

import pytest
import torch

from server.db import session_factory
from server.models import Campaign, Person, Snapshot
from server.routes.turn_json import describe_turn
from server.services.chat import dialogue
from server.services.snapshots import deployments, registry
from server.transaction import transaction
from tests import factories
from tests.workers.reply.test_answer import _ago, _undo, alone
from tests.workers.reply.test_local import wait_until
from training.best_of import BestOf
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, render, render_reply
from training.sampling.engine import Engine
from training.sampling.rollouts import sample_seeds
from training.sampling.variants import Policy, Sampling
from workers.reply import best_of, loading, local
from workers.reply.answer import answer


@pytest.fixture
def three(chats, tiny_policy, pm_path):
    """(plain policy, its preference model, the best of 6)."""
    plain, pm = chats.register("plain", tiny_policy), chats.register("pm", pm_path, "pm")
    return plain, pm, chats.best_of("best", plain, pm, 6)


def by_hand(pm_path, message, texts):
    """Scores one at a time, through the model's own forward pass."""
    pm, tokenizer = PreferenceModel.load(pm_path)
    found = []
    for text in texts:
        ids = render(tokenizer, [{"role": "user", "content": message}]) + render_reply(tokenizer, text)
        with torch.inference_mode():
            found.append(float(pm.scores(torch.tensor([ids]), torch.tensor([len(ids) - 1]))))
    return found


def test_the_reply_is_that_of_the_highest_score_and_nothing_is_seen_before_both_are_done(
    chats, worker, three, tiny_policy, pm_path
):
    plain, _, best = three
    turn_id = chats.turn([best, plain])
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    chosen, rival = turn.candidates
    every = [alone(tiny_policy, turn.message, seed) for seed in sample_seeds(chosen.seed, 0, 6)]
    scores = by_hand(pm_path, turn.message, [text for text, _ in every])
    assert len(set(scores)) == 6
    place = scores.index(max(scores))
    notes = chosen.sampling["best_of"]
    assert (notes["k"], notes["taken"], "unscored" in notes) == (6, place, False)
    assert notes["scores"] == pytest.approx(scores, abs=1e-3)
    assert chosen.text == every[place][0]
    assert chosen.log_probability is None
    assert notes["policy_log_probability"] == pytest.approx(every[place][1], abs=1e-3)
    assert 1 <= chosen.token_count <= 24
    assert rival.text == alone(tiny_policy, turn.message, rival.seed)[0]
    assert "best_of" not in rival.sampling
    assert [entry["event"] for entry in chats.heard(turn_id)] == ["ready"]  # nothing says which was the last
    assert sorted(worker.local.names()) == ["plain", "pm"]  # the policy's weights once


def test_it_answers_as_the_offline_job_does(chats, worker, tmp_path):
    """The job scores the tokens as they were sampled and the worker the text: of a model that writes words these are alike."""
    pm, tokenizer = PreferenceModel.from_policy(registry.STARTER_FOLDER, seed=5)
    pm.save(tmp_path / "pm", tokenizer)
    policy = chats.register("starter", registry.STARTER_FOLDER)
    best = chats.best_of("best", policy, chats.register("pm", tmp_path / "pm", "pm"), 4)
    turn_id = chats.turn([best] * 2)
    answer(turn_id, worker)
    offline = BestOf(Policy.load(registry.STARTER_FOLDER), pm, 4)
    for candidate in chats.look(turn_id).candidates:
        asked = [{"role": "user", "content": "How do I boil an egg?"}]
        assert offline.reply([asked], [candidate.seed], Sampling(24)).texts == [candidate.text]


def test_what_a_dead_worker_left_is_chosen_again_alike(chats, worker, three):
    turn_id = chats.turn([three[2]] * 2)
    answer(turn_id, worker)
    before = [(c.text, c.sampling) for c in chats.look(turn_id).candidates]
    assert before[0] != before[1]
    _undo(chats, turn_id)
    chats.edit(turn_id, heartbeat_at=_ago(21))
    answer(turn_id, worker)
    assert [(c.text, c.sampling) for c in chats.look(turn_id).candidates] == before


def test_more_replies_than_the_engine_has_slots_and_other_chats_meanwhile(
    chats, worker, three, tiny_policy, monkeypatch
):
    monkeypatch.setattr(loading, "MAX_SLOTS", 4)
    plain, _, best = three
    turns = [chats.turn([best, plain], f"Question {number}?") for number in range(5)]
    threads = [threading.Thread(target=answer, args=(turn, worker)) for turn in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for turn_id in turns:
        turn = chats.look(turn_id)
        assert turn.status == "ready"
        chosen = turn.candidates[0]
        seed = sample_seeds(chosen.seed, 0, 6)[chosen.sampling["best_of"]["taken"]]
        assert chosen.text == alone(tiny_policy, turn.message, seed)[0]


def test_others_are_written_on_while_replies_are_scored(chats, worker, three, monkeypatch):
    plain, _, best = three
    begun, go_on = threading.Event(), threading.Event()
    scores_of = best_of.scores_of

    def slow(*given):
        begun.set()
        assert go_on.wait(20)
        return scores_of(*given)

    monkeypatch.setattr(best_of, "scores_of", slow)
    choosing, other = chats.turn([best, plain]), chats.turn([plain] * 2)
    thread = threading.Thread(target=answer, args=(choosing, worker))
    thread.start()
    assert begun.wait(20)
    answer(other, worker)
    assert chats.look(other).status == "ready"
    assert chats.look(choosing).candidates[1].status == "sampling"  # written long ago, and withheld
    assert chats.shown(choosing) == {}
    go_on.set()
    thread.join(20)
    assert chats.look(choosing).status == "ready"


def test_both_models_are_loaded_before_anyone_asks_and_kept(chats, worker, three, monkeypatch):
    monkeypatch.setattr(local, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(local, "UNUSED_SECONDS", 0.1)
    chats.campaign_served_by(three[2])
    worker._beat()
    wait_until(lambda: sorted(worker.local.names()) == ["plain", "pm"])
    time.sleep(0.3)
    assert sorted(worker.local.names()) == ["plain", "pm"]
    worker.local.keep([])
    wait_until(lambda: worker.local.names() == [])


def test_it_works_where_only_one_model_has_room(chats, worker, three, monkeypatch):
    monkeypatch.setattr(local, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(local, "MAX_RESIDENT", 1)
    for _ in range(2):
        turn_id = chats.turn([three[2]] * 2)
        answer(turn_id, worker)
        assert chats.look(turn_id).status == "ready"
    wait_until(lambda: len(worker.local.names()) == 1)


def test_a_damaged_preference_model_fails_its_reply_alone_and_serves_when_mended(
    chats, worker, tiny_policy, pm_path, tmp_path
):
    folder = shutil.copytree(pm_path, tmp_path / "pm")
    plain, pm = chats.register("plain", tiny_policy), chats.register("pm", folder, "pm")
    best = chats.best_of("best", plain, pm, 2)
    weights = (folder / "head.safetensors").read_bytes()
    (folder / "head.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    turn_id = chats.turn([plain, best])
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "failed"
    assert [c.status for c in turn.candidates] == ["done", "failed"]
    assert "Snapshot pm cannot be loaded" in turn.candidates[1].failure
    assert "head.safetensors is damaged" in turn.candidates[1].failure
    assert "could not be loaded" in turn.failure
    assert "pm" not in turn.failure
    assert [entry["event"] for entry in chats.heard(turn_id)] == [
        "failed"
    ]  # and nothing of the reply that stands alone
    assert [each["status"] for each in describe_turn(turn)["candidates"]] == ["failed"] * 2
    (folder / "head.safetensors").write_bytes(weights)
    again = chats.turn([plain, best])
    answer(again, worker)
    assert chats.look(again).status == "ready"


def test_a_preference_model_that_breaks_or_gives_no_number_fails_its_reply(chats, worker, three, monkeypatch):
    _, _, best = three

    def failed():
        turn_id = chats.turn([best] * 2)
        answer(turn_id, worker)
        turn = chats.look(turn_id)
        assert turn.status == "failed"
        assert "stopped while it was answering" in turn.failure
        return turn.candidates[0].failure

    with monkeypatch.context() as patch:
        patch.setattr(best_of, "reply_scores", lambda *given: torch.tensor([math.nan] * 6))
        assert "Snapshot pm gave a score that is no number" in failed()

        def broken(*given):
            raise RuntimeError("out of memory")

        with monkeypatch.context() as other:
            other.setattr(best_of, "render_within", broken)
            assert "Snapshot pm cannot render this conversation: RuntimeError" in failed()
            assert sorted(worker.local.names()) == ["plain", "pm"]
        patch.setattr(best_of, "reply_scores", broken)
        assert "Snapshot pm broke: RuntimeError('out of memory')" in failed()
    wait_until(lambda: worker.local.names() == ["plain"])
    turn_id = chats.turn([best] * 2)
    answer(turn_id, worker)
    assert chats.look(turn_id).status == "ready"


def test_a_policy_that_breaks_or_a_message_too_long_fails_it_once(chats, worker, three, monkeypatch):
    _, _, best = three
    long = chats.turn([best] * 2, "a" * 300)
    answer(long, worker)
    turn = chats.look(long)
    assert (turn.status, "too long" in turn.failure) == ("failed", True)
    assert "Snapshot plain: the last message takes" in turn.candidates[0].failure

    def broken(engine):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", broken)
        resident = next(each for each in worker.local._residents.values() if each.source.name == "plain")
        assert resident.idle
        turn_id = chats.turn([best] * 2)
        answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "failed"
    assert "Snapshot plain broke" in turn.candidates[0].failure


def test_the_preference_model_of_replies_being_written_stays_where_there_is_no_room(chats, worker, three, monkeypatch):
    loaded, load = [], worker.local._load_source
    monkeypatch.setattr(local, "MAX_RESIDENT", 1)
    monkeypatch.setattr(
        worker.local, "_load_source", lambda source, root: (loaded.append(source.name), load(source, root))[1]
    )
    turn_id = chats.turn([three[2]] * 2, max_new_tokens=200)
    answer(turn_id, worker)
    assert chats.look(turn_id).status == "ready"
    assert sorted(loaded) == ["plain", "pm"]


def test_what_nobody_wants_any_more_is_dropped_with_all_its_replies(chats, worker, three, monkeypatch):
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: (time.sleep(0.02), step(engine))[1])
    turn_id = chats.turn([three[2]] * 2, max_new_tokens=200)
    thread = threading.Thread(target=answer, args=(turn_id, worker))
    thread.start()
    resident = None

    def writing():
        nonlocal resident
        found = [each for each in worker.local._residents.values() if each.source.name == "plain"]
        resident = found[0] if found else None
        return resident is not None and len(resident.writing) == 12

    wait_until(writing)
    chats.edit(turn_id, claimed_by="elsewhere/1/1/1")
    worker._beat()
    thread.join(10)
    assert not thread.is_alive()
    assert not resident.writing
    assert resident.idle
    assert [c.status for c in chats.look(turn_id).candidates] == ["sampling", "sampling"]  # the other worker's


def test_replies_that_the_preference_model_cannot_read_whole_are_counted_out(chats, worker, tiny_policy, pm_path):
    tokenizer, pm = load_policy(tiny_policy)[1], PreferenceModel.load(pm_path)[0]
    scorer = loading.Scorer(None, pm, tokenizer)
    asked = [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "a" * 100},
    ]
    # 256 tokens, one a byte: the last message takes 104 with its marks, the whole conversation 118
    assert (len(render(tokenizer, asked)), len(render(tokenizer, asked[2:]))) == (118, 104)
    short = best_of.scores_of(scorer, asked, ["b" * 100, "c" * 137])  # 118 + 137 + its end token = 256
    assert (short.dropped, None in short.scores) == (0, False)
    long = best_of.scores_of(scorer, asked, ["b" * 100, "c" * 151, "d" * 152])  # 104 + 151 + 1 = 256
    assert long.dropped == 2
    assert [score is None for score in long.scores] == [False, False, True]
    alike = by_hand(pm_path, "a" * 100, ["b" * 100, "c" * 151])
    assert long.scores[:2] == pytest.approx(alike, abs=1e-3)


def test_a_candidate_tells_what_was_not_scored_and_fails_when_nothing_was(
    chats, worker, tiny_policy, pm_path, tmp_path
):
    pm, tokenizer = PreferenceModel.load(pm_path)
    pm.backbone.config.max_position_embeddings = 64  # rotary positions: the weights are the same
    pm.save(tmp_path / "short", tokenizer)
    plain, short = chats.register("plain", tiny_policy), chats.register("short", tmp_path / "short", "pm")
    best = chats.best_of("best", plain, short, 12)
    turn_id = chats.turn([best] * 2, "Short?", max_new_tokens=60)
    chats.edit(turn_id, seed=1)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    # as text its replies take 101, 8, 92, 108, 109, 99, 113, 98, 105, 43, 101 and 105 tokens, and the prompt 10 of 64
    notes = turn.candidates[0].sampling["best_of"]
    assert [place for place, score in enumerate(notes["scores"]) if score is not None] == [1, 9]
    assert (notes["unscored"], notes["taken"] in (1, 9)) == (10, True)
    assert notes["scores"][notes["taken"]] == max(notes["scores"][1], notes["scores"][9])
    too_long = chats.turn([best] * 2, "a" * 64)
    answer(too_long, worker)
    turn = chats.look(too_long)
    assert (turn.status, "too long" in turn.failure) == ("failed", True)
    assert "Snapshot short: the last message takes 68 tokens" in turn.candidates[0].failure


def test_deployed_beside_the_plain_policy_a_message_gets_both_together(chats, worker, committed, three):
    plain, _, best = three
    with session_factory(committed).begin() as db:
        campaign = factories.campaign(
            db, slug="helpful", served_by=db.get_one(Snapshot, plain), pairing="two", max_new_tokens=24
        )
        person = factories.person(db)
        ids = campaign.id, person.id
        deployments.deploy(
            db, campaign, [(db.get_one(Snapshot, best), 1), (db.get_one(Snapshot, plain), 1)], reason="beside"
        )
        db.info.clear()
    with transaction(worker.database_url, worker.redis_url) as db:
        asker, place = db.get_one(Person, ids[1]), db.get_one(Campaign, ids[0])
        turn_id = dialogue.send_message(db, asker, place, "How do I boil an egg?", "one-and-only-key").id
        db.info.clear()
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    assert {c.snapshot_id for c in turn.candidates} == {plain, best}
    assert [entry["event"] for entry in chats.heard(turn_id)] == ["ready"]
    notes = next(c for c in turn.candidates if c.snapshot_id == best).sampling["best_of"]
    assert notes["taken"] == max(range(6), key=notes["scores"].__getitem__)
