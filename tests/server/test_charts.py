"""The geometry of curves."""

from __future__ import annotations

from server.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart


def points(text: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_the_line_spans_the_drawing_and_round_numbers_lie_around_it():
    drawn = chart("KL", "nats", [[1, 0.0], [2, 5.0], [3, 10.0]])
    assert drawn is not None
    assert points(drawn.points) == [
        (LEFT, HEIGHT - BOTTOM),
        ((LEFT + WIDTH - RIGHT) / 2, 71.0 - 2.0),
        (WIDTH - RIGHT, TOP),
    ]
    assert [tick.label for tick in drawn.ys] == ["0", "5", "10"]
    assert [tick.label for tick in drawn.xs] == ["1", "3"]
    assert drawn.newest == "10"
    assert drawn.raw == ""


def test_nothing_to_join_is_no_chart():
    assert chart("KL", "", []) is None
    assert chart("KL", "", [[1, 2.0]]) is None
    assert chart("KL", "", [[1, float("nan")], [2, 1.0]]) is None


def test_a_constant_is_a_line_in_the_middle_and_not_a_division_by_zero():
    drawn = chart("x", "", [[1, 3.0], [2, 3.0]])
    assert drawn is not None
    assert {y for _, y in points(drawn.points)} == {(TOP + HEIGHT - BOTTOM) / 2}


def test_smoothing_keeps_what_was_measured_beside_it():
    noisy = [[step, float(step % 2)] for step in range(100)]
    drawn = chart("x", "", noisy, smooth=True)
    assert drawn is not None
    assert len(points(drawn.raw)) == len(points(drawn.points)) == 100
    spread = [y for _, y in points(drawn.points)]
    assert max(spread[10:90]) - min(spread[10:90]) < 10
