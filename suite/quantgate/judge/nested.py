"""Judge metrics that are nested in processes: timings, memory peaks, ratios.

The rounds of one process share what differs between processes (where its memory lies, the core that it began on, what
the allocator did), so they are far more alike than the next process will be. The unit is therefore the process, and
every error bar here comes from the spread between processes (Kalibera and Jones, Rigorous Benchmarking in Reasonable
Time, ISMM 2013, section 3: the variance of the mean is dominated by the highest level).

What is compared is the mean over processes of the logarithm of a process's value (its median round): a ratio of
geometric means, whose interval is symmetric in "twice as fast" and "half as fast". For two processes that took turns it
is the median logarithm of the ratios of neighbouring rounds, in which slow changes of the machine's speed cancel.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from operator import sub
from statistics import fmean, median, variance
from typing import NamedTuple

from quantgate.config.tolerances import Tolerance
from quantgate.judge.statistics import Change, detectable_mean, growth, log_loss
from quantgate.records import Disturbance, Metric
from quantgate.words import listed

PASS_LEVEL = 0.05
"""One-sided level of the limit that has to be within the tolerance for a metric to pass."""
RESTLESS = 0.2
"""Share of the processor taken by other work from which on a timing makes a poor baseline."""
MOST = 1000
"""The largest number of processes that is worth suggesting."""


class Spread(NamedTuple):
    """Estimate of new minus old, its standard error, and the degrees of freedom of Student's t. `sd` is the standard
    deviation of what is averaged (differences of pairs, or values of processes)."""

    estimate: float
    se: float
    df: float
    sd: float


def spread(old: Sequence[float], new: Sequence[float], *, paired: bool) -> Spread:
    """Return mean of `new` minus mean of `old`, one value per process.

    Pairs (process i of one side ran beside process i of the other): the paired t-test (Student 1908) with n - 1
    degrees of freedom. Otherwise Welch's t-test (Biometrika 34, 1947) with Satterthwaite's degrees of freedom, since
    the two runs may have been on machines of different noise. With a single process on a side the spread is unknown
    and the standard error infinite.
    """
    estimate = fmean(new) - fmean(old)
    if paired:
        n, sd = len(old), math.sqrt(variance(map(sub, new, old)))
        return Spread(estimate, sd / math.sqrt(n), n - 1, sd)
    if min(len(old), len(new)) < 2:
        return Spread(estimate, math.inf, 1, math.inf)
    a, b = variance(old) / len(old), variance(new) / len(new)
    parts = a**2 / (len(old) - 1) + b**2 / (len(new) - 1)
    df = (a + b) ** 2 / parts if parts else len(old) + len(new) - 2
    return Spread(estimate, math.sqrt(a + b), df, math.sqrt((variance(old) + variance(new)) / 2))


def change(measured: Metric, baseline: Metric, tolerance: Tolerance) -> Change:
    """Return the signed change in the tolerance's terms."""
    logarithmic, estimate = _spread(measured, baseline, tolerance)
    return Change(estimate.estimate, estimate.se, estimate.df, growth if logarithmic else None)


def evidence(measured: Metric, baseline: Metric) -> str:
    """Return what was compared, as text."""
    old, new = baseline.process_count, measured.process_count
    if pairs(measured, baseline):
        return f"{new} pairs of processes{', round by round' if _alternated(measured, baseline) else ''}"
    return f"{old} against {new} processes"


def pairs(measured: Metric, baseline: Metric) -> bool:
    """Whether process i of one was measured beside process i of the other."""
    same = measured.beside is not None and measured.beside == baseline.beside
    return same and measured.process_count == baseline.process_count > 1


def _alternated(measured: Metric, baseline: Metric) -> bool:
    """Whether round k of one process of a pair was timed beside round k of the other."""
    return measured.in_turns and baseline.in_turns and measured.processes == baseline.processes


def log_ratios(measured: Metric, baseline: Metric) -> list[float]:
    """Return the logarithm of new by old for each pair of processes; all values must be positive."""
    if not _alternated(measured, baseline):
        values = zip(baseline.per_process, measured.per_process, strict=True)
        return [math.log(new) - math.log(old) for old, new in values]
    sign = -1 if measured.better == "higher" else 1  # work per time: the longer it takes, the lower the rate
    return [
        sign * median([math.log(b / a) for a, b in zip(old, new, strict=True)])
        for old, new in zip(baseline.rounds, measured.rounds, strict=True)
    ]


def _spread(measured: Metric, baseline: Metric, tolerance: Tolerance) -> tuple[bool, Spread]:
    """Return whether the scale is logarithmic, and the spread on it: logarithmic for a relative tolerance, linear for
    an absolute one and where a value is zero."""
    old, new = baseline.per_process, measured.per_process
    paired = pairs(measured, baseline)
    if tolerance.relative is None:
        return False, spread(old, new, paired=paired)
    if min(*old, *new) <= 0:
        base = abs(baseline.value) or 1.0
        return False, spread([v / base for v in old], [v / base for v in new], paired=paired)
    if paired:
        ratios = log_ratios(measured, baseline)
        return True, spread([0.0] * len(ratios), ratios, paired=True)
    return True, spread(list(map(math.log, old)), list(map(math.log, new)), paired=False)


def needed(
    measured: Metric, baseline: Metric, tolerance: Tolerance, limit: float, alpha: float
) -> int | None:
    """Return how many processes per side (or pairs) would show a loss of `limit`, in the tolerance's terms, at level
    `alpha` with 95 % power, if they spread as these do. None: more than `MOST`, or the spread is unknown (a single
    process)."""
    logarithmic, estimate = _spread(measured, baseline, tolerance)
    size = log_loss(limit, measured.better) if logarithmic else limit
    sides = 1 if pairs(measured, baseline) else 2
    if not math.isfinite(estimate.sd) or size <= 0:
        return None
    counts = range(2, MOST + 1)

    def enough(n: int) -> bool:
        return detectable_mean(estimate.sd * math.sqrt(sides), n, sides * (n - 1), alpha) <= size

    first = bisect_left(counts, True, key=enough)
    return counts[first] if first < len(counts) else None


def why_inconclusive(
    measured: Metric, baseline: Metric, tolerance: Tolerance, limit: float, alpha: float
) -> str:
    """Return why this sample is inconclusive, and what would help: `processes differ by up to 14 %, other work took up
    to 31 % of the processor; 12 processes per side would show a change as large as the tolerance`.

    limit: the tolerance with its floor."""
    sides = {"baseline": baseline, "measurement": measured}
    single = [side for side, metric in sides.items() if len(metric.per_process) < 2]
    if single:
        has = "have" if len(single) > 1 else "has"
        return f"the {' and the '.join(single)} {has} a single process, which says nothing about noise"
    causes = ", ".join([_differ(measured, baseline), *disturbed(measured)])
    count = needed(measured, baseline, tolerance, limit, alpha)
    unit = "pairs" if pairs(measured, baseline) else "processes per side"
    amount = f"{count} {unit}" if count else f"only more than {MOST:,} {unit}"
    return f"{causes}; {amount} would show a change as large as the tolerance"


def _differ(measured: Metric, baseline: Metric) -> str:
    old, new = baseline.per_process, measured.per_process
    if pairs(measured, baseline):
        ratios = list(map(math.exp, log_ratios(measured, baseline))) if min(*old, *new) > 0 else []
        return f"the ratios of the pairs differ by up to {_range(ratios)}"
    if _largest_over_smallest(old) > _largest_over_smallest(new):
        return f"the baseline's processes differ by up to {_range(old)}"
    return f"processes differ by up to {_range(new)}"


def _largest_over_smallest(values: Sequence[float]) -> float:
    return max(values) / min(values) - 1 if values and min(values) > 0 else 0.0


def _range(values: Sequence[float]) -> str:
    """Return how far the largest value is above the smallest, as a share of the smallest."""
    share = _largest_over_smallest(values)
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def doubts_of(*metrics: Metric | None) -> list[str]:
    """Return why these values may be of something else, as the processes say that measured them."""
    return [doubt for metric in metrics if metric for doubt in metric.raw.get("doubts", ()) if doubt]


def poor_baselines(metrics: Mapping[str, Metric]) -> list[str]:
    """Return a warning for each timing that makes a poor baseline: other work took much of the processor, or it may be
    of something else."""
    busy = [
        f"{name} was timed while {' and '.join(disturbed(metric))}"
        for name, metric in metrics.items()
        if metric.kind in ("rounds", "ratio")
        and any(d.others + d.steal >= RESTLESS for d in _disturbances(metric))
    ]
    doubtful: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        for doubt in doubts_of(metric)[:1]:
            doubtful.setdefault(doubt, []).append(name)
    return busy + [f"{listed(names)}: {doubt}" for doubt, names in doubtful.items()]


def _disturbances(metric: Metric) -> list[Disturbance]:
    return [Disturbance.model_validate(one) for one in metric.raw.get("disturbances", [])]


def disturbed(metric: Metric) -> list[str]:
    """Return what disturbed a timing, as far as it is worth mentioning."""
    disturbances = _disturbances(metric)
    if pauses := sum(d.pauses for d in disturbances):
        # With a quota, shares of the whole machine say nothing about this process.
        seconds = sum(d.paused for d in disturbances)
        paused = f"paused it {pauses:,} times ({seconds:,.1f} s of all threads)"
        return [f"the control group's processor quota {paused}"]
    others = max((d.others for d in disturbances), default=0.0)
    steal = max((d.steal for d in disturbances), default=0.0)
    clocks = [d.mhz for d in disturbances if d.mhz]
    throttled = sum(d.throttled or 0 for d in disturbances)
    causes = []
    if others >= 0.05:
        causes.append(f"other work took up to {others * 100:.0f} % of the processor")
    if steal >= 0.01:
        causes.append(f"the hypervisor took up to {steal * 100:.0f} % of the processor (steal)")
    if clocks and max(clocks) > 1.05 * min(clocks):
        causes.append(f"the clock ran at {min(clocks):,.0f} to {max(clocks):,.0f} MHz")
    if throttled:
        causes.append(f"the processor was throttled {throttled} times")
    return causes
