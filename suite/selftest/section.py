"""A section of the papers page as small as can be, as a plugin of a pytest run: one finding of two cells of the tiny
model. `pytest -p selftest.section` asks for it beside those of fixtures/papers.toml."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from quantgate.proofs.papers import expected
from quantgate.proofs.papers.section import Figure, Finding, Measured, Paper, Table
from quantgate.proofs.papers.statistics import mean_interval

NAME = "small"
PAPER = Paper("somebody", "Quantization costs", 2026, "0000.00000", "Does it?", "A tiny model.")
ENTRY = expected.Entry.model_validate(
    {"tier": "smoke", "requests": ["perplexity"], "findings": {"cost": "holds"}}
)


def findings(measured: Measured) -> list[Finding]:
    """By how much the last cell's negative log-likelihood is above the first one's."""
    first, last = (
        np.array(record.metrics["perplexity"].samples) for _, record in (measured[0], measured[-1])
    )
    value, low, high = mean_interval(last - first)
    assert math.isfinite(value)
    return [Finding("cost", "it costs", "it costs", value, low, high, "nats/token", "holds", "of two cells")]


def figures(measured: Measured) -> list[Figure]:
    return []


def tables(measured: Measured) -> list[Table]:
    return []


def entries() -> dict[str, expected.Entry]:
    """Replace `load_entries`."""
    return {NAME: ENTRY}


def pytest_configure(config: pytest.Config) -> None:
    """Have the plugin of papers, which conftest.py has loaded by now, collect this section."""
    from quantgate.proofs.papers import plugin

    setattr(plugin, "load_entries", entries)  # noqa: B010 - plugin does not export it


sys.modules[f"quantgate.proofs.papers.{NAME}"] = sys.modules[__name__]
