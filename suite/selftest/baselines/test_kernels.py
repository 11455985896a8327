"""Ratios and peaks on several kinds of kernels are kept beside one another in a baseline."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from quantgate.baselines.baseline import Baseline
from quantgate.baselines.store import read
from quantgate.baselines.table import format_update
from quantgate.baselines.update import plan_update, write_update
from quantgate.errors import InputError
from quantgate.records import FORMAT, Measurement, Metric, Status, Verdict

from selftest.baselines.accepted import in_format
from selftest.judge.kernels import CELL, MIDDLE, NARROW, PEAK, RATIO, TIER, WIDE, peak, ratio

QUALITY = Metric(kind="exact", value=25.0, unit="", better="lower")


def measured(created: str = "2026-01-01", **metrics: Metric) -> Measurement:
    named = {name.replace("__", "/"): metric for name, metric in metrics.items()}
    return Measurement(
        cell=CELL,
        tier=TIER,
        fingerprint=created,
        created=created,
        environment={"day": created},
        metrics=named,
        complete=True,
    )


def run(root: Path, new: Measurement) -> Baseline:
    plan = plan_update(new, read(root, CELL, TIER), [])
    format_update(plan)
    write_update(root, plan, reason=f"of {new.created}")
    result = read(root, CELL, TIER)
    assert result is not None
    return result


def on(kernels: str, value: float, created: str, size: float = 1e9) -> Measurement:
    return measured(
        created,
        throughput__decode_ratio=ratio(value, kernels),
        memory__peak_resident=peak(size, kernels),
        perplexity=QUALITY,
    )


def test_an_update_on_other_kernels_adds_and_replaces_nothing(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    result = run(tmp_path, on(NARROW, 0.9, "2026-01-03", 2e9))
    for kernels, value, size, day in (
        (WIDE, 1.5, 1e9, "2026-01-01"),
        (MIDDLE, 1.2, 1e9, "2026-01-02"),
        (NARROW, 0.9, 2e9, "2026-01-03"),
    ):
        values = result.metrics | result.others
        key = result.key_for(RATIO, ratio(1.0, kernels))
        assert values[key] == ratio(value, kernels)
        assert result.origin(key).created == day
        assert result.origin(key).environment == {"day": day}
        assert values[result.key_for(PEAK, peak(1.0, kernels))] == peak(size, kernels)
    # What does not depend on kernels is the latest update's.
    assert result.origin("perplexity").created == "2026-01-03"
    assert result.metrics.keys() == {RATIO, PEAK, "perplexity"}


def test_a_regression_on_other_kernels_moves_no_anchor(tmp_path: Path) -> None:
    """Its value stands beside the one that it was compared with: nothing can drift from that."""
    old = run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    worse = Verdict(cell=CELL, metric=PEAK, status=Status.REGRESSION, baseline=1e9, tolerance=0.6)
    for kernels, remedy in (
        (MIDDLE, "--accept-regressions accepts it"),
        (WIDE, "--accept-regressions and --re-anchor accept it"),
    ):
        (objection,) = plan_update(on(kernels, 1.5, "2026-01-02", 2e9), old, [worse]).objections
        assert objection.remedy == remedy


@pytest.mark.parametrize("kernels", [WIDE, MIDDLE])
def test_an_update_on_the_same_kernels_replaces_those_alone(tmp_path: Path, kernels: str) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    result = run(tmp_path, on(kernels, 3.0, "2026-01-04"))
    values = result.metrics | result.others
    kept = {WIDE: 1.5, MIDDLE: 1.2} | {kernels: 3.0}
    assert {k: values[result.key_for(RATIO, ratio(1.0, k))].value for k in kept} == kept


def test_an_update_of_other_metrics_leaves_all_kernels_as_they_are(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    before = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    after = run(tmp_path, measured("2026-01-03", perplexity=QUALITY))
    assert (after.metrics, after.others) == (before.metrics, before.others)
    assert after.origin(f"{RATIO} on {MIDDLE}").created == "2026-01-02"


def test_values_of_other_work_go_when_that_work_is_replaced(tmp_path: Path) -> None:
    """Nothing could ever be held against them again."""
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    result = run(tmp_path, measured("2026-01-03", throughput__decode_ratio=ratio(2.0, MIDDLE, prompt=512)))
    assert result.metrics[RATIO] == ratio(2.0, MIDDLE, prompt=512)
    assert set(result.others) == {f"{PEAK} on {MIDDLE}"}


def test_the_file_has_a_line_for_each_value_and_reads_in_a_diff(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    path = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02")).path
    text = path.read_text()
    assert f'\n"{RATIO} on {MIDDLE}" = {{value = 1.2, unit = "x"' in text
    assert text.index("[metrics]") < text.index("[other_kernels]") < text.index("[conditions]")
    assert len(list(path.parent.glob("*.json"))) == 1


def test_a_file_of_the_format_before_is_read(tmp_path: Path) -> None:
    path = run(tmp_path, on(WIDE, 1.5, "2026-01-01")).path
    in_format(path, 2)
    result = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    assert tomllib.loads(path.read_text())["format"] == FORMAT
    assert result.metrics[RATIO].value == 1.5


def test_a_value_on_kernels_of_a_metric_that_is_gone_is_damage(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    path = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02")).path
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(f'"{RATIO}" = {{value')))
    with pytest.raises(InputError, match=r"other_kernels: .* is not a metric of \[metrics\]; restore it"):
        read(tmp_path, CELL, TIER)


def test_of_several_kinds_the_one_with_most_in_common_is_taken(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    result = run(tmp_path, on(NARROW, 0.9, "2026-01-02"))
    near = ratio(1.0, "AVX512 avx2 avx512f amx_int8")
    assert result.key_for(RATIO, near) == RATIO
    assert result.key_for(RATIO, ratio(1.0, "DEFAULT sse4")) == f"{RATIO} on {NARROW}"
    # As far from one as from the other: by name, so that it is the same one each time.
    assert result.key_for(RATIO, ratio(1.0, "x")) == f"{RATIO} on {NARROW}"
