"""Perplexity on the tier's text does not rise by more than its tolerance."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("perplexity")
def test_perplexity(gate: Gate) -> None:
    gate.check()
