"""A history is read back as it was written; what is damaged is named and costs nothing else."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from quantgate.errors import InputError
from quantgate.history.series import ABSENT, STATUSES, Series, read
from quantgate.history.store import append
from quantgate.records import Status, Verdict

from selftest.history import nights
from selftest.history.nights import Plan
from selftest.history.test_store import INFO


def one(folder: Path, cell: str, metric: str) -> Series:
    (series,) = (s for s in read(folder).series if (s.cell, s.metric) == (cell, metric))
    return series


def test_made_nights_are_what_a_run_writes(tmp_path: Path) -> None:
    path, *_ = nights.write(tmp_path, Plan(nights=1))
    assert len(nights.points(path)) == 18
    assert path.relative_to(tmp_path).parts[:2] == ("2026", "01")
    assert path.name.startswith("20260101T023000Z-0000000-")


def test_values_come_back_to_the_last_digit_and_gaps_are_gaps(tmp_path: Path) -> None:
    def fails(cell: str, metric: str, night: int) -> float:
        return math.nan if (cell, night) == ("m/llamacpp/Q4_0", 3) else 1.0

    paths = nights.write(tmp_path, Plan(nights=6, missing=frozenset({2}), change=fails))
    history = read(tmp_path)
    assert [run.time.day for run in history.runs] == [1, 2, 4, 5, 6]
    assert [run.path for run in history.runs] == paths
    series = one(tmp_path, "m/llamacpp/Q4_0", "throughput/decode_ratio")
    written = [
        p for path in paths for p in nights.points(path) if (p.cell, p.metric) == (series.cell, series.metric)
    ]
    assert [None if math.isnan(v) else v for v in series.value.tolist()] == [p.value for p in written]
    assert (series.kind, series.better, series.unit, series.relative) == ("ratio", "higher", "x", True)
    assert (
        [STATUSES[s] for s in series.status]
        == [p.verdict for p in written]
        == ["pass"] * 2 + ["error"] + ["pass"] * 2
    )
    assert series.environment.tolist()[2] == ABSENT
    assert history.environment_of(series, 0)["torch"] == "2.13.0+cpu"
    assert history.environment_of(series, 2) == {}
    assert np.allclose(series.low[[0, 1, 3, 4]], [p.low for p in written if p.low is not None])


def test_cells_that_come_later_have_no_past(tmp_path: Path) -> None:
    nights.write(tmp_path, Plan(nights=3))
    plan = Plan(nights=5, cells=[*Plan().cells, *nights.cells(40)], missing=frozenset(range(3)), seed=1)
    nights.write(tmp_path, plan)
    series = one(tmp_path, "model-9/transformers/fp32", "perplexity")
    assert np.isnan(series.value).tolist() == [True] * 3 + [False] * 2
    assert len(read(tmp_path).series) == 43 * 6


def test_a_tier_alone_and_the_newest_runs_alone(tmp_path: Path) -> None:
    nights.write(tmp_path, Plan(nights=4))
    nights.write(tmp_path, Plan(nights=4, tier="smoke", seed=1))
    assert {series.tier for series in read(tmp_path).series} == {"smoke", "nightly"}
    history = read(tmp_path, tier="smoke", newest=3)
    assert [run.time.day for run in history.runs] == [2, 3, 4]
    assert {series.tier for series in history.series} == {"smoke"}
    with pytest.raises(InputError, match="has no run of tier 'smok'; its runs are of nightly, smoke"):
        read(tmp_path, tier="smok")
    (tmp_path / "none").mkdir()
    assert read(tmp_path / "none", tier="smok").runs == []


def test_a_run_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    paths = nights.write(tmp_path, Plan(nights=3))
    shutil.copy(paths[1], paths[1].with_name("copy.jsonl"))
    history = read(tmp_path)
    assert [run.time.day for run in history.runs] == [1, 2, 3]
    [problem] = history.problems
    assert (
        problem == f"{tmp_path / '2026/01/copy.jsonl'}: repeats the run of {paths[1].name}; it was left out"
    )
    paths[1].write_text("")
    assert [run.time.day for run in read(tmp_path).runs] == [1, 2, 3], "the other file has it whole"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "was cut"),
        (lambda text: text.replace('"value"', "'value'", 1), "line 2 is not JSON"),
        (
            lambda text: re.sub('^({"cell".*)$', r"\1,\1", text, count=1, flags=re.MULTILINE),
            "line 2 is not JSON",
        ),
        (lambda text: text.replace('"schema":1', '"schema":99'), "schema 99, this quantgate reads 1"),
        (lambda text: text.replace('"tier":', '"tear":'), "line 1, "),
        (lambda text: text.replace('"verdict":"pass"', '"verdict":"fine"', 1), "'fine'"),
        (lambda text: text.replace('"value":', '"value":"x","v":', 1), "'x'"),
        (lambda text: text.replace('"value":', '"value":1e999,"v":', 1), "not finite"),
        (lambda text: text.replace('"value":', f'"value":1{"0" * 400},"v":', 1), "too large"),
        (
            lambda text: text.replace('"metric":"perplexity"', '"metric":7', 1),
            "line 2, metric: 7 is not text",
        ),
        (lambda text: text.replace('"unit":""', '"unit":[]', 1), "line 2, unit: [] is not text"),
        (
            lambda text: text.replace('"cell":"m/llamacpp/Q4_0","metric"', '"cell":"new","meter"'),
            "is not a point",
        ),
        (lambda text: re.sub('("time":"[^"]*)(Z|[+]00:00)"', r'\1"', text), "line 1, time: "),
        (lambda text: "", "line 1 is not JSON"),
    ],
)
@pytest.mark.parametrize("night", [1, 2])
def test_a_damaged_file_is_named_and_the_others_are_read(
    tmp_path: Path, damage: Callable[[str], str], says: str, night: int
) -> None:
    paths = nights.write(tmp_path, Plan(nights=3))
    paths[night].write_text(damage(paths[night].read_text()))
    history = read(tmp_path)
    assert [run.time.day for run in history.runs] == [day for day in (1, 2, 3) if day != night + 1]
    (problem,) = history.problems
    assert problem.startswith(f"{paths[night]}: ")
    assert says in problem
    assert len(history.series) == 18
    assert all(len(series.value) == 2 and not np.isnan(series.value).any() for series in history.series)


@pytest.mark.parametrize(("baseline", "relative"), [(False, False), (True, True)])
def test_a_tolerance_in_the_unit_of_the_metric_is_no_share_of_it(
    tmp_path: Path, baseline: bool, relative: bool
) -> None:
    """A gate without a baseline has no change, and its tolerance is in nats; a comparison states the terms anew."""
    gate = {"cell": "m/b/s", "metric": "agreement/references", "status": Status.PASS, "kind": "exact"}
    value = {"measured": 0.0002, "unit": "nats", "tolerance": 0.002, "change_unit": "absolute"}
    append(tmp_path, [Verdict.model_validate(gate | value)], INFO)
    if baseline:
        value |= {"baseline": 0.0002, "change": 0.0, "change_unit": "relative", "tolerance": 0.01}
        later = {"run": "fedcba9876543210", "created": "2026-11-29T02:30:11+00:00"}
        append(tmp_path, [Verdict.model_validate(gate | value)], INFO.model_copy(update=later))
    (series,) = read(tmp_path).series
    assert series.relative == relative


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; a run with --history"):
        read(tmp_path / "none")


def test_the_header_has_what_a_reader_needs(tmp_path: Path) -> None:
    path, *_ = nights.write(tmp_path, Plan(nights=1))
    header = json.loads(path.read_text().splitlines()[0])
    assert header["schema"] == 1
    assert header["points"] == 18
    assert read(tmp_path).runs[0].machine == header["machine"]
