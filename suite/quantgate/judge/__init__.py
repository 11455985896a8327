"""Measurement against baseline: pure functions without I/O, clock or torch.

`judge` gives the verdict on one metric. What it allows is data (`fixtures/tolerances.toml`).
"""

from quantgate.config.tolerances import Tolerance, Tolerances, load_tolerances
from quantgate.judge.coverage import Coverage, coverage
from quantgate.judge.drift import MOVED, drift
from quantgate.judge.expected import held_to, limits_of, why_refused
from quantgate.judge.judge import first_difference, judge, no_result, recorded, worst
from quantgate.judge.kernels import judge_on_kernels
from quantgate.judge.nested import restless
from quantgate.judge.reproduction import of_choices, reproduction
from quantgate.judge.sensitivity import Sensitivity, gate_level, with_sensitivity

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
