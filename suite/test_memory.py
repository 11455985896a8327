"""Weights do not take more bytes than before, nor the process more memory while loading, in prefill, in decode."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("memory")
def test_memory(quantgate_case: Gate) -> None:
    quantgate_case.check()
