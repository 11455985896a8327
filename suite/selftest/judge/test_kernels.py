"""Ratios and peaks are judged on kernels that the baseline lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.baselines.file import write_file
from quantgate.baselines.store import read
from quantgate.config.tolerances import TOLERANCES, Tolerance, load_tolerances
from quantgate.judge.judge import Subject, judge
from quantgate.records import Metric, Status, Verdict

from selftest.judge.kernels import CELL, MIDDLE, NARROW, PEAK, RATIO, WIDE, peak, ratio
from selftest.project import Project


def verdict(new: Metric, old: Metric, name: str, against: bool = False) -> Verdict:
    tolerance = load_tolerances().of(name, CELL)
    assert tolerance is not None
    return judge(Subject(CELL, name, ["kernels a -> b"]), new, old, tolerance, 1e-4, against=against)


def test_a_lost_kernel_is_red_on_kernels_that_the_baseline_lacks() -> None:
    """bitsandbytes/nf4: 1.48 times as fast as fp32, and 0.198 times with neither AVX-512 nor oneDNN's kernels."""
    actual = verdict(ratio(0.198, NARROW), ratio(1.48), RATIO)
    assert actual.status == Status.REGRESSION
    assert f"measured on other kernels than the baseline ({WIDE})" in actual.text


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
    actual = verdict(ratio(1.5, MIDDLE, prompt=512), ratio(1.5), RATIO)
    assert (actual.status, actual.by_machine) == (Status.NOT_COMPARABLE, False)


def test_without_elsewhere_it_is_skipped_and_says_so() -> None:
    actual = judge(
        Subject(CELL, RATIO), ratio(0.1, MIDDLE), ratio(1.5), Tolerance(metric=RATIO, relative=0.6), 1e-4
    )
    assert (actual.status, actual.by_machine) == (Status.NOT_COMPARABLE, True)
    assert "no `elsewhere`" in actual.text


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
    actual = judge(
        Subject(CELL, "throughput/decode"),
        new,
        timing,
        Tolerance(metric="x", relative=0.1, elsewhere=9),
        0.01,
    )
    assert (actual.status, actual.by_machine) == (Status.NOT_COMPARABLE, True)
    subject = Subject(CELL, "throughput/decode", ["kernels"])
    both = judge(subject, new, timing, Tolerance(metric="x", relative=0.1), 0.01, against=True)
    assert both.status == Status.PASS, "what an A/B run compares is the builds"


def test_elsewhere_is_not_narrower_than_the_tolerance_on_the_same_kernels() -> None:
    with pytest.raises(ValueError, match="elsewhere is narrower"):
        Tolerance(metric="memory/peak_*", relative=0.5, elsewhere=0.4)


def test_every_ratio_and_peak_of_the_shipped_tolerances_is_judged_elsewhere() -> None:
    entries = [t for t in load_tolerances().tolerance if "_ratio" in t.metric or "/peak_" in t.metric]
    assert len(entries) > 5
    assert all(t.elsewhere is not None or t.against for t in entries)


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
    selected = ("--reuse", "-m", "memory", "-k", "Q4_K_M")
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
    select = ("--reuse", "-m", "memory", "-k", "Q4_K_M")
    result = baselined.run(*select, "--tolerances", str(no_floor(baselined)))
    assert result.status == 1
    assert result.verdict(Q4, PEAK).status == Status.REGRESSION


def no_floor(project: Project) -> Path:
    """The shipped tolerances, for a model whose peaks are a few bytes."""
    file = project.folder / "tolerances.toml"
    lines = TOLERANCES.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "allocator and thread pools" not in line))
    return file
