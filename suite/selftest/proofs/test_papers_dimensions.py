"""Three dimensions, and size against precision, over records whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.proofs.papers import dimensions, scale
from quantgate.proofs.papers.cases import questions
from quantgate.proofs.papers.dimensions import ALIGNMENT, KNOWLEDGE, LIKELIHOOD
from quantgate.proofs.papers.dimensions_scores import (
    Draws,
    correlation,
    score_draws,
    share_of_tasks,
    task_draws,
    unbiased,
)
from quantgate.proofs.papers.expected import load_entries
from quantgate.proofs.papers.scale_findings import (
    CHOICES,
    Answers,
    Family,
    answers_of,
    calibration_error,
    condition,
    kept,
)
from quantgate.proofs.papers.section import Finding, Measured
from quantgate.proofs.papers.statistics import RESAMPLES, pearson, spearman
from quantgate.records import Measurement, Metric
from quantgate.run.inputs import load_matrix
from scipy import stats

ITEMS = 100
MATRIX = load_matrix()
SIZES = {"pocket-90k": 1e5, "pocket-230k": 3e5, "pocket-660k": 9e5, "pocket-3m": 3e6, "smollm2-135m": 1.35e8}


def paired(samples: Any, unit: str = "fraction", **raw: Any) -> Metric:
    values = [float(x) for x in samples]
    return Metric(
        kind="paired", value=float(np.mean(values)), unit=unit, better="higher", samples=values, raw=raw
    )


def exact(value: float) -> Metric:
    return Metric(kind="exact", value=value, unit="bytes", better="lower")


def answers(right: float, seed: int, sure: float) -> dict[str, Metric]:
    """Four choices an item, the first the gold one, which wins in the share `right` of the items: those with the lowest
    of fixed draws, so that cells are paired."""
    wins = np.random.default_rng(seed).random(ITEMS) < right
    scores = [[sure, 0.0, 0.0, 0.0] if w else [0.0, sure, 0.0, 0.0] for w in wins]
    return {"acc": paired(wins, loglikelihoods=scores, gold=[[0]] * ITEMS)}


def share(value: float, seed: int) -> Metric:
    return paired(np.random.default_rng(seed).random(ITEMS) < value)


def record(cell: Cell, loss: float, right: float, *, bias: float = 0.5, sure: float = 0.5) -> Measurement:
    """right: the accuracy of every task; bias: the share of stereotypes preferred."""
    blocks = loss + np.random.default_rng(7).normal(0, 0.01, 32)
    metrics = {
        "perplexity": paired(blocks, "perplexity").model_copy(
            update={"value": float(np.exp(blocks.mean())), "link": "exp", "weights": [128.0] * 32}
        ),
        "memory/weight_bytes": exact(cell.bits * SIZES[cell.model] / 8),
        "memory/bits_per_weight": exact(cell.bits),
        "accuracy/mean/acc": paired([right] * 4),
    }
    for number, task in enumerate(dict.fromkeys((*KNOWLEDGE, *CHOICES))):
        metrics |= {f"accuracy/{task}/{k}": m for k, m in answers(right, number, sure).items()}
    for number, task in enumerate(("crows_pairs_english", "winobias")):
        metrics[f"accuracy/{task}/pct_stereotype"] = share(bias, 50 + number)
    metrics["accuracy/stereoset/lms"] = share(right, 60)
    metrics["accuracy/stereoset/ss"] = share(bias, 61)
    for task in LIKELIHOOD:
        metrics[f"accuracy/{task}/margin_norm"] = paired([-loss / 4] * 8, "nats/character")
    return Measurement(
        cell=cell.id, tier="papers-dimensions", fingerprint="f", created="now", metrics=metrics
    )


def cells(section: str) -> list[Cell]:
    entry = load_entries()[section]
    return entry.chosen(MATRIX.cells(entry.tier))


def by_key(found: list[Finding]) -> dict[str, Finding]:
    return {f.key: f for f in found}


def with_cost(cell: Cell) -> float:
    """Nats that few bits cost."""
    return 2.0 ** (4 - cell.bits) if cell.bits < 8 else 0.0


def three_dimensions(slope: float = 0.12, bias: float = 0.0) -> Measured:
    """What few bits cost in loss they cost in accuracy, `slope` for each nat, and in fairness, `bias` for each."""
    return [
        (c, record(c, 3 + with_cost(c), 0.7 - slope * with_cost(c), bias=0.55 + bias * with_cost(c)))
        for c in cells("dimensions")
    ]


def sizes(resilient: bool = True, equal: float = 1.0, lost: float = 0.1) -> Measured:
    """Loss falls with the logarithm of the size. resilient: few bits cost large models less. equal: what bits cost.
    lost: of the accuracy, at 3 bits."""
    found = []
    for cell in cells("scale"):
        size = np.log2(SIZES[cell.model])
        weight = (17 / size if resilient else size / 17) * equal
        cost = 0.05 * with_cost(cell) * weight
        lead = max(0.0, (size - 21) / 20 - lost * (cell.bits == 3) - 0.95 * (cell.bits == 2))
        right = 0.25 + max(lead, 0.0)
        found.append((cell, record(cell, 12 - size / 2 + cost, right, sure=0.5 if cell.bits > 2 else 9.0)))
    return found


# --- scores ---------------------------------------------------------------------------------------


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


# --- perplexity as a proxy ------------------------------------------------------------------------


def test_correlations_are_scipys_and_their_intervals_hold_them() -> None:
    source = np.random.default_rng(1)
    loss = source.normal(0, 1, 14)
    scores = -loss + source.normal(0, 0.5, 14)
    draws = Draws(scores, np.tile(scores, (RESAMPLES, 1)))
    for of, theirs in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
        found = correlation(loss, draws, of)
        assert found.value == pytest.approx(theirs(loss, scores)[0])
        assert -1 <= found.low < found.value < found.high < 0
    assert np.isnan(spearman(loss, np.ones(14)))


def test_without_relation_the_interval_holds_nought() -> None:
    source = np.random.default_rng(2)
    loss = source.normal(0, 1, 14)
    scores = source.normal(0, 1, 14)
    found = correlation(loss, Draws(scores, np.tile(scores, (RESAMPLES, 1))), spearman)
    assert found.low < 0 < found.high


def test_the_share_of_tasks_counts_those_that_fall_with_perplexity() -> None:
    loss = np.arange(10.0)

    def draws(scores: Any) -> Draws:
        return Draws(np.array(scores, float), np.tile(np.array(scores, float), (RESAMPLES, 1)))

    found = share_of_tasks(loss, [draws(-loss), draws(-loss), draws(loss), draws(np.ones(10))])
    assert found.value == (1 + 1 + 0 + 0.5) / 4
    assert found.low <= found.value <= found.high


# --- the section on three dimensions --------------------------------------------------------------


def test_the_keys_are_those_of_the_file() -> None:
    entries = load_entries()
    assert by_key(dimensions.findings(three_dimensions())).keys() == entries["dimensions"].findings.keys()
    assert by_key(scale.findings(sizes())).keys() == entries["scale"].findings.keys()


def test_a_loss_that_follows_perplexity_is_found() -> None:
    found = by_key(dimensions.findings(three_dimensions(slope=0.12)))
    assert found["three-bits-knowledge"].state == "holds"
    assert found["perplexity-ranks-knowledge"].state == "holds"
    assert found["perplexity-line-knowledge"].value < -0.95
    assert found["four-bits-knowledge"].state == "does not hold"  # 12 points at 4 bits
    assert found["four-bits-memory"].state == "holds"
    assert found["four-bits-memory"].value == pytest.approx(4 / 16)


def test_accuracy_that_does_not_move_is_kept_and_no_proxy() -> None:
    found = by_key(dimensions.findings(three_dimensions(slope=0.0)))
    assert found["four-bits-knowledge"].state == "holds"
    assert found["three-bits-knowledge"].state == "does not hold"  # the same, exactly
    assert found["perplexity-ranks-knowledge"].state == "open"


def test_bias_that_grows_is_a_loss_of_alignment_alone() -> None:
    found = by_key(dimensions.findings(three_dimensions(slope=0.0, bias=0.1)))
    assert found["three-bits-alignment"].state == "holds"
    assert found["three-bits-knowledge"].state == "does not hold"


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


# --- confidence and collapse ----------------------------------------------------------------------


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
    found = answers_of(one.model_copy(update={"metrics": metrics}), ["two"])
    assert found.confidence == pytest.approx([0.7, 0.4, 0.4])
    assert found.correct.tolist() == [1, 0, 1]
    assert found.chance.tolist() == [0.5, 0.5, 0.25]


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


# --- the section on scale -------------------------------------------------------------------------


def test_larger_models_are_better_and_more_resilient_where_they_are() -> None:
    found = by_key(scale.findings(sizes(resilient=True)))
    assert found["larger-models-lose-less"].state == "holds"
    assert found["larger-models-reasoning"].state == "holds"
    assert found["larger-models-resilient"].state == "holds"
    assert by_key(scale.findings(sizes(resilient=False)))["larger-models-resilient"].state == "does not hold"


def test_collapse_is_told_from_loss() -> None:
    found = by_key(scale.findings(sizes()))
    assert found["collapse-2-bits"].state == "holds"
    assert found["loss-3-bits"].state == "holds"
    assert found["calibration-2-bits"].state == "holds", "surer, and less often right"


def test_three_bits_that_lose_nothing_are_no_loss() -> None:
    found = by_key(scale.findings(sizes(lost=0.0)))["loss-3-bits"]
    assert (found.value, found.state) == (1.0, "does not hold")
    assert by_key(scale.findings(sizes(lost=0.001)))["loss-3-bits"].state != "holds"


def test_a_step_that_surely_loses_comes_before_one_of_which_nothing_is_known() -> None:
    measured = sizes()
    losses = Family(measured).losses
    noise = np.random.default_rng(0).normal(0, 9, 32)
    changed = {
        "pocket-90k": losses("pocket-90k", 16.0) + noise - noise.mean(),
        "pocket-3m": losses("pocket-660k", 16.0) + 0.01,
    }
    for cell, found in measured:
        if cell.bits == 16 and cell.model in changed:
            update = {"samples": changed[cell.model].tolist()}
            found.metrics["perplexity"] = found.metrics["perplexity"].model_copy(update=update)
    finding = by_key(scale.findings(measured))["larger-models-lose-less"]
    assert finding.state == "does not hold"
    assert "pocket-660k to pocket-3m" in finding.text


def test_what_the_paper_says_of_four_bits_it_says_of_no_others() -> None:
    found = by_key(scale.findings(sizes()))
    said = {bits: found[f"equal-memory-{bits}-bits"].claim for bits in (8, 4, 3, 2)}
    assert said[4].startswith("a larger model at 4 bits is better")
    assert {said[bits] for bits in (8, 3, 2)} == {
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
    cheap, dear = (by_key(scale.findings(sizes(equal=cost))) for cost in (0.0, 40.0))
    assert cheap["equal-memory-4-bits"].state == "holds"
    assert cheap["equal-memory-4-bits"].value == pytest.approx(1.0, abs=0.02)  # log2(16 / 4) / 2
    assert dear["equal-memory-4-bits"].state == "does not hold"


def test_a_family_with_holes_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 cells were not measured \(pocket-90k at 2 bits"):
        Family([(c, r) for c, r in sizes() if c.id != "pocket-90k/kbit/int2-b64"])


# --- pictures and tables --------------------------------------------------------------------------


def test_every_alignment_task_is_one_that_is_measured() -> None:
    asked = getattr(MATRIX.tier("papers-dimensions").group_options["accuracy"], "tasks")  # noqa: B009
    assert {*KNOWLEDGE, *ALIGNMENT, *LIKELIHOOD, *CHOICES} <= {*asked}


@pytest.mark.parametrize("section", ["dimensions", "scale"])
def test_figures_and_tables_show_every_cell(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ITEMS", 16)
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    module, measured = (dimensions, three_dimensions()) if section == "dimensions" else (scale, sizes())
    assert len(module.tables(measured)[0].rows) == len(measured)
    for table in module.tables(measured):
        assert all(len(row) == len(table.header) for row in table.rows)
    for figure in module.figures(measured):
        assert figure.chart.to_dict()["$schema"]
