"""Decoding token by token through the cache gives what one forward pass over the same tokens gives."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("decoding")
def test_decoding(gate: Gate) -> None:
    gate.check()
