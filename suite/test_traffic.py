"""A server under traffic is not slower than before, relative to itself with one request at a time and to decoding the
same weights in process; absolutely on a named machine (`--machine`)."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("traffic")
def test_traffic(quantgate_case: Gate) -> None:
    quantgate_case.check()
