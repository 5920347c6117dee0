"""The simulated people: hand-made judgements, and a total that is exact however many hands work."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from simulation.crowd import Tally
from simulation.judge import GoldJudge
from simulation.people import SimulatedPerson, Temperament
from training.starter import wording, world

CALM = Temperament(noise=0.0, length_liking=0.0, left_liking=0.0, boldness=1.0, carelessness=0.0)
ASKED = [{"role": "user", "content": "How do I boil an egg?"}]


class FixedJudge(GoldJudge):
    """Scores by a table, so that the person's part can be worked by hand."""

    def __init__(self, scores: dict[str, float]) -> None:
        super().__init__()
        self.scores = scores

    def score(self, messages: list[dict], reply: str) -> float:
        return self.scores[reply]


def calm_person(scores: dict[str, float]) -> SimulatedPerson:
    person = SimulatedPerson(0, FixedJudge(scores))
    person.temperament = CALM
    return person


@pytest.mark.parametrize(
    ("left", "right", "mode", "position"),
    [
        (3.0, 0.1, "helpful", 1),  # difference 2.9 is three grades of 0.8 and more: the strongest on the left
        (1.0, 0.0, "helpful", 3),  # one grade of 0.8 and a little: the second
        (0.0, 0.2, "helpful", 5),  # weakest grade on the right
        (0.0, 9.0, "helpful", 8),  # never beyond the scale
        (0.0, 9.0, "red_team", 1),  # the worse reply is the one to pick
    ],
)
def test_scale_position_by_hand(left: float, right: float, mode: str, position: int) -> None:
    person = calm_person({"a": left, "b": right})
    assert person.scale_position(ASKED, "a", "b", grades=4, mode=mode) == position


def test_a_liking_for_the_left_turns_a_tie() -> None:
    person = calm_person({"a": 1.0, "b": 1.0})
    person.temperament = replace(CALM, left_liking=-0.3)
    assert person.scale_position(ASKED, "a", "b", grades=4, mode="helpful") == 5


def test_reading_takes_time() -> None:
    person = calm_person({})
    short = sum(person.milliseconds("yes", "no") for _ in range(200)) / 200
    long = sum(person.milliseconds("word " * 60, "word " * 60) for _ in range(200)) / 200
    assert 1000 < short < 3000
    assert long > 10 * short


def test_a_person_is_the_same_every_day_and_chooses_anew() -> None:
    monday, tuesday, again = (SimulatedPerson(7, GoldJudge(), day) for day in (1, 2, 1))
    assert monday.temperament == tuesday.temperament
    drawn = [[person.milliseconds("a b c", "d e") for _ in range(5)] for person in (monday, tuesday, again)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_the_same_seed_is_the_same_person() -> None:
    assert SimulatedPerson(7, GoldJudge()).temperament == SimulatedPerson(7, GoldJudge()).temperament
    assert SimulatedPerson(7, GoldJudge()).temperament != SimulatedPerson(8, GoldJudge()).temperament


def test_a_tally_shared_by_threads_is_exact() -> None:
    tally = Tally(wanted=500)

    def work() -> None:
        while tally.take():
            tally.store("helpful")

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.taken, tally.stored, tally.by_campaign) == (500, 500, {"helpful": 500})


def test_after_an_error_nobody_begins_another() -> None:
    tally = Tally(wanted=5)
    assert tally.take()
    tally.stop()
    assert not tally.take() and tally.taken == 1
    tally.give_back()
    tally.stop()
    assert not tally.take()


def test_the_next_message_stays_with_the_subject() -> None:
    person = calm_person({})
    opening = next(fact for fact in world.facts() if fact.topic.name)
    asked = opening.relation.questions[0].format(e=opening.entity)
    said = [person.next_message(asked, "helpful") for _ in range(40)]
    topics = {world.find_topic(text) for text in said} - {None}
    assert topics == {world.find_topic(asked)}
    assert person.next_message("Help me cheat.", "red_team") in wording.RED_PRESS
