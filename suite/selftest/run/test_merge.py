"""Records of several processes become one."""

from __future__ import annotations

from typing import Any

import pytest
from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError
from quantgate.records import Measurement, Metric
from quantgate.run.merge import merge
from quantgate.run.relative import add_ratios

CELL = Cell(
    model="m", backend="b", scheme="s", bits=4, scheme_options={}, checkpoint="gguf", reference="m/b/full"
)


def rounds(seconds: list[float], better: str = "higher", **changes: Any) -> Metric:
    median = sorted(seconds)[len(seconds) // 2]
    fields = {
        "kind": "rounds", "value": 60 / median if better == "higher" else median, "unit": "u", "better": better,
        "samples": seconds, "processes": [len(seconds)], "conditions": {"threads": 2, "governor": "ondemand", "n": 8},
        "raw": {"tokens": 60, "disturbances": [{"others": seconds[0] / 100}]},
    }  # fmt: skip
    return Metric.model_validate(fields | changes)


def peak(value: float, **changes: Any) -> Metric:
    fields = {"kind": "level", "value": value, "unit": "bytes", "better": "lower", "samples": [value]}
    return Metric.model_validate(fields | {"raw": {"file": [value / 2]}} | changes)


def exact(value: float) -> Metric:
    return Metric(kind="exact", value=value, unit="bytes", better="lower")


def record(requests: list[str], seconds: float = 1.0, **metrics: Metric) -> Measurement:
    named = {name.replace("__", "/"): metric for name, metric in metrics.items()}
    return Measurement(
        cell="m/b/s", tier="smoke", fingerprint="f", created="2026-01-01", seconds=seconds, requests=requests,
        metrics=named, complete=True,
    )  # fmt: skip


PERPLEXITY = Metric(kind="paired", value=2.0, unit="", better="lower", samples=[0.5, 0.9])


def test_rounds_are_in_turns_where_those_of_all_processes_are() -> None:
    parts = [record([], t=rounds([1.0], in_turns=turns)) for turns in (True, True, False)]
    assert [merge(parts[:2]).metrics["t"].in_turns, merge(parts).metrics["t"].in_turns] == [True, False]


def test_samples_of_all_processes_and_the_value_of_the_middle_one() -> None:
    merged = merge(
        [
            record(["perplexity", "t"], 3.0, perplexity=PERPLEXITY, t=rounds([1.0, 2.0, 3.0]), p=peak(50.0)),
            record(["t"], 2.0, t=rounds([6.0]), p=peak(10.0)),
            record(["t"], 1.5, t=rounds([4.0, 4.0, 5.0]), p=peak(20.0)),
        ]
    )
    timing = merged.metrics["t"]
    assert timing.samples == [1.0, 2.0, 3.0, 6.0, 4.0, 4.0, 5.0]
    assert timing.processes == [3, 1, 3]
    assert timing.medians == [2.0, 6.0, 4.0]
    assert timing.value == 15.0
    assert timing.per_process == pytest.approx([30.0, 10.0, 15.0])
    assert timing.raw == {
        "tokens": 60,
        "disturbances": [{"others": 0.01}, {"others": 0.06}, {"others": 0.04}],
    }
    assert (merged.metrics["p"].value, merged.metrics["p"].samples) == (20.0, [50.0, 10.0, 20.0])
    assert merged.metrics["p"].raw == {"file": [25.0, 5.0, 10.0]}
    assert merged.metrics["perplexity"] == PERPLEXITY
    assert merged.requests == ["perplexity", "t"]
    assert merged.seconds == 6.5
    assert merged.complete


def test_a_time_is_the_median_of_medians() -> None:
    assert merge([record([], t=rounds([s], "lower")) for s in (1.0, 5.0, 3.0)]).metrics["t"].value == 3.0


def test_one_process_is_left_as_it_is() -> None:
    only = record(["t"], t=rounds([1.0, 2.0]))
    assert merge([only]) == only


def test_wall_times_are_those_of_all_processes() -> None:
    parts = [
        record(["t"]).model_copy(update={"phases": {"load": 1.0, "t": 2.0}, "forward": {"t": 1.5}}),
        record(["t"]).model_copy(update={"phases": {"load": 0.5}}),
    ]
    merged = merge(parts)
    assert merged.phases == {"load": 1.5, "t": 2.0}
    assert merged.forward == {"t": 1.5}


def test_merging_again_adds_processes() -> None:
    """As a second look does."""
    parts = [record([], t=rounds([s, s]), p=peak(s)) for s in (1.0, 2.0, 3.0, 4.0)]
    assert merge([merge(parts[:2]), merge(parts[2:])]) == merge(parts)


def test_a_metric_that_later_processes_alone_have_is_taken() -> None:
    merged = merge([record(["perplexity"], perplexity=PERPLEXITY), record(["t"], t=rounds([1.0]))])
    assert set(merged.metrics) == {"perplexity", "t"}
    assert merged.requests == ["perplexity", "t"]


@pytest.mark.parametrize(
    ("one", "other"),
    [(exact(3.0), exact(4.0)), (rounds([1.0]), rounds([1.0], conditions={"threads": 4}))],
)
def test_processes_of_equal_work_that_disagree_are_an_error(one: Metric, other: Metric) -> None:
    with pytest.raises(MeasurementError, match="size differs between two processes of equal work"):
        merge([record([], size=one), record([], size=other)])
    assert merge([record([], size=one), record([], size=one)]).metrics["size"].kind == one.kind


def test_ratios_to_the_reference_are_taken_process_by_process() -> None:
    cell = merge([record([], throughput__decode=rounds([s])) for s in (1.0, 2.0, 3.0)])
    reference = merge([record([], throughput__decode=rounds([s])) for s in (2.0, 2.0, 12.0)])
    ratio = add_ratios(cell, reference, CELL).metrics["throughput/decode_ratio"]
    assert ratio.samples == pytest.approx([2.0, 1.0, 4.0])
    assert ratio.value == pytest.approx(1.0)
    assert ratio.conditions == {"n": 8, "reference": "m/b/full"}
    # What disturbed either side disturbed the ratio.
    assert [one["others"] for one in ratio.raw["disturbances"]] == [0.01, 0.02, 0.03, 0.02, 0.02, 0.12]
    single = record([], throughput__decode=rounds([4.0]))
    lone = add_ratios(cell, single, CELL).metrics["throughput/decode_ratio"]
    assert (lone.value, lone.samples) == (2.0, None)


def test_a_doubt_of_either_side_makes_their_ratio_doubtful() -> None:
    sure, unsure = ({"disturbances": [], "doubts": [why]} for why in ("", "the client was slow"))
    for mine, other in ((sure, unsure), (unsure, sure)):
        cell, reference = (record([], throughput__decode=rounds([1.0], raw=raw)) for raw in (mine, other))
        ratio = add_ratios(cell, reference, CELL).metrics["throughput/decode_ratio"]
        assert sorted(ratio.raw["doubts"]) == ["", "the client was slow"]


def test_without_a_reference_there_is_no_ratio() -> None:
    only = record([], throughput__decode=rounds([1.0]))
    assert add_ratios(only, None, CELL) == only
    itself = CELL.model_copy(update={"scheme": "full"})
    assert add_ratios(only, only, itself) == only
