"""A server writes beside others what it writes alone, and no request has to be sent again."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("serving")
def test_serving(quantgate_case: Gate) -> None:
    quantgate_case.check()
