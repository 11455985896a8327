"""What a run measures again, and what it takes from an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell, Tier
from quantgate.errors import MeasurementError
from quantgate.machine import environment as environment_module
from quantgate.measure.groups import parse_options
from quantgate.records import Measurement, Metric
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.local import LocalCells
from quantgate.run.measurer import once
from quantgate.run.plan import Need, Plan, make_plan
from quantgate.run.stored import StoredRun


def cell(scheme: str) -> Cell:
    return Cell(
        model="m",
        backend="llamacpp",
        scheme=scheme,
        bits=4,
        scheme_options={"ftype": scheme},
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


class FakeBench:
    """Notes which cells are measured; those in `failing` cannot be."""

    tier = Tier(
        time_limit=1.0,
        cells=[],
        group_options=parse_options({"throughput": {"prompt": 8, "decode": 8, "processes": 1}}),
    )

    def __init__(self, folder: Path, failing: Sequence[Cell] = ()) -> None:
        self.folder, self.failing = folder, failing
        self.started: list[str] = []

    def file(self, cell: Cell) -> Path:
        return self.folder / f"{cell.scheme}.json"

    def settle(self, cell: str, metrics: Any) -> None:
        """Leave the options as they are."""

    def missing(self, cell: Cell, requests: Sequence[str]) -> dict[str, str]:
        return {}

    def lacks_reference(self, cell: Cell, requests: Sequence[str]) -> bool:
        return False

    def stands(self, record: Measurement, cell: Cell, requests: Sequence[str]) -> bool:
        return True

    def run(self, cell: Cell, *arguments: Any) -> Measurement:
        self.started.append(cell.id)
        if cell in self.failing:
            raise MeasurementError("crashed")
        return timed(cell)


def stored_run(bench: Any, *, reuse: bool = False) -> StoredRun:
    plan = Plan()
    for one in (REFERENCE, QUANTIZED):
        plan.add(one, "throughput/decode")
    bench.run_id = "r" if reuse else "another"
    baselines = StoredBaselines(bench.folder, "smoke")
    return StoredRun(plan, LocalCells(plan, bench, Progress(StringIO(), 2), baselines, reuse), baselines)


def test_a_timing_is_measured_again_beside_its_reference(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path)
    run = stored_run(bench)
    run.measurement(QUANTIZED)
    bench.started.clear()
    look = run.again(QUANTIZED, "throughput/decode")
    assert bench.started == [REFERENCE.id, QUANTIZED.id]
    assert look.together.new.metrics["throughput/decode"].process_count == 4
    assert "throughput/decode_ratio" in look.fresh.new.metrics


SERVED = QUANTIZED.model_copy(
    update={"backend": "served", "in_process": QUANTIZED.id, "reference": "m/served/F16"}
)
SERVED_REFERENCE = REFERENCE.model_copy(update={"backend": "served", "reference": "m/served/F16"})


class Serves(FakeBench):
    """Measures traffic of a served cell, decoding of any other. cpus: of the machines, by cell."""

    cpus: Mapping[str, str] = {}

    def run(self, cell: Cell, requests: Sequence[str], *arguments: Any) -> Measurement:
        record = super().run(cell)
        self.started[-1] += f" {' '.join(requests)}"
        seconds = {"kind": "rounds", "unit": "s", "better": "lower", "samples": [0.1], "processes": [1]}
        token = Metric.model_validate({**seconds, "value": 0.1})
        metrics = {"traffic/1/per_token": token} if cell.backend == "served" else record.metrics
        environment = {"cpu": self.cpus.get(cell.id, "here")}
        more = {"requests": list(requests), "metrics": metrics, "environment": environment}
        return record.model_copy(update=more)


def served_run(bench: Any) -> StoredRun:
    bench.tier = bench.tier.model_copy(
        update={"group_options": parse_options({"throughput": {"processes": 1}, "traffic": {"processes": 1}})}
    )
    bench.file = lambda cell: bench.folder / f"{cell.backend}-{cell.scheme}.json"
    bench.run_id = "r"
    cells = {one.id: one for one in (SERVED, SERVED_REFERENCE, QUANTIZED)}
    plan = make_plan([Need(SERVED, "traffic")], cells, groups=("traffic", "throughput"))
    plan.add(SERVED_REFERENCE, "traffic")
    baselines = StoredBaselines(bench.folder, "smoke")
    return StoredRun(plan, LocalCells(plan, bench, Progress(StringIO(), 2), baselines), baselines)


def test_a_server_on_another_kind_of_machine_is_not_timed_against_the_same_weights_in_process(
    tmp_path: Path,
) -> None:
    bench = Serves(tmp_path)
    bench.cpus = {QUANTIZED.id: "another"}
    run = served_run(bench)
    assert list(run.compare(SERVED, "traffic").new.metrics) == [
        "traffic/1/per_token",
        "traffic/1/per_token_ratio",
    ]
    look = run.again(SERVED, "traffic")
    assert "traffic/in_process" not in {**look.together.new.metrics, **look.fresh.new.metrics}


def test_without_its_reference_a_server_is_held_against_the_same_weights_in_process(tmp_path: Path) -> None:
    run = served_run(Serves(tmp_path, failing=[SERVED_REFERENCE]))
    metrics = run.compare(SERVED, "traffic").new.metrics
    assert list(metrics) == ["traffic/1/per_token", "traffic/in_process"]


def test_a_server_is_measured_again_beside_the_same_weights_in_process(tmp_path: Path) -> None:
    """Without them its speed relative to theirs could not be judged again, and never be red."""
    bench = Serves(tmp_path, failing=[SERVED_REFERENCE])
    run = served_run(bench)
    assert run.compare(SERVED, "traffic").new.metrics["traffic/in_process"].process_count == 1
    bench.started.clear()
    look = run.again(SERVED, "traffic")
    assert bench.started == [f"{SERVED.id} traffic", f"{QUANTIZED.id} throughput/decode"]
    both, fresh = (one.new.metrics["traffic/in_process"] for one in (look.together, look.fresh))
    assert (both.process_count, fresh.process_count) == (2, 1)
    assert both.value == fresh.value == 0.5


def test_a_reference_that_failed_keeps_no_timing_from_a_second_look(tmp_path: Path) -> None:
    bench = FakeBench(tmp_path, failing=[REFERENCE])
    run = stored_run(bench)
    assert run.compare(QUANTIZED, "throughput/decode").no_reference == "crashed"
    bench.started.clear()
    look = run.again(QUANTIZED, "throughput/decode")
    assert bench.started == [QUANTIZED.id]
    assert list(look.together.new.metrics) == list(look.fresh.new.metrics) == ["throughput/decode"]


@pytest.mark.parametrize(("beside", "started"), [(None, []), ("an A/B run", [REFERENCE.id])])
def test_what_was_timed_in_turns_with_another_process_is_not_reused(
    tmp_path: Path, beside: str | None, started: list[str]
) -> None:
    bench = FakeBench(tmp_path)
    bench.file(REFERENCE).write_text(timed(REFERENCE, beside).model_dump_json())
    stored_run(bench, reuse=True).measurement(REFERENCE)
    assert bench.started == started


@pytest.mark.parametrize(("run_id", "started"), [("r", []), ("a later one", [REFERENCE.id])])
def test_what_a_sister_process_could_not_measure_is_not_tried_again(
    tmp_path: Path, run_id: str, started: list[str]
) -> None:
    """By a later run it is: the text may be there then."""
    bench: Any = FakeBench(tmp_path)
    bench.stands = lambda record, cell, requests: {*requests} <= {*record.requests}
    record = timed(REFERENCE).model_copy(update={"unmeasured": {"throughput/load": "no text"}})
    bench.file(REFERENCE).write_text(record.model_dump_json())
    run = stored_run(bench, reuse=True)
    bench.run_id = run_id
    run.plan.add(REFERENCE, "throughput/load")
    run.measurement(REFERENCE)
    assert bench.started == started


def test_after_an_interruption_nothing_more_is_measured(tmp_path: Path) -> None:
    """The summary asks for what there is; the reference, which was being measured, would begin anew."""

    class Interrupted(FakeBench):
        def run(self, cell: Cell, *arguments: Any) -> Measurement:
            record = super().run(cell, *arguments)
            if cell == REFERENCE:
                raise KeyboardInterrupt
            return record

    bench = Interrupted(tmp_path)
    run = stored_run(bench)
    with pytest.raises(KeyboardInterrupt):
        run.measurement(QUANTIZED)
    assert bench.started == [QUANTIZED.id, REFERENCE.id]
    assert list(run.finished()) == [QUANTIZED.id]
    assert bench.started == [QUANTIZED.id, REFERENCE.id]


def test_work_on_another_machine_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SimpleNamespace(libraries={"build of torch": "b"})
    supply: Any = SimpleNamespace(
        workload_hash=lambda model: "w", identity=lambda cell: [], environment=environment
    )
    matrix: Any = None
    tier = Tier(time_limit=1.0, cells=[], group_options={})
    here = Bench(matrix, tier, "smoke", supply, 2, Path(), "r")
    ours = here.fingerprint(QUANTIZED)
    assert here.fingerprint(QUANTIZED) == ours
    monkeypatch.setattr(environment_module, "machine", lambda: {"cpu": "another", "memory_gb": 4.0})
    assert here.fingerprint(QUANTIZED) != ours


def test_what_nobody_foresaw_is_remembered_too() -> None:
    """Each of a cell's cases would measure again."""
    done: dict[str, Any] = {}
    calls: list[int] = []

    def measure() -> Measurement:
        calls.append(1)
        raise ZeroDivisionError("by nothing")

    for _ in range(3):
        with pytest.raises(MeasurementError, match=r"ZeroDivisionError in test_stored\.py:\d+: by nothing"):
            once(done, "m/b/s", measure)
    assert len(calls) == 1
