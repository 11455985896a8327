"""Perplexity on the tier's text does not rise by more than its tolerance."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("perplexity")
def test_perplexity(quantgate_case: Gate) -> None:
    quantgate_case.check()
