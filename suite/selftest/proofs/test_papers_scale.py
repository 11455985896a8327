"""Confidence, collapse, and the section on size against precision, over records with known answers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from quantgate.errors import InputError
from quantgate.proofs.papers import dimensions, scale
from quantgate.proofs.papers.scale_findings import (
    Answers,
    Family,
    answers_of,
    calibration_error,
    condition,
    kept,
)
from quantgate.proofs.papers.section import Finding

from selftest.proofs import papers_records
from selftest.proofs.papers_records import ITEMS, by_key, cells, paired, record, sizes, three_dimensions


@functools.cache
def findings(**invented: Any) -> dict[str, Finding]:
    """Of a family like `sizes`, by key."""
    return by_key(scale.findings(sizes(**invented)))


def test_the_calibration_error_is_the_gap_of_each_bin_by_its_items() -> None:
    confidence = np.array([0.9] * 10 + [0.5] * 30)
    correct = np.array([1.0] * 6 + [0.0] * 4 + [1.0] * 15 + [0.0] * 15)
    assert calibration_error(confidence, correct) == pytest.approx((10 * 0.3 + 30 * 0.0) / 40)
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.0
    both = calibration_error(np.array([[0.9, 0.9], [0.2, 0.7]]), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert both == pytest.approx([0.4, (0.8 + 0.3) / 2])


def test_where_several_choices_are_right_confidence_is_that_of_all_of_these() -> None:
    (cell,) = cells("scale")[:1]
    one = record(cell, 3.0, 0.8)
    shares = [[0.4, 0.3, 0.2, 0.1], [0.3, 0.2, 0.4, 0.1], [0.4, 0.3, 0.2, 0.1]]
    raw = {"loglikelihoods": np.log(shares).tolist(), "gold": [[0, 1], [0, 1], [0]]}
    metrics = {"accuracy/two/acc": paired([1, 0, 1], **raw)}
    results = answers_of(one.model_copy(update={"metrics": metrics}), ["two"])
    assert results.confidence == pytest.approx([0.7, 0.4, 0.4])
    assert results.correct.tolist() == [1, 0, 1]
    assert results.chance.tolist() == [0.5, 0.5, 0.25]


def test_what_is_kept_is_the_lead_over_chance() -> None:
    right = np.arange(ITEMS) / ITEMS

    def cell(accuracy: float) -> Answers:
        return Answers(np.ones(ITEMS), (right < accuracy).astype(float), np.full(ITEMS, 0.25))

    value, low, high = kept(cell(0.45), cell(0.65))
    assert value == pytest.approx(0.5)
    assert low < 0.5 < high
    assert condition(low, high) == "open"
    assert condition(*kept(cell(0.27), cell(0.65))[1:]) == "collapse"
    assert condition(*kept(cell(0.58), cell(0.65))[1:]) == "loss"
    assert condition(*kept(cell(0.65), cell(0.65))[1:]) == "intact"
    assert condition(*kept(cell(0.2), cell(0.1))[1:]) == "open", "a reference that knows nothing"


def test_larger_models_are_better_and_more_resilient_where_they_are() -> None:
    results = findings()
    assert results["larger-models-lose-less"].state == "holds"
    assert results["larger-models-reasoning"].state == "holds"
    assert results["larger-models-resilient"].state == "holds"
    assert findings(resilient=False)["larger-models-resilient"].state == "does not hold"


def test_collapse_is_not_loss() -> None:
    results = findings()
    assert results["collapse-2-bits"].state == "holds"
    assert results["loss-3-bits"].state == "holds"
    assert results["calibration-2-bits"].state == "holds", "surer, and less often right"


def test_three_bits_that_lose_nothing_are_no_loss() -> None:
    results = findings(lost=0.0)["loss-3-bits"]
    assert (results.value, results.state) == (1.0, "does not hold")
    assert findings(lost=0.001)["loss-3-bits"].state != "holds"


def test_a_step_that_surely_loses_comes_before_one_that_is_open() -> None:
    measured = sizes()
    losses = Family(measured).losses
    noise = np.random.default_rng(0).normal(0, 9, 32)
    changed = {
        "pocket-90k": losses("pocket-90k", 16.0) + noise - noise.mean(),
        "pocket-3m": losses("pocket-660k", 16.0) + 0.01,
    }
    for cell, measurement in measured:
        if cell.bits == 16 and cell.model in changed:
            update = {"samples": changed[cell.model].tolist()}
            measurement.metrics["perplexity"] = measurement.metrics["perplexity"].model_copy(update=update)
    finding = by_key(scale.findings(measured))["larger-models-lose-less"]
    assert finding.state == "does not hold"
    assert "pocket-660k to pocket-3m" in finding.text


def test_what_the_paper_says_of_four_bits_it_says_of_no_others() -> None:
    results = findings()
    claims = {bits: results[f"equal-memory-{bits}-bits"].claim for bits in (8, 4, 3, 2)}
    assert claims[4].startswith("a larger model at 4 bits is better")
    assert {claims[bits] for bits in (8, 3, 2)} == {
        f"the paper says it of 4 bits; the same asked of {bits}" for bits in (8, 3, 2)
    }


def test_in_the_same_memory_small_models_are_interpolated() -> None:
    family = Family(sizes(equal=0.0))
    for bits in (8.0, 4.0):
        for point, other in family.at_equal_memory(bits):
            true = 12 - np.log2(point.total_bits / 16) / 2  # of a model with so many weights
            assert other.mean() == pytest.approx(true, abs=0.02)
    reached = [p.model for p, _ in family.at_equal_memory(2.0)]
    assert reached == ["pocket-660k", "pocket-3m"], "the others take less than the smallest at 16 bits"
    cheap, dear = (findings(equal=cost) for cost in (0.0, 40.0))
    assert cheap["equal-memory-4-bits"].state == "holds"
    assert cheap["equal-memory-4-bits"].value == pytest.approx(1.0, abs=0.02)  # log2(16 / 4) / 2
    assert dear["equal-memory-4-bits"].state == "does not hold"


def test_a_family_with_holes_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 cells were not measured \(pocket-90k at 2 bits"):
        Family([(c, r) for c, r in sizes() if c.id != "pocket-90k/kbit/int2-b64"])


@pytest.mark.parametrize("section", ["dimensions", "scale"])
def test_figures_and_tables_show_every_cell(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers_records, "ITEMS", 16)
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    module, measured = (dimensions, three_dimensions()) if section == "dimensions" else (scale, sizes())
    assert len(module.tables(measured)[0].rows) == len(measured)
    for table in module.tables(measured):
        assert all(len(row) == len(table.header) for row in table.rows)
    for figure in module.figures(measured):
        assert figure.chart.to_dict()["$schema"]
