"""Programs that the model writes pass as many of their tests as before. Only where a tier measures `code`, and
QUANTGATE_EXECUTE_CODE=1 allows running them."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("code", each="tasks")
def test_code(gate: Gate) -> None:
    gate.check()
