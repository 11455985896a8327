"""Accuracy on the lm-evaluation-harness tasks of the tier, each and all together, and the margins by which right
answers lead, do not fall by more than their tolerance."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("accuracy", each="tasks")
def test_accuracy(quantgate_case: Gate) -> None:
    quantgate_case.check()


@pytest.mark.quantgate("accuracy/mean")
def test_mean_accuracy(quantgate_case: Gate) -> None:
    quantgate_case.check()
