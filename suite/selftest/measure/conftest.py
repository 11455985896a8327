"""What the tests of measuring share."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftest.measure.fakes import Here


@pytest.fixture
def here(tmp_path: Path) -> Here:
    """A session of a model of bigrams."""
    return Here(tmp_path)
