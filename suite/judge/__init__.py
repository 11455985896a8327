"""Measurement against baseline: pure functions, no I/O, no clock, no torch.

`judge` gives the verdict on one metric; what it allows is data (`fixtures/tolerances.toml`).
"""

from suite.judge.coverage import Coverage, coverage
from suite.judge.drift import MOVED, drift
from suite.judge.expected import held_to, limits_of, why_refused
from suite.judge.judge import first_difference, judge, no_result, of_choices, recorded, reproduction, worst
from suite.judge.kernels import judge_on_kernels
from suite.judge.processes import restless
from suite.judge.sensitivity import Sensitivity, gate_level, with_sensitivity
from suite.judge.tolerances import Tolerance, Tolerances, load_tolerances

__all__ = [
    "MOVED",
    "Coverage",
    "Sensitivity",
    "Tolerance",
    "Tolerances",
    "coverage",
    "drift",
    "first_difference",
    "gate_level",
    "held_to",
    "judge",
    "judge_on_kernels",
    "limits_of",
    "load_tolerances",
    "no_result",
    "of_choices",
    "recorded",
    "reproduction",
    "restless",
    "why_refused",
    "with_sensitivity",
    "worst",
]
