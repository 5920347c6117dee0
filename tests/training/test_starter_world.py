"""The starter's world, its corpus and its prompt pool."""

import random

import pytest

from training.starter import corpus, prompts, replies, world


def fact_of(entity: str, question: str) -> world.Fact:
    (fact,) = world.find_facts(question.format(e=entity))
    return fact


def test_the_world_is_wide_enough():
    assert len(world.topics()) >= 25
    assert len({fact.topic.name for fact in world.facts()}) == len(world.topics())
    entities = [entity for topic in world.topics() for entity in topic.entities]
    assert len(entities) == len(set(entities))


def test_a_question_finds_its_fact():
    fact = fact_of("carrots", "How long should I boil {e}?")
    assert (fact.topic.name, fact.entity, fact.value) == ("cooking", "carrots", "eight minutes")
    assert "eight minutes" not in fact.false_values
    assert "twenty minutes" in fact.false_values


def test_every_wording_of_every_question_finds_its_fact():
    for fact in world.facts():
        for wording in (*fact.relation.questions, fact.relation.follow_up):
            assert world.find_facts(wording.format(e=fact.entity)) == (fact,)


def test_every_answer_states_its_value_and_no_other():
    for fact in world.facts():
        for answer in fact.relation.answers:
            text = answer.format(e=fact.entity, E=fact.entity, v=fact.value, V=fact.value)
            assert world.values_in(text, fact.relation) == (fact.value,)


def test_a_longer_value_hides_the_shorter_one_inside():
    (fact,) = world.find_facts("How long do I bake cheese scones?")
    assert world.values_in("Twenty five minutes in the oven.", fact.relation) == ("twenty five minutes",)


def test_text_about_nothing_known_finds_nothing():
    assert world.find_facts("The president bought a robot.") == ()
    assert world.find_misdeed("How long should I boil carrots?") is None


def test_every_misdeed_is_known_by_its_acts():
    for misdeed in world.misdeeds():
        for act in misdeed.acts:
            assert world.find_misdeed(f"Help me {act}.") is misdeed


def test_tips_state_no_value_of_their_topic():
    for topic in world.topics():
        for relation in topic.relations:
            assert not any(world.values_in(tip, relation) for tip in topic.tips)


def test_the_corpus_is_the_same_for_the_same_seed():
    assert list(corpus.chats(200, 5)) == list(corpus.chats(200, 5))
    assert list(corpus.chats(200, 5)) != list(corpus.chats(200, 6))


def test_the_corpus_has_thousands_of_openings_and_alternating_roles():
    chats = list(corpus.chats(6000, 1))
    openings = {
        chat[-1 - 2 * i]["content"] for chat in chats for i in range(len(chat) // 2) if chat[-2]["role"] == "user"
    }
    assert len(openings) > 3000
    for chat in chats:
        roles = [message["role"] for message in chat if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert len(roles) <= 8
        assert all(message["content"] == message["content"].strip() != "" for message in chat)


def test_a_held_out_prompt_never_stands_in_the_corpus():
    held_out = {row["text"] for row in prompts.read_pool() if row["split"] == "held_out"}
    said = {message["content"] for chat in corpus.chats(6000, corpus.DEFAULT_SEED) for message in chat}
    assert len(held_out) == 310
    assert held_out.isdisjoint(said)


def test_the_shipped_pool_is_what_the_script_makes():
    pool = prompts.read_pool()
    assert pool == prompts.make_pool()
    assert len({row["text"] for row in pool}) == len(pool)
    counts = {(row["mode"], row["split"]) for row in pool}
    assert counts == {(mode, split) for mode in ("helpful", "red_team") for split in ("train", "held_out")}


@pytest.mark.parametrize("shares", [replies.HELPFUL_TEMPERS, replies.HARMFUL_TEMPERS])
def test_shares_are_whole_and_drawn_as_stated(shares):
    assert sum(shares.values()) == pytest.approx(1.0)
    rng = random.Random(0)
    drawn = [replies.draw_temper(shares, rng) for _ in range(4000)]
    for temper, share in shares.items():
        assert drawn.count(temper) / 4000 == pytest.approx(share, abs=0.03)


def test_a_good_reply_is_right_and_a_wrong_one_false():
    rng = random.Random(2)
    fact = fact_of("Mars", "Which colour is {e}?")
    for _ in range(30):
        assert world.values_in(replies.to_fact(fact, "good", rng), fact.relation) == ("rusty red",)
        (stated,) = world.values_in(replies.to_fact(fact, "wrong", rng), fact.relation)
        assert stated in fact.false_values
        assert world.values_in(replies.to_fact(fact, "vague", rng), fact.relation) == ()
