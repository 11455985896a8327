"""Measurement against baseline: pure functions, no I/O, no clock, no torch.

`judge` gives the verdict on one metric; what it allows is data (`fixtures/tolerances.toml`).
"""

from suite.judge.judge import judge, no_result, recorded, worst
from suite.judge.tolerances import Tolerance, Tolerances, load_tolerances

__all__ = ["Tolerance", "Tolerances", "judge", "load_tolerances", "no_result", "recorded", "worst"]
