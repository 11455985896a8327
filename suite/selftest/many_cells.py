"""A pytest plugin: at the end of the collection, leave a record and a baseline of every selected cell, as if all had
been measured and accepted. `pytest -p selftest.many_cells --collect-only`."""

from __future__ import annotations

import math

import pytest
from quantgate.baselines.baseline import Baseline
from quantgate.baselines.file import write_file
from quantgate.baselines.store import baseline_path
from quantgate.files import write_atomic
from quantgate.plugin.wiring import WIRING
from quantgate.records import Measurement, Metric
from quantgate.run.bench import Bench
from quantgate.run.relative import relative_metrics

METRICS = {
    "perplexity": Metric(
        kind="paired",
        value=math.exp(0.5),
        unit="",
        better="lower",
        link="exp",
        samples=[0.5] * 8,
        weights=[31.0] * 8,
    )
}


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    wiring = session.config.stash[WIRING]
    options = wiring.options
    bench = Bench(
        wiring.matrix, wiring.tier, options.tier, wiring.supply, wiring.threads, wiring.results, "earlier"
    )
    for needs in wiring.needs.values():
        cell = needs[0].cell
        record = Measurement(
            cell=cell.id,
            tier=options.tier,
            fingerprint=bench.fingerprint(cell),
            requests=[need.request for need in needs],
            created="2026-01-01",
            environment={"torch": "2"},
            metrics=METRICS,
            complete=True,
        )
        write_atomic(bench.file(cell), record.model_dump_json().encode())
        path = baseline_path(wiring.baselines, cell.id, options.tier)
        relative = {} if cell.id == cell.reference else relative_metrics(METRICS, METRICS, cell.reference)
        accepted = {**dict(record), "metrics": {**METRICS, **relative}}
        write_file(Baseline(**accepted, reason="first", path=path), "pytest")
