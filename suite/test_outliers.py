"""Outliers among the activations are what they were: what they do to a quantized model does not change unseen."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("outliers", each="texts")
def test_outliers(quantgate_case: Gate) -> None:
    quantgate_case.check()
