"""Prefill, decode, first token and load are not slower than before: relative to the reference cell of the same
run everywhere, absolutely on a named machine (`--machine`). pytest-benchmark shows the recorded rounds."""

from typing import Any

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("throughput/prefill")
def test_prefill(gate: Gate, benchmark: Any) -> None:
    gate.report_rounds(benchmark)
    gate.check()


@pytest.mark.gate("throughput/decode")
def test_decode(gate: Gate, benchmark: Any) -> None:
    gate.report_rounds(benchmark)
    gate.check()


@pytest.mark.gate("throughput/time_to_first_token")
def test_time_to_first_token(gate: Gate, benchmark: Any) -> None:
    gate.report_rounds(benchmark)
    gate.check()


@pytest.mark.gate("throughput/load")
def test_load(gate: Gate, benchmark: Any) -> None:
    gate.report_rounds(benchmark)
    gate.check()
