"""Scores of tasks, perplexity as a proxy, and the section on three dimensions, over records with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantgate.errors import InputError
from quantgate.proofs.papers import dimensions, scale
from quantgate.proofs.papers.dimensions import ALIGNMENT, KNOWLEDGE, LIKELIHOOD
from quantgate.proofs.papers.expected import load_entries
from quantgate.proofs.papers.plugin import questions
from quantgate.proofs.papers.scale_findings import (
    CHOICES,
)
from quantgate.proofs.papers.statistics import (
    RESAMPLES,
    Draws,
    correlation,
    pearson,
    score_draws,
    share_of_tasks,
    spearman,
    task_draws,
    unbiased,
)
from scipy import stats

from selftest.proofs.papers_records import (
    ITEMS,
    MATRIX,
    by_key,
    cells,
    paired,
    record,
    sizes,
    three_dimensions,
)


def test_a_model_without_preference_is_unbiased() -> None:
    assert unbiased(np.array([0.5, 0.0, 1.0, 0.6])) == pytest.approx([1, 0, 0, 0.8])


def test_scores_of_tasks_are_what_their_papers_define() -> None:
    (cell,) = cells("dimensions")[:1]
    measured = [(cell, record(cell, 3.0, 0.8, bias=0.7))]
    metrics = measured[0][1].metrics
    assert task_draws(measured, "piqa").all_items[0] == metrics["accuracy/piqa/acc"].value
    bias = metrics["accuracy/winobias/pct_stereotype"].value
    assert task_draws(measured, "winobias").all_items[0] == pytest.approx(2 * (1 - bias))
    lms, ss = (metrics[f"accuracy/stereoset/{k}"].value for k in ("lms", "ss"))
    assert task_draws(measured, "stereoset").all_items[0] == pytest.approx(lms * (1 - ss) / 0.5)
    both = score_draws(measured, ["piqa", "winobias"]).all_items[0]
    assert both == pytest.approx((metrics["accuracy/piqa/acc"].value + 2 * (1 - bias)) / 2)
    with pytest.raises(InputError, match="boolq was not measured"):
        task_draws(measured, "boolq")


def test_normalized_accuracy_counts_where_there_is_one() -> None:
    (cell,) = cells("dimensions")[:1]
    one = record(cell, 3.0, 0.8)
    metrics = {**one.metrics, "accuracy/piqa/acc_norm": paired([1.0] * ITEMS)}
    assert task_draws([(cell, one.model_copy(update={"metrics": metrics}))], "piqa").all_items[0] == 1.0


def test_items_are_drawn_alike_for_every_cell() -> None:
    """The interval of a difference is that of the items on which two cells differ, not of all items."""
    first, second = cells("dimensions")[:2]
    measured = [(first, record(first, 3.0, 0.60)), (second, record(second, 3.0, 0.57))]
    value, low, high = task_draws(measured, "piqa").difference([0], [1])
    flips = value * ITEMS
    expected = 1.96 * np.sqrt(flips) / ITEMS  # of a count of flips in one direction
    assert low < value < high
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)


def test_an_interval_is_around_a_score_that_is_the_best_there_is() -> None:
    """Without preference over all items; any draw of the items has some, and scores less."""
    shares = np.random.default_rng(0).binomial(ITEMS, 0.5, (RESAMPLES, 2)) / ITEMS
    draws = Draws(np.array([1.0, 0.5]), np.stack([unbiased(shares[:, 0]), 0.5 * shares[:, 1] + 0.25], axis=1))
    assert draws.resampled[:, 0].mean() < 0.95
    low, high = draws.interval(0)
    assert (low + high) / 2 == pytest.approx(1.0, abs=0.05)
    assert low < 1.0 < high
    value, low, high = draws.difference([0], [1])
    assert value == 0.5
    assert (low + high) / 2 == pytest.approx(value, abs=0.05)


def test_correlations_are_scipys_and_their_intervals_hold_them() -> None:
    source = np.random.default_rng(1)
    loss = source.normal(0, 1, 14)
    scores = -loss + source.normal(0, 0.5, 14)
    draws = Draws(scores, np.tile(scores, (RESAMPLES, 1)))
    for of, theirs in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
        results = correlation(loss, draws, of)
        assert results.value == pytest.approx(theirs(loss, scores)[0])
        assert -1 <= results.low < results.value < results.high < 0
    assert np.isnan(spearman(loss, np.ones(14)))


def test_without_relation_the_interval_holds_nought() -> None:
    source = np.random.default_rng(2)
    loss = source.normal(0, 1, 14)
    scores = source.normal(0, 1, 14)
    results = correlation(loss, Draws(scores, np.tile(scores, (RESAMPLES, 1))), spearman)
    assert results.low < 0 < results.high


def test_the_share_of_tasks_counts_those_that_fall_with_perplexity() -> None:
    loss = np.arange(10.0)

    def draws(scores: Any) -> Draws:
        return Draws(np.array(scores, float), np.tile(np.array(scores, float), (RESAMPLES, 1)))

    results = share_of_tasks(loss, [draws(-loss), draws(-loss), draws(loss), draws(np.ones(10))])
    assert results.value == (1 + 1 + 0 + 0.5) / 4
    assert results.low <= results.value <= results.high


def test_the_keys_are_those_of_the_file() -> None:
    entries = load_entries()
    assert by_key(dimensions.findings(three_dimensions())).keys() == entries["dimensions"].findings.keys()
    assert by_key(scale.findings(sizes())).keys() == entries["scale"].findings.keys()


def test_a_loss_that_follows_perplexity_is_found() -> None:
    results = by_key(dimensions.findings(three_dimensions(slope=0.12)))
    assert results["three-bits-knowledge"].state == "holds"
    assert results["perplexity-ranks-knowledge"].state == "holds"
    assert results["perplexity-line-knowledge"].value < -0.95
    assert results["four-bits-knowledge"].state == "does not hold"  # 12 points at 4 bits
    assert results["four-bits-memory"].state == "holds"
    assert results["four-bits-memory"].value == pytest.approx(4 / 16)


def test_accuracy_that_does_not_move_is_kept_and_no_proxy() -> None:
    results = by_key(dimensions.findings(three_dimensions(slope=0.0)))
    assert results["four-bits-knowledge"].state == "holds"
    assert results["three-bits-knowledge"].state == "does not hold"  # the same, exactly
    assert results["perplexity-ranks-knowledge"].state == "open"


def test_bias_that_grows_is_a_loss_of_alignment_alone() -> None:
    results = by_key(dimensions.findings(three_dimensions(slope=0.0, bias=0.1)))
    assert results["three-bits-alignment"].state == "holds"
    assert results["three-bits-knowledge"].state == "does not hold"


def test_cells_of_few_bits_are_needed() -> None:
    full = [(c, r) for c, r in three_dimensions() if c.bits > 4]
    with pytest.raises(InputError, match="of at most 3 bits are compared"):
        dimensions.findings(full)


def test_simulated_schemes_are_not_timed() -> None:
    tier = "papers-dimensions"
    question = next(q for q in questions(tier, MATRIX.cells(tier)) if q.section == "dimensions")
    timed = {n.cell.backend for n in question.needs if n.request.startswith("throughput")}
    assert timed == {"transformers", "bitsandbytes", "llamacpp"}
    assert {n.cell.backend for n in question.needs if n.request == "perplexity"} == {*timed, "kbit"}


def test_no_finding_is_about_speed() -> None:
    for section in ("dimensions", "scale"):
        assert not any(
            "fast" in k or "speed" in k or "throughput" in k for k in load_entries()[section].findings
        )
    table = dimensions.tables(three_dimensions())[0]
    simulated = [row for row in table.rows if "kbit" in row[0]]
    assert simulated
    assert all(row[-2:] == ("simulated", "simulated") for row in simulated)


def test_every_alignment_task_is_one_that_is_measured() -> None:
    tasks = getattr(MATRIX.tier("papers-dimensions").group_options["accuracy"], "tasks")  # noqa: B009
    assert {*KNOWLEDGE, *ALIGNMENT, *LIKELIHOOD, *CHOICES} <= {*tasks}
