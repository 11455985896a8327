"""What an update refuses, and what it shows a person."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from quantgate.baselines.store import read
from quantgate.baselines.table import format_update
from quantgate.baselines.update import Update, plan_update
from quantgate.errors import InputError, QuantgateError
from quantgate.judge.environment import changed_environment
from quantgate.paths import IMPORT_ROOT
from quantgate.records import Scalar, Status

from selftest.baselines.accepted import (
    CELL,
    DECODE,
    TIER,
    WEIGHT_BYTES,
    existing,
    measured,
    perplexity,
    tree,
    update,
    verdict,
)


@pytest.mark.parametrize("reason", ["", "  ", "\n\t\x00"])
def test_update_without_a_reason_is_refused(tmp_path: Path, reason: str) -> None:
    with pytest.raises(InputError, match="needs a reason: --reason"):
        update(tmp_path, measured(), reason=reason)
    assert tree(tmp_path) == {}


def test_incomplete_measurement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{CELL} .smoke.: the baseline is not updated:\n.*incomplete"):
        update(tmp_path, measured(complete=False), accept_regressions=True)
    assert tree(tmp_path) == {}


def test_failed_measurement_is_refused(tmp_path: Path) -> None:
    crash = verdict(Status.ERROR, "killed by SIGKILL")
    with pytest.raises(InputError, match="perplexity: killed by SIGKILL"):
        update(tmp_path, measured(), crash, accept_regressions=True)
    assert tree(tmp_path) == {}


def test_regression_needs_to_be_accepted(tmp_path: Path) -> None:
    update(tmp_path, measured())
    before = tree(tmp_path)
    worse = measured(metrics={"perplexity": perplexity(32.0)})
    with pytest.raises(
        InputError, match=r"perplexity: 29 % worse .--accept-regressions and --re-anchor accept it"
    ):
        update(tmp_path, worse, verdict(Status.REGRESSION, "29 % worse"))
    assert tree(tmp_path) == before
    verdicts = [verdict(Status.REGRESSION, "29 % worse")]
    update(tmp_path, worse, *verdicts, accept_regressions=True, re_anchor=True)
    assert existing(tmp_path).metrics["perplexity"].value == 32.0


def test_verdicts_of_other_cells_do_not_count(tmp_path: Path) -> None:
    assert update(tmp_path, measured(), verdict(Status.ERROR, "crash", cell="smollm2-135m/llamacpp/Q2_K"))


def test_raw_value_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    metric = perplexity().model_copy(update={"raw": {"choices": [-math.inf]}})
    with pytest.raises(QuantgateError, match=r"metrics.perplexity.raw has a non-finite number"):
        update(tmp_path, measured(metrics={"perplexity": metric}))
    assert tree(tmp_path) == {}


def shown(plan: Update) -> list[str]:
    from rich.console import Console

    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(format_update(plan))
    return [re.sub(r"\s*[│┃]\s*", " | ", line).strip(" |") for line in capture.get().splitlines()]


def test_table_of_an_update(tmp_path: Path) -> None:
    update(tmp_path, measured())
    metrics = {"perplexity": perplexity(26.04), "memory/bpw": WEIGHT_BYTES, "throughput/decode": DECODE}
    plan = plan_update(measured(metrics=metrics), read(tmp_path, CELL, TIER), [verdict(Status.REGRESSION)])
    assert [(row.metric, row.old, row.new, row.kept) for row in plan.rows] == [
        ("memory/bpw", None, 98_362_432, ""),
        ("memory/weight_bytes", 98_362_432, None, "2026-07-01"),
        ("perplexity", 24.8, 26.04, ""),
    ]
    assert plan.rows[2].difference == pytest.approx(1.24)
    assert plan.rows[2].status is Status.REGRESSION
    lines = shown(plan)
    assert f"{CELL} (smoke)" in lines[0]
    assert "memory/bpw (bytes) | - | 98,362,432 | first" in lines
    assert "memory/weight_bytes (bytes) | 98,362,432 | kept from 2026-07-01" in lines
    assert "perplexity (ppl) | 24.8 | 26.04 | +1.24 (+5.00 %)" in lines


def test_table_warns_of_timings_of_a_busy_machine(tmp_path: Path) -> None:
    busy = {"disturbances": [{"others": 0.6, "steal": 0.0, "load": 3.0}]}
    ratio = DECODE.model_copy(update={"kind": "ratio", "unit": "x", "raw": busy})
    metrics = {"perplexity": perplexity(24.8), "throughput/decode_ratio": ratio}
    text = " ".join(shown(plan_update(measured(metrics=metrics), None, [])))
    assert "throughput/decode_ratio was timed while other work took up to 60 % of the processor" in text
    assert 'update them again on an idle machine: -m "throughput"' in text
    assert not any("idle" in line for line in shown(plan_update(measured(), None, [])))


def test_table_shows_what_is_unchanged(tmp_path: Path) -> None:
    update(tmp_path, measured())
    assert "perplexity (ppl) | 24.8 | 24.8 | none" in shown(plan_update(measured(), existing(tmp_path), []))


def test_changed_environment() -> None:
    old: dict[str, Scalar] = {"torch": "2.12.0", "threads": 2, "gpu": None, "same": 1.5, "blas": "mkl"}
    new: dict[str, Scalar] = {"torch": "2.13.0", "threads": 4, "same": 1.5, "driver": "550"}
    assert changed_environment(old, new) == [
        "blas mkl -> none",
        "driver none -> 550",
        "threads 2 -> 4",
        "torch 2.12.0 -> 2.13.0",
    ]
    assert changed_environment(new, new) == []


def test_import_is_cheap() -> None:
    script = "import sys, quantgate.baselines.update, json; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=IMPORT_ROOT, check=True, capture_output=True
    ).stdout
    assert not {"torch", "numpy", "rich", "filelock", "tomlkit"} & set(json.loads(result))
