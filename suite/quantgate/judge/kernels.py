"""Judging ratios of timings and memory peaks where the baseline has no value on the kernels at hand. Pure.

On another processor, or with another build, a library computes with other kernels, which take other memory and are
faster by another factor. There the tolerance's `elsewhere` counts: wide, and narrow enough to see a lost kernel and a
doubled peak.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import judge
from quantgate.records import Metric, Status, Verdict, same_work


def judge_on_kernels(
    cell: str,
    name: str,
    measured: Metric,
    baseline: Metric | None,
    tolerance: Tolerance,
    alpha: float,
    environment: Sequence[str] = (),
    reproduce: str = "",
    *,
    against: bool = False,
) -> Verdict:
    """As `judge`, where nothing but the kernels may differ. against: in an A/B run they are part of what is compared,
    and judged as anything else."""

    def verdict(before: Metric | None, limits: Tolerance) -> Verdict:
        return judge(cell, name, measured, before, limits, alpha, environment, reproduce)

    if baseline is None or baseline.kernels == measured.kernels or not same_work(baseline, measured):
        return verdict(baseline, tolerance)
    as_here = baseline.model_copy(update={"conditions": measured.conditions})
    if against:
        return verdict(as_here, tolerance)
    if measured.kind not in ("level", "ratio"):
        return verdict(baseline, tolerance)  # an absolute timing of the named machine: not comparable
    if (elsewhere := tolerance.on_other_kernels()) is None:
        skipped = verdict(baseline, tolerance)
        return skipped.having({"text": f"{skipped.text}; its tolerance has no `elsewhere`"})
    found = verdict(as_here, elsewhere)
    # Better than on other kernels is nothing to take into the baseline.
    status = Status.PASS if found.status == Status.IMPROVEMENT else found.status
    reason = "within tolerance" if status != found.status else found.text
    text = f"{reason}; no baseline on these kernels, judged by `elsewhere` against {baseline.kernels}"
    return found.having({"status": status, "text": text})
