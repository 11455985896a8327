"""Decoding token by token through the cache gives what one forward pass over the same tokens gives."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("decoding")
def test_decoding(quantgate_case: Gate) -> None:
    quantgate_case.check()
