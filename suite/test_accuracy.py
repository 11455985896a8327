"""Accuracy on each lm-evaluation-harness task of the tier does not fall by more than its tolerance."""

import pytest

from suite.gate import Gate


@pytest.mark.gate("accuracy", each="tasks")
def test_accuracy(gate: Gate) -> None:
    gate.check()
