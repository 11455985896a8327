"""Curves, fronts and findings of the k-bit section, over points with known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from quantgate.errors import InputError
from quantgate.proofs.papers.kbit_findings import (
    FEW,
    MANY,
    TYPES,
    Curve,
    best_precision,
    correlation,
    curve,
    findings,
    lead,
    pareto,
)
from quantgate.proofs.papers.section import decide
from quantgate.proofs.papers.statistics import (
    TASK,
    Point,
    around,
    bootstrap,
    mean_interval,
    middle,
    points_of,
)
from quantgate.run.inputs import load_matrix
from scipy import stats

from selftest.proofs.papers_points import MODELS, base, cost, grid, point, record


def test_the_front_is_what_nothing_beats() -> None:
    points = [
        point("a", b, loss) for b, loss in [(3, 5.0), (4, 4.0), (5, 4.5), (6, 3.5), (8, 3.5), (16, 3.4)]
    ]
    assert [p.bits for p in pareto(points)] == [3, 4, 6, 16]
    assert [p.bits for p in pareto(points, cost=lambda p: -p.loss)] == [3]


def test_a_curve_is_interpolated_between_its_models_and_no_further() -> None:
    result = curve("x", [point("b", 4, 3.0), point("a", 4, 5.0)])
    middle = np.log2(4e6) + 1
    assert result.at(middle) == pytest.approx(4.0)
    assert np.isnan(result.at(middle + 2))


def test_lead_is_the_mean_gap_where_both_are() -> None:
    one = Curve("one", (10.0, 20.0), (5.0, 4.0))
    other = Curve("other", (15.0, 25.0), (5.0, 4.0))
    assert lead(one, other) == pytest.approx(0.5)
    assert lead(other, one) == pytest.approx(-0.5)
    assert np.isnan(lead(one, Curve("far", (30.0, 40.0), (1.0, 0.5))))


def test_findings_that_hold_are_found() -> None:
    result = {f.key: f for f in findings(grid())}
    assert len(result) == len(TYPES) + len(FEW) + len(MANY) + 2 * len(FEW) + 2 + 1
    assert [f.key for f in result.values() if f.state != "holds" and not f.key.startswith("four-bits")] == []
    block = result["blocks-4-bits"]
    assert block.low < block.value < block.high
    expected = np.mean([cost(4, 1024, t) - cost(4, 64, t) for t in TYPES])
    assert block.value == pytest.approx(expected, abs=1e-6)
    gain = cost(4, 64, "int") - cost(4, 64, "float")
    assert result["float-against-int-4-bits"].value == pytest.approx(gain)


def test_findings_that_do_not_hold_say_so() -> None:
    def worse(p: Point) -> Point:
        if p.options.get("data_type") == "float" and p.bits == 5:
            assert p.divergences is not None
            return replace(p, losses=p.losses + 0.5, divergences=p.divergences + 0.5)
        if p.bits == 6 and p.options.get("block") == 1024:
            return replace(p, losses=p.losses + 0.1)
        return p

    failing = {f.key for f in findings([worse(p) for p in grid()]) if f.state == "does not hold"}
    assert {"falls-with-bits-float", "blocks-6-bits", "float-against-int-5-bits"} <= failing
    assert not {"falls-with-bits-int", "blocks-7-bits", "float-against-int-4-bits"} & failing


def test_a_bit_that_surely_hurts_comes_before_one_of_which_nothing_is_known() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 32)

    def changed(p: Point) -> Point:
        assert p.divergences is not None
        more = {5: 0.1, 8: noise - noise.mean()}
        return replace(p, divergences=p.divergences + more.get(int(p.bits), 0.0))

    points = [changed(p) if p.options.get("data_type") == "float" else p for p in grid()]
    result = {f.key: f for f in findings(points)}["falls-with-bits-float"]
    assert result.state == "does not hold"
    assert "from 4 to 5 bits" in result.text


def test_what_the_text_cannot_tell_is_open() -> None:
    def noisy(p: Point) -> Point:
        if p.options.get("data_type") == "float" and p.bits == 4:
            return replace(p, losses=p.losses + np.random.default_rng(0).normal(0, 1, 32))
        return p

    result = {f.key: f for f in findings([noisy(p) for p in grid()])}
    assert result["float-against-int-4-bits"].state == "open"
    assert result["float-against-int-3-bits"].state == "holds"


def test_intervals_of_means_are_students() -> None:
    values = np.array([1.0, 2.0, 4.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((values.mean(), expected.low, expected.high))


def test_a_bootstrap_of_a_mean_comes_near_it() -> None:
    values = np.random.default_rng(1).normal(2, 1, 400)
    result = bootstrap(len(values), lambda rows: float(values[rows].mean()))
    assert result == pytest.approx(mean_interval(values), abs=0.01)
    assert middle(np.array([np.nan, 1.0, np.inf])) == (1.0, 1.0)
    assert np.isnan(middle(np.array([np.nan]))).all()


def test_an_interval_is_around_the_value_of_a_folded_statistic() -> None:
    """Draws of a distance from nought, which is nought over all units, lie on one side of it."""
    draws = np.abs(np.random.default_rng(0).normal(0, 1, 1000))
    assert middle(draws)[0] > 0
    low, high = around(0.0, draws)
    assert low < 0.0 < high
    assert high - low == pytest.approx(np.subtract(*middle(draws)[::-1]))
    plain = np.random.default_rng(0).normal(2, 1, 1000)
    assert around(float(plain.mean()), plain) == pytest.approx(middle(plain))


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(0.1, 0.2, "holds"), (-0.1, 0.2, "open"), (-0.2, 0.0, "does not hold"), (math.nan, math.nan, "open")],
)
def test_an_interval_decides(low: float, high: float, state: str) -> None:
    assert decide(low, high, above=0) == state
    assert decide(-high, -low, below=0) == state
    assert decide(low, high, above=-1, below=1) == ("holds" if state != "open" or low == -0.1 else "open")


def test_the_best_precision_is_named() -> None:
    def scheme(bits: int, loss: float) -> list[Point]:
        return [point(m, bits, base(m) + loss, data_type="int", block=64) for m in MODELS]

    ahead, front = best_precision([*scheme(3, 1.0), *scheme(4, 0.05), *scheme(8, 0.0)])
    assert (ahead.state, front.state, front.value) == ("holds", "holds", 1.0)
    assert 0 < ahead.low <= ahead.value <= ahead.high
    ahead, front = best_precision([*scheme(3, 0.01), *scheme(4, 0.9), *scheme(8, 0.0)])
    assert (ahead.state, front.state, front.value) == ("does not hold", "does not hold", 0.0)
    assert "that of 3 bits" in ahead.text
    assert "on the front of the whole text: 3, 8 bits" in front.text


def test_correlation_has_its_interval() -> None:
    result = correlation(grid())
    assert result.value == pytest.approx(-1.0)
    assert result.state == "holds"
    source = np.random.default_rng(0)
    loose = correlation([replace(p, hits=source.normal(size=8)) for p in grid()])
    assert loose.low < loose.value < loose.high
    assert loose.state == "does not hold"


def test_items_that_all_cells_share_leave_a_correlation_open() -> None:
    """Three models of one accuracy each, at chance: as many cells as you like say no more than three do."""
    hits = {m: (np.random.default_rng(n).random(64) < 0.25).astype(float) for n, m in enumerate(MODELS)}
    result = correlation([replace(p, hits=hits[p.model]) for p in grid()])
    assert result.state == "open"


def test_a_cell_without_all_it_takes_is_no_point() -> None:
    cell = load_matrix().cells("papers")[0]
    whole = record(cell, point("a", cell.bits, 5.0))
    (result,) = points_of([(cell, whole)])
    assert (result.model, result.scheme, result.bits) == (cell.model, cell.scheme, cell.bits)
    assert result.loss == pytest.approx(5.0)
    for missing in ("perplexity", TASK, "memory/weight_bytes"):
        metrics = {name: metric for name, metric in whole.metrics.items() if name != missing}
        assert points_of([(cell, whole.model_copy(update={"metrics": metrics}))]) == []


def test_a_grid_with_holes_is_refused() -> None:
    with pytest.raises(InputError, match=r"^1 of 288 cells of the grid are missing: a int3-b64 "):
        findings(grid()[1:])
