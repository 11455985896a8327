"""The next-token distributions do not move further from the reference's than they were. A reference has no case."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("divergence", references=False)
def test_divergence(gate: Gate) -> None:
    gate.check()
