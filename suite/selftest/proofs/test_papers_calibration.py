"""Findings on calibration sets, groups, mixed precision and outliers, over records with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.proofs.papers import calibration, outliers
from quantgate.proofs.papers.calibration_findings import METHODS, SETS, Grid
from quantgate.proofs.papers.expected import load_entries, outcomes
from quantgate.proofs.papers.section import Finding, Measured
from quantgate.records import Measurement, Metric
from quantgate.run.inputs import load_matrix

Change = Callable[[Cell], float]


def unchanged(cell: Cell) -> float:
    return 0.0


def loss(cell: Cell) -> float:
    """What the scheme adds to full precision, nats per token, were all as the papers say."""
    o = cell.scheme_options
    if cell.backend == "transformers" or cell.scheme == "F16":
        return 0.0
    if o.get("activations"):
        return 0.004 if o["method"] == "rtn" else 0.001
    if cell.backend == "llamacpp":
        return 0.05 if "imatrix" in o else 0.08
    if o["method"] == "rtn":
        return float(
            {"channel": 0.4, 192: 0.2, 64: 0.1, 32: 0.06}[o.get("group", "channel")]
            * (1 - o.get("high", 0)) ** 2
        )
    return 0.06


def metric(value: float, samples: Any = None, **more: Any) -> Metric:
    values = None if samples is None else list(samples)
    return Metric(kind="paired", value=value, unit="", better="lower", samples=values, **more)


def record(cell: Cell, metrics: dict[str, Metric]) -> Measurement:
    return Measurement(cell=cell.id, tier="t", fingerprint="x", created="now", metrics=metrics, complete=True)


def measured(change: Change = unchanged, answers: Change = unchanged) -> Measured:
    """change: of the loss of a cell; answers: which share of its items it gets wrong beside the others."""
    entry = load_entries()["calibration"]
    text = np.random.default_rng(0).normal(3, 0.5, 32)
    cells: list[tuple[Cell, Measurement]] = []
    for cell in entry.chosen(load_matrix().cells(entry.tier)):
        noise = np.random.default_rng(len(cell.id)).normal(0, 0.0005, 32)
        losses = text + loss(cell) + change(cell) + noise - noise.mean()
        hits = np.arange(96) % 2 * (np.arange(96) >= 96 * answers(cell))
        cells.append(
            (
                cell,
                record(
                    cell,
                    {
                        "perplexity": metric(math.exp(losses.mean()), losses),
                        "accuracy/mean/acc": metric(hits.mean(), hits),
                        "memory/bits_per_weight": metric(cell.bits + 0.5),
                    },
                ),
            )
        )
    return cells


def by_key(cells: Measured) -> dict[str, Finding]:
    return {f.key: f for f in calibration.findings(cells)}


def test_every_finding_of_the_file_can_hold() -> None:
    results = by_key(measured())
    assert {f.state for f in results.values()} == {"holds"}
    outcomes("calibration", load_entries()["calibration"], list(results.values()), "", None)
    assert results["helps-gptq"].value == pytest.approx(0.04)
    assert results["helps-imatrix"].value == pytest.approx(0.03)
    assert results["outliers-cost-little"].value == pytest.approx(0.004)
    assert results["small-groups"].value == pytest.approx(0.04)
    assert results["small-groups"].text.endswith("from rtn4-g64 to rtn4-g32")
    assert results["mixed-precision"].value == pytest.approx(1 - 0.75**2)
    for one in results.values():
        assert one.low <= one.value <= one.high


@pytest.mark.parametrize(
    ("hurt", "by", "failing"),
    [
        ("gptq4-g64-german", 0.04, {"sets-gptq", "random-no-better-gptq"}),
        ("gptq4-g64-random", 0.05, {"random-costs-little-gptq"}),
        ("smoothquant8-a8-random", -0.02, {"random-no-better-smoothquant"}),
        ("Q4_0-wikipedia", 0.05, {"helps-imatrix", "sets-imatrix", "random-no-better-imatrix"}),
        ("rtn8-a8", 0.1, {"outliers-cost-little"}),
        ("rtn4-g32", 0.1, {"small-groups"}),
        ("rtn4-g64-high0.25", 0.04, {"mixed-precision"}),
    ],
)
def test_a_loss_fails_the_findings_about_it(hurt: str, by: float, failing: set[str]) -> None:
    results = by_key(measured(lambda cell: by if cell.scheme == hurt else 0.0))
    assert {f.key for f in results.values() if f.state == "does not hold"} == failing


def test_a_group_size_that_surely_hurts_comes_before_one_that_is_open() -> None:
    noise = np.random.default_rng(0).normal(0, 3, 32)
    changes: dict[str, Any] = {"rtn4-g32": 0.1, "rtn4-channel": noise - noise.mean()}
    results = by_key(measured(lambda cell: changes.get(cell.scheme, 0.0)))["small-groups"]
    assert results.state == "does not hold"
    assert results.text.endswith("from rtn4-g64 to rtn4-g32")


def test_answers_that_depend_on_the_set_are_found() -> None:
    results = by_key(measured(answers=lambda cell: 0.5 if cell.scheme == "gptq4-g64-code" else 0.0))
    assert results["accuracy-gptq"].value == pytest.approx(0.25)
    assert results["accuracy-gptq"].state == "does not hold"
    assert results["accuracy-imatrix"].state == "holds"


def test_a_missing_cell_is_named() -> None:
    with pytest.raises(InputError, match=r"^llmcompressor/rtn4-g64 was not measured$"):
        calibration.findings([(c, m) for c, m in measured() if c.scheme != "rtn4-g64"])


def test_tables_have_all_sets_and_schemes() -> None:
    by_set, by_scheme = calibration.tables(measured())
    assert [row[0] for row in by_set.rows] == [m.label for m in METHODS]
    assert len(by_set.header) == len(by_set.rows[0]) == 3 + len(SETS)
    assert all(by_set.rows[0])
    assert len(by_scheme.rows) == len(Grid(measured()).rounded) == 7


def outlier_cells(factor: float) -> Measured:
    """factor: of the ratio on German, beside the other texts."""
    entry = load_entries()["outliers"]
    layers = [f"model.layers.{n}.{part}" for n in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")]
    cells: list[tuple[Cell, Measurement]] = []
    for cell in entry.chosen(load_matrix().cells(entry.tier)):
        metrics = {}
        for number, text in enumerate(SETS):
            ratio = 20.0 * (factor if text == "german" else 1.0)
            logs = np.random.default_rng(number).normal(np.log(ratio), 0.01, 8)
            raw = {"layers": {name: ratio * (1 + n) for n, name in enumerate(layers)}}
            metrics[f"outliers/{text}/ratio"] = metric(ratio, logs, raw=raw)
            metrics[f"outliers/{text}/kurtosis"] = metric(5.0, logs, raw=raw)
        cells.append((cell, record(cell, metrics)))
    return cells


@pytest.mark.parametrize(("factor", "state"), [(1.1, "holds"), (3.0, "does not hold")])
def test_outliers_that_come_and_go_with_the_text_are_found(factor: float, state: str) -> None:
    results = outliers.findings(outlier_cells(factor))
    assert {f.state for f in results} == {state}
    assert results[0].value == pytest.approx(factor, rel=0.02)
    outcomes("outliers", load_entries()["outliers"], results, "", None)


def test_the_table_names_the_most_extreme_layer() -> None:
    (table,) = outliers.tables(outlier_cells(1.0))
    assert table.rows[0][:4] == ("smollm2-135m", "wikipedia", "20.0", "80")
    assert table.rows[0][4] == "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize("module", [calibration, outliers])
def test_figures_are_drawn(module: Any) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    from quantgate.proofs.papers.page import png

    figures = module.figures(measured() if module is calibration else outlier_cells(1.1))
    assert figures
    for figure in figures:
        picture = png(figure.chart)
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000, "something is drawn"
