"""Outliers among the activations stay what they were: they decide how well a model can be quantized."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("outliers", each="texts")
def test_outliers(quantgate_case: Gate) -> None:
    quantgate_case.check()
