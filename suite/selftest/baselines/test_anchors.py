"""Anchors in the files of a baseline: what an update leaves of the value that it replaces, and what a person may not
change."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from quantgate.baselines.baseline import Baseline
from quantgate.baselines.raw import ANCHORS
from quantgate.baselines.store import StoredBaselines, check_machine, read
from quantgate.baselines.update import Update, plan_update, write_update
from quantgate.errors import InputError
from quantgate.records import KERNELS, Measurement, Metric, Status, Verdict

from selftest.baselines.accepted import (
    CELL,
    DECODE,
    TIER,
    TIMED,
    WEIGHT_BYTES,
    existing,
    in_format,
    measured,
    perplexity,
    tree,
    update,
)

AVX2, AVX512 = "AVX2 avx2", "AVX512 avx2 avx512f"


def judged(metric: str = "perplexity", status: Status = Status.PASS, text: str = "") -> Verdict:
    """A verdict of a metric that was held against the baseline by a tolerance."""
    return Verdict(cell=CELL, metric=metric, status=status, text=text, baseline=1.0, tolerance=0.01)


def of(value: float, day: int = 1, kernels: str = "", **changes: object) -> Measurement:
    environment = {"torch": f"2.{day}"} | ({KERNELS: kernels} if kernels else {})
    metrics = {"perplexity": perplexity(value), "memory/weight_bytes": WEIGHT_BYTES}
    fields = {"created": f"2026-07-{day:02}", "environment": environment, "metrics": metrics}
    return measured(**{**fields, **changes})


def planned(root: Path, new: Measurement, *verdicts: Verdict, re_anchor: bool = False) -> Update:
    return plan_update(new, read(root, CELL, TIER), verdicts or [judged()], re_anchor=re_anchor)


def accept(
    root: Path, new: Measurement, *verdicts: Verdict, re_anchor: bool = False, **how: object
) -> Update:
    plan = planned(root, new, *verdicts, re_anchor=re_anchor)
    write_update(root, plan, **{"reason": f"of {new.created}", **how})  # type: ignore[arg-type]
    return plan


def anchors(baseline: Baseline) -> dict[str, tuple[float, str]]:
    return {name: (one.metric.value, one.origin.created) for name, one in baseline.anchors.items()}


def test_a_first_baseline_is_its_own_anchor_and_keeps_nothing(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    assert existing(tmp_path).anchors == {}
    assert len(tree(tmp_path)) == 2
    accept(tmp_path, of(24.8, day=2))
    assert existing(tmp_path).anchors == {}, "equal to the last digit: nothing is lost"


def test_the_anchor_stays_through_updates_with_its_samples_and_its_origin(tmp_path: Path) -> None:
    for day, value in enumerate((24.8, 24.9, 25.0), start=1):
        accept(tmp_path, of(value, day))
    anchor = existing(tmp_path).anchors["perplexity"]
    assert anchor.metric == perplexity(24.8).model_copy(update={"raw": {}})
    assert (anchor.origin.created, anchor.origin.reason) == ("2026-07-01", "of 2026-07-01")
    assert anchor.origin.environment == {"torch": "2.1"}
    assert existing(tmp_path).metrics["perplexity"].value == 25.0
    assert StoredBaselines(tmp_path, TIER).anchored([CELL]) == {CELL: {"perplexity"}}


def test_the_file_of_the_anchors_is_written_once(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    accept(tmp_path, of(24.9, day=2))
    (file,) = existing(tmp_path).path.parent.glob("smoke.*.anchors.json")
    before = file.stat()
    text = existing(tmp_path).path.read_text()
    accept(tmp_path, of(25.0, day=3))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert sorted(tree(tmp_path)) == sorted(
        str(one.relative_to(tmp_path)) for one in [existing(tmp_path).path, file, *raw_files(tmp_path)]
    )
    line = re.compile(r"\[anchors\]\n(.*)\n")
    assert line.findall(text) == line.findall(existing(tmp_path).path.read_text())
    assert b"choices" not in file.read_bytes(), "without what no test of the mean reads"


def raw_files(root: Path) -> list[Path]:
    return [f for f in existing(root).path.parent.glob("smoke.*.json") if "anchors" not in f.name]


def test_a_metric_that_nothing_gates_has_no_anchor(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    recorded = Verdict(cell=CELL, metric="perplexity", status=Status.PASS, baseline=24.8)
    accept(tmp_path, of(24.9, day=2), recorded)
    assert existing(tmp_path).anchors == {}


def test_a_partial_update_leaves_the_anchors_of_the_rest(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    accept(tmp_path, of(24.9, day=2))
    bytes_alone = of(24.9, day=3, metrics={"memory/weight_bytes": WEIGHT_BYTES})
    accept(tmp_path, bytes_alone, judged("memory/weight_bytes"))
    assert anchors(existing(tmp_path)) == {"perplexity": (24.8, "2026-07-01")}


def test_each_kind_of_kernels_has_an_anchor(tmp_path: Path) -> None:
    """On the kernels of the first one, later values are held against that one."""
    for day, (value, kernels) in enumerate([(24.80, AVX512), (24.85, AVX2), (24.9, AVX512), (25.0, AVX2)], 1):
        accept(tmp_path, of(value, day, kernels))
    assert anchors(existing(tmp_path)) == {
        f"perplexity on {AVX512}": (24.80, "2026-07-01"),
        f"perplexity on {AVX2}": (24.85, "2026-07-02"),
    }
    (row,) = [row for row in planned(tmp_path, of(25.1, 5, AVX2)).rows if row.metric == "perplexity"]
    assert (row.anchor, row.since) == (24.85, "2026-07-02")
    assert row.difference == pytest.approx(0.1)
    assert row.from_anchor == pytest.approx(0.25)


def test_another_workload_is_a_new_anchor_and_says_so(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    accept(tmp_path, of(24.9, day=2))
    other = perplexity(30.0).model_copy(update={"conditions": {"tokens": "cd34", "n_ctx": 1024}})
    verdict = Verdict(cell=CELL, metric="perplexity", status=Status.NOT_COMPARABLE)
    plan = accept(tmp_path, of(30.0, day=3, metrics={"perplexity": other}), verdict)
    assert plan.moved == ["anchor of perplexity: new, since the bos differs: baseline True, measured none"]
    assert existing(tmp_path).anchors == {}
    assert not list(existing(tmp_path).path.parent.glob("*.anchors.json"))


def test_only_re_anchoring_moves_the_anchor(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    accept(tmp_path, of(24.9, day=2))
    drift = judged("perplexity/anchor", Status.DRIFT, "since the anchor: worse")
    for flags in ({}, {"accept_regressions": True}):
        with pytest.raises(InputError, match=r"perplexity/anchor: since .* \(--re-anchor accepts it\)"):
            accept(tmp_path, of(25.2, day=3), judged(), drift, **flags)
    plan = accept(tmp_path, of(25.2, day=3), judged(), drift, re_anchor=True)
    assert plan.moved == ["anchor of perplexity: moved from 24.800 ppl of 2026-07-01 (of 2026-07-01)"]
    assert existing(tmp_path).anchors == {}
    accept(tmp_path, of(25.3, day=4))
    assert anchors(existing(tmp_path)) == {"perplexity": (25.2, "2026-07-03")}
    assert existing(tmp_path).anchors["perplexity"].origin.reason == "of 2026-07-03"


def test_a_regression_from_a_baseline_that_is_its_own_anchor_moves_that_too(tmp_path: Path) -> None:
    """Otherwise the next night would be red again."""
    accept(tmp_path, of(24.8))
    worse = judged("perplexity", Status.REGRESSION, "29 % worse")
    for flags, remedy in (
        ({}, "--accept-regressions and --re-anchor accept it"),
        ({"accept_regressions": True}, "--re-anchor accepts it"),
        ({"re_anchor": True}, "--accept-regressions accepts it"),
    ):
        with pytest.raises(InputError, match=rf"29 % worse \({remedy}\)"):
            accept(tmp_path, of(32.0, day=2), worse, **flags)
    accept(tmp_path, of(32.0, day=2), worse, accept_regressions=True, re_anchor=True)
    assert existing(tmp_path).anchors == {}


def test_a_regression_that_leaves_the_sum_within_the_tolerance_needs_no_new_anchor(tmp_path: Path) -> None:
    """After an improvement."""
    accept(tmp_path, of(24.8))
    accept(tmp_path, of(20.0, day=2))
    verdicts = [judged("perplexity", Status.REGRESSION, "20 % worse"), judged("perplexity/anchor")]
    with pytest.raises(InputError, match=r"20 % worse \(--accept-regressions accepts it\)"):
        accept(tmp_path, of(24.0, day=3), *verdicts)
    accept(tmp_path, of(24.0, day=3), *verdicts, accept_regressions=True)
    assert anchors(existing(tmp_path)) == {"perplexity": (24.8, "2026-07-01")}


def test_timings_of_a_machine_have_their_anchors_in_its_file(tmp_path: Path) -> None:
    check_machine(tmp_path, "bench1", {"cpu": "EPYC"}, create=True)
    update(tmp_path, measured(metrics=TIMED), machine="bench1")
    slower = DECODE.model_copy(update={"value": 98.0, "samples": [0.33, 0.325]})
    plan = plan_update(
        measured(metrics=TIMED | {"throughput/decode": slower}, created="2026-07-02"),
        read(tmp_path, CELL, TIER, "bench1"),
        [judged("throughput/decode"), judged()],
        "bench1",
    )
    write_update(tmp_path, plan, reason="slower")
    assert anchors(existing(tmp_path, "bench1")) == {"throughput/decode": (DECODE.value, "2026-07-01")}
    assert existing(tmp_path).anchors == {}


def _without_line(summary: Path) -> None:
    summary.write_text(re.sub(r"\[anchors\]\n.*\n", "[anchors]\n", summary.read_text()))


def _without_anchors(summary: Path) -> None:
    text = re.sub(r"\[anchors\]\n.*\n", "", summary.read_text())
    summary.write_text(re.sub(r"\[raw_anchors\]\n.*\n.*\n", "", text))


def _replaced(old: str, new: str) -> Callable[[Path], None]:
    def edit(summary: Path) -> None:
        before, table, rest = summary.read_text().partition("[anchors]\n")
        assert old in rest
        summary.write_text(before + table + rest.replace(old, new, 1))

    return edit


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "value": (_replaced("value = 24.8", "value = 25.0"), r"anchors\.perplexity: its line \(value = 25\.0\)"),
    "line": (_without_line, r"anchors: 'perplexity', which smoke.*anchors\.json has, is missing"),
    "all": (_without_anchors, r"raw_anchors: the anchors are not those that were written with smoke\."),
    "environment": (_replaced('torch = "2.1"', 'torch = "2.9"'), r"anchors\.perplexity\.earlier: its origin"),
    "day": (_replaced('created = "2026-07-01"', 'created = "2026-07-31"'), r"anchors\.perplexity\.earlier"),
    "origin": (
        _replaced('earlier = "2026', 'earlier = "x2026'),
        r"anchors\.perplexity\.earlier: there is no",
    ),
    "file": (
        lambda summary: next(summary.parent.glob("*.anchors.json")).write_text("{}\n"),
        r"anchors\.json: truncated or changed: .*raw_anchors\.sha256 of smoke\.toml",
    ),
    "missing": (
        lambda summary: next(summary.parent.glob("*.anchors.json")).unlink(),
        r"anchors\.json: cannot be read .*raw_anchors\.file of smoke\.toml",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_anchor_that_was_edited_by_hand_is_refused(tmp_path: Path, name: str) -> None:
    accept(tmp_path, of(24.8))
    accept(tmp_path, of(24.9, day=2))
    edit, complaint = EDITS[name]
    edit(existing(tmp_path).path)
    with pytest.raises(InputError, match=complaint) as caught:
        read(tmp_path, CELL, TIER)
    assert "git checkout" in str(caught.value)


def test_a_baseline_of_the_format_before_is_its_own_anchor(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    path = existing(tmp_path).path
    in_format(path, 3)
    assert existing(tmp_path).anchors == {}
    accept(tmp_path, of(24.9, day=2))
    assert anchors(existing(tmp_path)) == {"perplexity": (24.8, "2026-07-01")}
    assert ANCHORS in raw_files(tmp_path)[0].read_text()


def peak(value: float) -> Metric:
    return Metric(kind="exact", value=value, unit="bytes", better="lower", conditions={"prompt": 256})


def test_a_metric_of_later_begins_with_its_first_value(tmp_path: Path) -> None:
    accept(tmp_path, of(24.8))
    for day, size in ((2, 1e9), (3, 1.1e9)):
        accept(tmp_path, of(24.8, day, metrics={"memory/peak": peak(size)}), judged("memory/peak"))
    assert anchors(existing(tmp_path)) == {"memory/peak": (1e9, "2026-07-02")}
