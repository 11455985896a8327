"""Judge ratios of timings and memory peaks where the baseline was measured on other kernels.

On another processor, or with another build, a library uses other kernels, which take other amounts of memory and are
faster by another factor. There the tolerance's `elsewhere` applies: wide, but narrow enough to see a lost kernel and a
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
    """As `judge`, but the kernels may differ. against: in an A/B run the kernels are part of what is compared, so the
    usual tolerance applies."""

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
        return skipped.model_copy(update={"text": f"{skipped.text}; its tolerance has no `elsewhere`"})
    judged = verdict(as_here, elsewhere)
    # A value that is better than on other kernels is no reason to update the baseline.
    better = judged.status == Status.IMPROVEMENT
    text = "within tolerance" if better else judged.text
    text += f"; measured on other kernels than the baseline ({baseline.kernels}), so `elsewhere` applies"
    return judged.model_copy(update={"status": Status.PASS if better else judged.status, "text": text})
