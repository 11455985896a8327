"""Ratios and peaks on several kinds of kernels: kept beside one another in a baseline, judged on each."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quantgate.baselines.file import Baseline, write_file
from quantgate.baselines.store import read
from quantgate.baselines.table import format_update
from quantgate.baselines.update import plan_update, write_update
from quantgate.config.tolerances import TOLERANCES, Tolerance, load_tolerances
from quantgate.errors import InputError
from quantgate.judge.judge import judge
from quantgate.records import Measurement, Metric, Status, Verdict

if TYPE_CHECKING:
    from selftest.conftest import Project

CELL, TIER = "m/bitsandbytes/nf4", "smoke"
WIDE, MIDDLE, NARROW = "AVX512 avx2 avx512f", "AVX2 avx2 avx512f", "DEFAULT"
RATIO, PEAK = "throughput/decode_ratio", "memory/peak_resident"


def ratio(value: float, kernels: str = WIDE, prompt: int = 256) -> Metric:
    return Metric(
        kind="ratio",
        value=value,
        unit="x",
        better="higher",
        samples=[value * 0.99, value, value * 1.01],
        conditions={"kernels": kernels, "prompt": prompt},
    )


def peak(value: float, kernels: str = WIDE) -> Metric:
    samples = [value * 0.999, value, value * 1.001]
    conditions = {"kernels": kernels}
    return Metric(
        kind="level", value=value, unit="bytes", better="lower", samples=samples, conditions=conditions
    )


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
    found = read(root, CELL, TIER)
    assert found is not None
    return found


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
    found = run(tmp_path, on(NARROW, 0.9, "2026-01-03", 2e9))
    for kernels, value, size, day in (
        (WIDE, 1.5, 1e9, "2026-01-01"),
        (MIDDLE, 1.2, 1e9, "2026-01-02"),
        (NARROW, 0.9, 2e9, "2026-01-03"),
    ):
        values = found.metrics | found.others
        key = found.key_for(RATIO, ratio(1.0, kernels))
        assert values[key] == ratio(value, kernels)
        assert found.origin(key).created == day
        assert found.origin(key).environment == {"day": day}
        assert values[found.key_for(PEAK, peak(1.0, kernels))] == peak(size, kernels)
    # What does not depend on kernels is the latest update's.
    assert found.origin("perplexity").created == "2026-01-03"
    assert found.metrics.keys() == {RATIO, PEAK, "perplexity"}


@pytest.mark.parametrize("kernels", [WIDE, MIDDLE])
def test_an_update_on_the_same_kernels_replaces_those_alone(tmp_path: Path, kernels: str) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    found = run(tmp_path, on(kernels, 3.0, "2026-01-04"))
    values = found.metrics | found.others
    kept = {WIDE: 1.5, MIDDLE: 1.2} | {kernels: 3.0}
    assert {k: values[found.key_for(RATIO, ratio(1.0, k))].value for k in kept} == kept


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
    found = run(tmp_path, measured("2026-01-03", throughput__decode_ratio=ratio(2.0, MIDDLE, prompt=512)))
    assert found.metrics[RATIO] == ratio(2.0, MIDDLE, prompt=512)
    assert set(found.others) == {f"{PEAK} on {MIDDLE}"}


def test_the_file_has_a_line_for_each_value_and_reads_in_a_diff(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    path = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02")).path
    text = path.read_text()
    assert f'\n"{RATIO} on {MIDDLE}" = {{value = 1.2, unit = "x"' in text
    assert text.index("[metrics]") < text.index("[other_kernels]") < text.index("[conditions]")
    assert len(list(path.parent.glob("*.json"))) == 1


def test_a_file_of_the_format_before_is_read(tmp_path: Path) -> None:
    path = run(tmp_path, on(WIDE, 1.5, "2026-01-01")).path
    path.write_text(path.read_text().replace("\nformat = 3\n", "\nformat = 2\n"))
    found = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02"))
    assert tomllib.loads(path.read_text())["format"] == 3
    assert found.metrics[RATIO].value == 1.5


def test_a_value_on_kernels_of_a_metric_that_is_gone_is_damage(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    path = run(tmp_path, on(MIDDLE, 1.2, "2026-01-02")).path
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(f'"{RATIO}" = {{value')))
    with pytest.raises(InputError, match=r"other_kernels: .* is not a metric of \[metrics\]; restore it"):
        read(tmp_path, CELL, TIER)


def test_of_several_kinds_the_one_with_most_in_common_is_taken(tmp_path: Path) -> None:
    run(tmp_path, on(WIDE, 1.5, "2026-01-01"))
    found = run(tmp_path, on(NARROW, 0.9, "2026-01-02"))
    near = ratio(1.0, "AVX512 avx2 avx512f amx_int8")
    assert found.key_for(RATIO, near) == RATIO
    assert found.key_for(RATIO, ratio(1.0, "DEFAULT sse4")) == f"{RATIO} on {NARROW}"
    # As far from one as from the other: by name, so that it is the same one each time.
    assert found.key_for(RATIO, ratio(1.0, "x")) == f"{RATIO} on {NARROW}"


# --- the verdict ------------------------------------------------------------------------------------


def verdict(new: Metric, old: Metric, name: str, against: bool = False) -> Verdict:
    tolerance = load_tolerances().of(name, CELL)
    assert tolerance is not None
    return judge(CELL, name, new, old, tolerance, 1e-4, ["kernels a -> b"], against=against)


def test_a_lost_kernel_is_red_on_kernels_that_the_baseline_lacks() -> None:
    """bitsandbytes/nf4: 1.48 times as fast as fp32, and 0.198 times with neither AVX-512 nor oneDNN's kernels."""
    found = verdict(ratio(0.198, NARROW), ratio(1.48), RATIO)
    assert found.status == Status.REGRESSION
    assert f"measured on other kernels than the baseline ({WIDE})" in found.text


def test_a_doubled_peak_is_red_on_kernels_that_the_baseline_lacks() -> None:
    assert verdict(peak(2e9, NARROW), peak(1e9), PEAK).status == Status.REGRESSION
    assert verdict(peak(1.2e9, NARROW), peak(1e9), PEAK).status == Status.PASS


@pytest.mark.parametrize("value", [0.7, 1.48, 4.0])
def test_other_kernels_are_faster_by_another_factor(value: float) -> None:
    assert verdict(ratio(value, MIDDLE), ratio(1.48), RATIO).status == Status.PASS


def test_a_smaller_peak_on_other_kernels_is_nothing_to_take_into_the_baseline() -> None:
    assert verdict(peak(1e8, MIDDLE), peak(1e9), PEAK).status == Status.PASS
    assert verdict(peak(1e8), peak(1e9), PEAK).status == Status.IMPROVEMENT


def test_on_its_own_kernels_the_narrow_tolerance_holds() -> None:
    assert verdict(ratio(0.5), ratio(1.48), RATIO).status == Status.REGRESSION
    assert verdict(ratio(0.5, MIDDLE), ratio(1.48), RATIO).status == Status.PASS


def test_other_work_stays_not_comparable() -> None:
    found = verdict(ratio(1.5, MIDDLE, prompt=512), ratio(1.5), RATIO)
    assert (found.status, found.by_machine) == (Status.NOT_COMPARABLE, False)


def test_without_elsewhere_it_is_skipped_and_says_so() -> None:
    found = judge(CELL, RATIO, ratio(0.1, MIDDLE), ratio(1.5), Tolerance(metric=RATIO, relative=0.6), 1e-4)
    assert (found.status, found.by_machine) == (Status.NOT_COMPARABLE, True)
    assert "no `elsewhere`" in found.text


def test_an_absolute_timing_on_other_kernels_stays_not_comparable() -> None:
    timing = Metric(
        kind="rounds",
        value=100,
        unit="tokens/s",
        better="higher",
        samples=[0.1, 0.1],
        processes=[1, 1],
        conditions={"kernels": WIDE},
    )
    new = timing.model_copy(update={"conditions": {"kernels": MIDDLE}})
    found = judge(
        CELL, "throughput/decode", new, timing, Tolerance(metric="x", relative=0.1, elsewhere=9), 0.01
    )
    assert (found.status, found.by_machine) == (Status.NOT_COMPARABLE, True)
    both = judge(
        CELL,
        "throughput/decode",
        new,
        timing,
        Tolerance(metric="x", relative=0.1),
        0.01,
        ["kernels"],
        against=True,
    )
    assert both.status == Status.PASS, "what an A/B run compares is the builds"


def test_elsewhere_is_not_narrower_than_the_tolerance_on_the_same_kernels() -> None:
    with pytest.raises(ValueError, match="elsewhere is narrower"):
        Tolerance(metric="memory/peak_*", relative=0.5, elsewhere=0.4)


def test_every_ratio_and_peak_of_the_shipped_tolerances_is_judged_elsewhere() -> None:
    entries = [t for t in load_tolerances().tolerance if "_ratio" in t.metric or "/peak_" in t.metric]
    assert len(entries) > 5
    assert all(t.elsewhere is not None or t.against for t in entries)


# --- whole runs ---------------------------------------------------------------------------------------

Q4 = "tiny/llamacpp/Q4_K_M"


def move(project: Project, factor: float) -> None:
    """As if the baseline's peaks had been taken on other kernels, `factor` times as high."""
    old = read(project.baselines, Q4, "smoke")
    assert old is not None
    metrics = {
        name: m.model_copy(
            update={
                "value": m.value * factor,
                "samples": [s * factor for s in m.samples or []],
                "conditions": m.conditions | {"kernels": "SSE3 ALTIVEC"},
            }
        )
        if m.kind == "level"
        else m
        for name, m in old.metrics.items()
    }
    write_file(old.model_copy(update={"metrics": metrics}), "selftest")


def test_peaks_on_kernels_that_the_baseline_lacks_are_judged_and_then_kept_beside(baselined: Project) -> None:
    move(baselined, 1.0)
    selected = ("-m", "memory", "-k", "Q4_K_M")
    result = baselined.run(*selected)
    assert result.status == 0, result.output
    assert result.cases == {f"memory[{Q4}]": "passed"}
    assert "measured on other kernels than the baseline (SSE3 ALTIVEC)" in result.verdict(Q4, PEAK).text
    before = read(baselined.baselines, Q4, "smoke")
    assert before is not None
    assert baselined.update(*selected).status == 0
    after = read(baselined.baselines, Q4, "smoke")
    assert after is not None
    assert {n: m for n, m in after.metrics.items() if m.kind == "level"} == {
        n: m for n, m in before.metrics.items() if m.kind == "level"
    }
    assert len(after.others) == len([m for m in after.metrics.values() if m.kind == "level"])
    result = baselined.run(*selected)
    assert result.status == 0
    assert "elsewhere" not in result.verdict(Q4, PEAK).text


def test_a_doubled_peak_is_red_there_too(baselined: Project) -> None:
    move(baselined, 0.45)
    result = baselined.run("-m", "memory", "-k", "Q4_K_M", "--tolerances", str(no_floor(baselined)))
    assert result.status == 1
    assert result.verdict(Q4, PEAK).status == Status.REGRESSION


def no_floor(project: Project) -> Path:
    """The shipped tolerances for a model of few bytes."""
    file = project.folder / "tolerances.toml"
    lines = TOLERANCES.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("floor = 32e6")))
    return file
