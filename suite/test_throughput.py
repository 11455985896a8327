"""Prefill, decode and first token are not slower than before: relative to the reference cell of the same run
everywhere, absolutely on a named machine (`--machine`). Loading is recorded, and gated in A/B runs alone.
pytest-benchmark shows the recorded rounds."""

from typing import Any

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("throughput/prefill")
def test_prefill(quantgate_case: Gate, benchmark: Any) -> None:
    quantgate_case.report_rounds(benchmark)
    quantgate_case.check()


@pytest.mark.quantgate("throughput/decode")
def test_decode(quantgate_case: Gate, benchmark: Any) -> None:
    quantgate_case.report_rounds(benchmark)
    quantgate_case.check()


@pytest.mark.quantgate("throughput/time_to_first_token")
def test_time_to_first_token(quantgate_case: Gate, benchmark: Any) -> None:
    quantgate_case.report_rounds(benchmark)
    quantgate_case.check()


@pytest.mark.quantgate("throughput/load")
def test_load(quantgate_case: Gate, benchmark: Any) -> None:
    quantgate_case.report_rounds(benchmark)
    quantgate_case.check()
