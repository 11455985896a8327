"""Programs that the model writes pass as many of their tests as before. Only where a tier measures `code`, and
QUANTGATE_EXECUTE_CODE=1 allows running them."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("code", each="tasks")
def test_code(quantgate_case: Gate) -> None:
    quantgate_case.check()
