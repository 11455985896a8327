"""What a run measures again, and what it takes from an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.config.matrix import Cell, Tier
from quantgate.errors import MeasurementError
from quantgate.machine import environment as environment_module
from quantgate.records import Measurement, Metric
from quantgate.run.bench import Bench, remembered
from quantgate.run.runner import Runner


def cell(scheme: str) -> Cell:
    return Cell(
        model="m",
        backend="llamacpp",
        scheme=scheme,
        bits=4,
        scheme_options={},
        checkpoint="gguf",
        reference="m/llamacpp/F16",
    )


REFERENCE, QUANTIZED = cell("F16"), cell("Q4_0")


def timed(of: Cell, beside: str | None = None) -> Measurement:
    decode = Metric(
        kind="rounds",
        value=20.0,
        unit="tokens/s",
        better="higher",
        samples=[0.5, 0.5],
        processes=[1, 1],
        beside=beside,
    )
    return Measurement(
        cell=of.id, tier="smoke", fingerprint="f", run="r", created="now", complete=True,
        requests=["throughput/decode"], metrics={"throughput/decode": decode},
    )  # fmt: skip


class Started(Runner):
    """A runner that notes what it starts, with a record or an error of each cell at hand."""

    def __init__(self, done: dict[str, Any], *, reuse: bool = False) -> None:
        self._done, self._again = done, {}
        self.started: list[str] = []
        self._plan: Any = SimpleNamespace(cells={c.id: c for c in (REFERENCE, QUANTIZED)})
        self._settings: Any = SimpleNamespace(run="another", reuse=reuse)
        self._bench: Any = SimpleNamespace(differs=lambda record, cell, requests: self.different)

    different = ""

    def _start(self, cell: Cell, requests: Sequence[str], name: str = "") -> Measurement:
        self.started.append(cell.id)
        return timed(cell)


def test_a_timing_is_measured_again_beside_its_reference() -> None:
    runner = Started({c.id: timed(c) for c in (REFERENCE, QUANTIZED)})
    together, fresh = runner.again(QUANTIZED, "throughput/decode")
    assert runner.started == [REFERENCE.id, QUANTIZED.id]
    assert together.metrics["throughput/decode"].process_count == 4
    assert "throughput/decode_ratio" in fresh.metrics


def test_a_reference_that_failed_keeps_no_timing_from_a_second_look() -> None:
    runner = Started({REFERENCE.id: MeasurementError("crashed"), QUANTIZED.id: timed(QUANTIZED)})
    together, fresh = runner.again(QUANTIZED, "throughput/decode")
    assert runner.started == [QUANTIZED.id]
    assert list(together.metrics) == list(fresh.metrics) == ["throughput/decode"]


@pytest.mark.parametrize(("beside", "taken"), [(None, True), ("an A/B run", False)])
def test_what_was_timed_in_turns_with_another_process_is_not_reused(
    tmp_path: Path, beside: str | None, taken: bool
) -> None:
    file = tmp_path / "record.json"
    file.write_text(timed(QUANTIZED, beside).model_dump_json())
    found = Started({}, reuse=True)._stored(QUANTIZED, file, ["throughput/decode"])
    assert (found is not None) == taken


def test_work_on_another_machine_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SimpleNamespace(libraries={"build of torch": "b"})
    supply: Any = SimpleNamespace(
        workload_hash=lambda model: "w", calibration=lambda cell: [], environment=environment
    )
    matrix: Any = None
    settings: Any = SimpleNamespace(threads=2)
    here = Bench(matrix, Tier(time_limit=1.0, cells=[], group_options={}), settings, supply)
    own = here.fingerprint(QUANTIZED)
    assert here.fingerprint(QUANTIZED) == own
    monkeypatch.setattr(environment_module, "machine", lambda: {"cpu": "another"})
    assert here.fingerprint(QUANTIZED) != own


def test_what_nobody_foresaw_is_remembered_too() -> None:
    """Each of a cell's cases would measure again."""
    done: dict[str, Any] = {}
    calls: list[int] = []

    def measure() -> Measurement:
        calls.append(1)
        raise ZeroDivisionError("by nothing")

    for _ in range(3):
        with pytest.raises(MeasurementError, match=r"ZeroDivisionError in test_runner\.py:\d+: by nothing"):
            remembered(done, "m/b/s", measure)
    assert len(calls) == 1
