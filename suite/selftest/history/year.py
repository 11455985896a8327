"""A made year with one event of each state, for the tests of the page."""

from __future__ import annotations

import math
from pathlib import Path

from selftest.history.nights import KINDS, Plan, write

CELLS = (
    "m/transformers/fp32",
    "m/llamacpp/Q8_0",
    "m/llamacpp/Q4_K_M",
    "m/llamacpp/Q4_0",
    "m/bitsandbytes/nf4",
)
STEP, OUTAGE, BACK, MISSING = 100, 60, 80, 30
"""Nights: llama.cpp's 4-bit cells get worse; nf4 needs more memory, and no longer; nf4 was not measured."""


def change(cell: str, metric: str, night: int) -> float:
    """See `selftest.history.nights.Change`."""
    if "llamacpp/Q4" in cell and metric == "perplexity" and night >= STEP:
        return 1.03
    if cell.endswith("nf4") and metric == "memory/peak_resident" and OUTAGE <= night < BACK:
        return 1.2
    if cell.endswith("nf4") and night == MISSING:
        return math.nan
    return 1.0


def make(folder: Path, nights: int = 120) -> Path:
    """Write the history and return its folder."""
    environments = {STEP: {"llama-cpp-python": "0.3.37"}, OUTAGE: {"bitsandbytes": "0.51.0"}}
    missing = frozenset({10, 11})
    write(folder, Plan(nights, CELLS, KINDS, missing=missing, environments=environments, change=change))
    return folder
