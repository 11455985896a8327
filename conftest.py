"""Load the gate's pytest plugin, and that of suite/test_papers.py."""

import pytest
from quantgate.plugin.options import add_plain_spellings

pytest_plugins = ["quantgate.plugin.hooks", "quantgate.proofs.papers.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plain spellings that are free in this checkout."""
    add_plain_spellings(parser)
