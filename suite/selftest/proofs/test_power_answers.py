"""Replays of written answers: what a loss of known size on as many items comes to."""

from __future__ import annotations

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.proofs.power.answers import ITEMS, LOST, POOLED, answers
from quantgate.proofs.power.report import effect
from quantgate.proofs.power.study import Row, study
from quantgate.records import Metric
from scipy import stats

from selftest.proofs.power_records import CELL, rules

ALPHA = 3e-5
NEEDED = 16
"""Lost items and none gained, whose probability is below that: 2 ** -16."""


def solved(share: float) -> Metric:
    samples = [float(n < 20 * share) for n in range(20)]
    return Metric(kind="paired", value=share, unit="fraction", better="higher", samples=samples, answers=True)


def row(lost: float, items: int, count: int = 400) -> Row:
    (scenario,) = (
        one
        for one in answers({CELL: {POOLED: solved(0.6)}})
        if (one.effect, one.spread) == (lost, f"{items:,} items")
    )
    (only,) = study(scenario, rules(Tolerance(metric=POOLED, absolute=0.02), alpha=ALPHA), count)
    return only


def test_no_loss_is_never_red_and_every_size_is_tried() -> None:
    assert row(0.0, 500).red.hits == 0
    assert len(answers({CELL: {POOLED: solved(0.6)}})) == len(ITEMS) * (1 + len(LOST))
    assert answers({CELL: {}}) == []


@pytest.mark.parametrize(("lost", "items"), [(0.03, 500), (0.05, 500), (0.05, 1000)])
def test_a_loss_is_red_as_often_as_enough_items_are_lost(lost: float, items: int) -> None:
    expected = stats.binom.sf(NEEDED - 1, items, lost)
    low, high = row(lost, items).red.interval(0.999)
    assert low <= expected <= high


def test_a_loss_is_named_in_points() -> None:
    assert [effect("answers", size) for size in (0.0, 0.01, 0.03)] == ["none", "-1 point", "-3 points"]


def test_what_is_lost_was_right() -> None:
    (scenario,) = (
        one
        for one in answers({CELL: {POOLED: solved(0.6)}})
        if (one.effect, one.spread) == (0.05, "100 items")
    )
    for replay in scenario.replays(5, np.random.default_rng(0)):
        old, new = (np.array(metric.samples) for metric in replay.pairs[POOLED])
        assert len(old) == 100
        assert (new <= old).all()
