"""The chart of size, loss and speed, and the geometry below it."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantgate.records import Status
from quantgate.report.page.chart import LETTER, LINE, Scale, around, linear_ticks, log_ticks, place_labels
from quantgate.report.page.frontier import Point, frontiers, mark_front, staircase

from selftest.report.examples import cell, verdict
from selftest.report.pages import chart, charted, scheme

SMALL = st.integers(0, 4).map(float)


def test_cells_that_another_beats_are_not_on_the_front() -> None:
    shown = chart()
    assert {p.scheme: p.front for p in shown.points} == {
        "Q4_0": True,
        "Q8_0": True,
        "Q5_1": False,
        "nf4": False,
        "F16": True,  # larger and slower than Q8_0, but without loss: it is the reference
    }
    assert [p.size for p in shown.points] == sorted(p.size for p in shown.points)
    assert shown.backends == {"b": 0, "c": 1}
    assert "another cell is as good in all or better" in shown.text(shown.points[2])


def test_speed_has_a_drawing_of_those_that_have_one() -> None:
    size, speed = chart().panels
    assert [len(size.marks), len(speed.marks)] == [5, 4]
    assert size.y_ticks[-1] == (286, "0")
    at = {m.point.scheme: (m.x, m.y) for m in size.marks}
    assert at["F16"][1] == 286
    assert at["Q4_0"][0] < at["Q8_0"][0] < at["F16"][0]
    assert at["Q4_0"][1] < at["Q8_0"][1] < at["F16"][1]
    assert {label.text for label in size.labels} == {"F16", "Q8_0", "Q4_0", "Q5_1", "nf4"}
    untimed = frontiers([v for v in charted() if "throughput" not in v.metric])
    assert [len(one.panels) for one in untimed] == [1] * len(untimed)


def test_perplexity_stands_in_for_divergence() -> None:
    verdicts = [v for v in charted() if "divergence" not in v.metric]
    (shown,) = (one for one in frontiers(verdicts) if one.model == "m")
    assert shown.loss == "perplexity"
    assert {p.loss for p in shown.points} == {20.0, 20.004, 20.3, 20.12, 20.26}


@pytest.mark.parametrize(
    ("metric", "loss"), [("perplexity/loss", 1.4), ("divergence", None), ("perplexity", None)]
)
def test_a_cell_without_a_divergence_is_a_reference_only_where_nothing_compares_it(
    metric: str, loss: float | None
) -> None:
    """One whose divergence failed, or cannot be measured, would be the best of all, without any loss."""
    compared = [*scheme("served/Q2_K", 60, None), verdict("m/served/Q2_K", metric, measured=loss)]
    assert {point.scheme for point in frontiers([*charted(), *compared])[-1].points} == {
        "F16", "Q8_0", "Q4_0", "Q5_1", "nf4",
    }  # fmt: skip


def test_too_few_cells_make_no_chart() -> None:
    assert frontiers(cell("m/b/s", 20.0)) == []
    assert frontiers([*scheme("b/1", 10, 0.1), *scheme("b/2", 10, 0.2)]) == []
    same = [v for n in range(3) for v in scheme(f"b/{n}", 10, 0.1)]
    assert len(frontiers(same)[0].panels[0].marks) == 3


@given(st.lists(st.tuples(SMALL, SMALL, st.none() | SMALL), min_size=1, max_size=8))
def test_the_front_beats_everything_else(values: list[tuple[float, float, float | None]]) -> None:
    points = mark_front([Point(f"m/b/{n}", *v, Status.PASS) for n, v in enumerate(values)])
    front = [p for p in points if p.front]
    assert front

    def costs(p: Point) -> tuple[float, float, float]:
        return p.size, p.loss, math.inf if p.speed is None else -p.speed

    def beats(a: Point, b: Point) -> bool:
        return costs(a) != costs(b) and all(x <= y for x, y in zip(costs(a), costs(b), strict=True))

    assert not any(beats(p, q) for p in points for q in front)
    assert all(any(beats(q, p) for q in front) for p in points if not p.front)


def test_the_line_descends_in_steps() -> None:
    assert staircase([(3, 1), (1, 5), (2, 2), (2, 4), (4, 3)]) == [(1, 5), (2, 5), (2, 2), (3, 2), (3, 1)]


def test_ticks_are_round() -> None:
    assert linear_ticks(0, 203) == [0, 50, 100, 150, 200]
    assert linear_ticks(0.011, 0.0175) == [0.012, 0.014, 0.016]
    assert linear_ticks(1, 1) == [1]
    assert log_ticks(0.0007, 2) == [0.001, 0.01, 0.1, 1]
    assert log_ticks(75, 620) == [100, 200, 500]
    assert log_ticks(100, 140) == [100, 110, 120, 130, 140]


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e4))
def test_ticks_are_inside_the_axis(low: float, factor: float) -> None:
    for ticks in (linear_ticks(low, low * factor), log_ticks(low, low * factor)):
        assert ticks == sorted(set(ticks))
        assert len(ticks) < 13
        assert all(low * 0.99 <= tick <= low * factor * 1.01 for tick in ticks)


def test_values_keep_their_order_on_the_axis() -> None:
    axis = Scale(*around([1, 1000], log=True), 50, 450, log=True)
    assert 50 < axis(1) < axis(10) < axis(1000) < 450
    assert axis(0) == 50
    assert axis(10) - axis(1) == pytest.approx(axis(100) - axis(10), abs=0.2)
    assert Scale(*around([5, 5]), 300, 0)(5) == 150


@given(st.lists(st.tuples(st.integers(20, 400), st.integers(20, 280)), min_size=1, max_size=25))
def test_labels_cover_neither_points_nor_each_other(places: list[tuple[int, int]]) -> None:
    labels = place_labels([(x, y, "Q4_K_M") for x, y in places], places, 450, 290)
    assert labels
    boxes = []
    for label in labels:
        long = LETTER * len(label.text)
        begin = label.x - {"start": 0, "end": long, "middle": long / 2}[label.anchor]
        boxes.append((begin, label.y - LINE + 3, begin + long, label.y + 2))
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for x, y in places:
        assert not any(a < x < c and b < y < d for a, b, c, d in boxes)
