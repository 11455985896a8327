"""Outliers among the activations are what they were: what they do to a quantized model does not change unseen."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("outliers", each="texts")
def test_outliers(gate: Gate) -> None:
    gate.check()
