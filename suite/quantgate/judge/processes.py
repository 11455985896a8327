"""Judging what is nested in processes: timings, memory peaks, ratios. Pure.

The rounds of one process share what differs between processes (where its memory lies, which core it began on,
what the allocator did), so they are far more alike than the next process will be: the unit is the process, and
every error bar here comes from the spread BETWEEN processes (Kalibera and Jones, Rigorous Benchmarking in
Reasonable Time, ISMM 2013, section 3: the variance of the mean is dominated by the highest level).

What is compared is the mean over processes of the logarithm of a process's value (its median round): a ratio of
geometric means, whose interval is symmetric in "twice as fast" and "half as fast". Of two processes whose rounds
alternated it is the median logarithm of the ratios of their rounds, each to the one beside it: what the machine's speed
did between one round and the next few cancels in it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from quantgate.config.tolerances import Tolerance
from quantgate.judge.statistics import POWER, Change, detectable_shift, growth, quantile
from quantgate.records import Disturbance, Metric

SURE = 0.05
"""One-sided level of the limit that has to be within tolerance before a metric passes."""
RESTLESS = 0.2
"""Share of the processor that others had, from which on a timing makes a poor baseline."""
MOST = 1000
"""Processes; where more would be needed, their number is of no use to anybody."""


class Spread(NamedTuple):
    """Estimate of new minus old with its standard error and the degrees of freedom of Student's t; `sd` is the
    standard deviation of what is averaged (differences of pairs, or values of processes), over `n` of them."""

    estimate: float
    se: float
    df: float
    sd: float
    n: int
    paired: bool


def spread(old: Sequence[float], new: Sequence[float], *, paired: bool) -> Spread:
    """Mean of `new` minus mean of `old`, one value per process.

    Pairs (process i of one side ran beside process i of the other): the paired t-test (Student 1908), n - 1
    degrees of freedom. Otherwise Welch's t-test (Biometrika 34, 1947), with Satterthwaite's degrees of freedom:
    the two runs may have been on machines of different restlessness. With a single process on a side there is no
    spread to judge by: the standard error is infinite.
    """
    if paired:
        return _of_pairs([b - a for a, b in zip(old, new, strict=True)])
    (mean_old, v_old), (mean_new, v_new) = _moments(old), _moments(new)
    n = min(len(old), len(new))
    if n < 2:
        return Spread(mean_new - mean_old, math.inf, 1, math.inf, n, False)
    a, b = v_old / len(old), v_new / len(new)
    parts = a**2 / (len(old) - 1) + b**2 / (len(new) - 1)
    df = (a + b) ** 2 / parts if parts else len(old) + len(new) - 2
    return Spread(mean_new - mean_old, math.sqrt(a + b), df, math.sqrt((v_old + v_new) / 2), n, False)


def _of_pairs(differences: Sequence[float]) -> Spread:
    mean, variance = _moments(differences)
    n = len(differences)
    sd = math.sqrt(variance)
    return Spread(mean, sd / math.sqrt(n), n - 1, sd, n, True)


def change(measured: Metric, baseline: Metric, tolerance: Tolerance) -> Change:
    """Signed change in the tolerance's terms."""
    relative, found = _spread(measured, baseline, tolerance)
    return Change(found.estimate, found.se, found.df, growth if relative else None)


def evidence(measured: Metric, baseline: Metric) -> str:
    """What was compared, in words."""
    old, new = baseline.process_count, measured.process_count
    if pairs(measured, baseline):
        return f"{new} pairs of processes{', round by round' if _matched(measured, baseline) else ''}"
    return f"{old} against {new} processes"


def pairs(measured: Metric, baseline: Metric) -> bool:
    """Whether process i of one was measured beside process i of the other."""
    same = measured.beside is not None and measured.beside == baseline.beside
    return same and measured.process_count == baseline.process_count > 1


def _matched(measured: Metric, baseline: Metric) -> bool:
    """Whether, of a pair, round k of one process was timed beside round k of the other."""
    return measured.in_turns and baseline.in_turns and measured.processes == baseline.processes


def log_ratios(measured: Metric, baseline: Metric) -> list[float]:
    """Of pairs, all of whose values are above 0: the logarithm of new by old in each."""
    if not _matched(measured, baseline):
        values = zip(baseline.per_process, measured.per_process, strict=True)
        return [math.log(new) - math.log(old) for old, new in values]
    sign = -1 if measured.better == "higher" else 1  # work by time: the longer, the less
    return [
        sign * statistics.median([math.log(b / a) for a, b in zip(old, new, strict=True)])
        for old, new in zip(baseline.rounds, measured.rounds, strict=True)
    ]


def needed(measured: Metric, baseline: Metric, tolerance: Tolerance, alpha: float) -> int | None:
    """Processes a side (or pairs) that would show a change as large as the tolerance, at level `alpha` with 95 %
    power, if they spread as these do. None: more than `MOST`, or one process alone, whose spread nobody knows.

    Power of the t-test from the noncentral t distribution (Cohen, Statistical Power Analysis, 1988, section 2).
    """
    relative, found = _spread(measured, baseline, tolerance)
    limit = tolerance.limit(unchanged=False)
    size = math.log1p(limit) if relative else limit
    if not math.isfinite(found.sd) or size <= 0:
        return None

    at_best = quantile(math.inf, alpha) + quantile(math.inf, 1 - POWER)

    def enough(n: int) -> bool:
        se = found.sd * math.sqrt((1 if found.paired else 2) / n)
        df = n - 1 if found.paired else 2 * (n - 1)
        # What the normal test cannot show no t-test shows, and that one is quickly asked.
        return at_best * se <= size and detectable_shift(df, alpha) * se <= size

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if low >= MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def why_unsure(measured: Metric, baseline: Metric, tolerance: Tolerance, alpha: float) -> str:
    """Why this sample cannot tell, and what would: `processes differ by 14 %, other work took 31 % of the
    processor; it takes 12 processes a side to show a change as large as the tolerance`."""
    single = [
        side for side, m in (("baseline", baseline), ("measurement", measured)) if len(m.per_process) < 2
    ]
    if single:
        has = "have" if len(single) > 1 else "has"
        return f"the {' and the '.join(single)} {has} one process alone, which says nothing of noise"
    told = [_differ(measured, baseline), *_disturbed(measured)]
    count = needed(measured, baseline, tolerance, alpha)
    unit = "pairs" if pairs(measured, baseline) else "processes a side"
    amount = f"{count} {unit}" if count else f"more than {MOST:,} {unit}"
    return f"{', '.join(told)}; it takes {amount} to show a change as large as the tolerance"


def restless(metrics: Mapping[str, Metric]) -> list[str]:
    """The timings among `metrics` that are poor to hold later runs against, in words: others had much of the
    processor meanwhile."""
    return [
        f"{name} was timed while {' and '.join(_disturbed(metric))}"
        for name, metric in metrics.items()
        if metric.kind in ("rounds", "ratio")
        and any(d.others + d.steal >= RESTLESS for d in _disturbances(metric))
    ]


def _disturbances(metric: Metric) -> list[Disturbance]:
    return [Disturbance.model_validate(one) for one in metric.raw.get("disturbances", [])]


def _spread(measured: Metric, baseline: Metric, tolerance: Tolerance) -> tuple[bool, Spread]:
    """On the log scale for a relative tolerance; as it is for an absolute one, and where logarithms end."""
    old, new = baseline.per_process, measured.per_process
    paired = pairs(measured, baseline)
    relative = tolerance.relative is not None
    if not relative:
        return False, spread(old, new, paired=paired)
    if min(old) > 0 and min(new) > 0:
        if paired:
            return True, _of_pairs(log_ratios(measured, baseline))
        return True, spread(list(map(math.log, old)), list(map(math.log, new)), paired=False)
    # A value of 0 has no logarithm: shares of the baseline's value (of one that is 0, the change as it is).
    base = abs(baseline.value) or 1.0
    return False, spread([v / base for v in old], [v / base for v in new], paired=paired)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and variance; that of a single value is infinite."""
    n = len(values)
    mean = math.fsum(values) / n
    return mean, math.fsum([(v - mean) ** 2 for v in values]) / (n - 1) if n > 1 else math.inf


def _differ(measured: Metric, baseline: Metric) -> str:
    old, new = baseline.per_process, measured.per_process
    if pairs(measured, baseline):
        both = min(*old, *new) > 0
        ratios = list(map(math.exp, log_ratios(measured, baseline))) if both else []
        return f"the ratios of the pairs differ by up to {_range(ratios)}"
    if _above(old) > _above(new):
        return f"the baseline's processes differ by up to {_range(old)}"
    return f"processes differ by up to {_range(new)}"


def _range(values: Sequence[float]) -> str:
    above = 100 * _above(values)
    return f"{above:,.0f} %" if above >= 10 else f"{above:.2g} %"


def _above(values: Sequence[float]) -> float:
    """How far the largest is above the smallest, as a share of that."""
    return max(values) / min(values) - 1 if values and min(values) > 0 else 0.0


def _disturbed(metric: Metric) -> list[str]:
    """What the noise guard saw, where it is worth a word."""
    seen = _disturbances(metric)
    if not seen:
        return []
    others, steal = max(d.others for d in seen), max(d.steal for d in seen)
    clocks = [d.mhz for d in seen if d.mhz]
    throttled = sum(d.throttled or 0 for d in seen)
    pauses = sum(d.pauses for d in seen)
    if pauses:  # with it, a share of the whole machine says nothing of this process
        seconds = sum(d.paused for d in seen)
        return [
            f"the control group's processor quota paused it {pauses:,} times ({seconds:,.1f} s of all threads)"
        ]
    told = []
    if others >= 0.05:
        told.append(f"other work took up to {others:.0%} of the processor".replace("%", " %"))
    if steal >= 0.01:
        told.append(f"the host took up to {steal:.0%} of it (steal)".replace("%", " %"))
    if clocks and max(clocks) > 1.05 * min(clocks):
        told.append(f"the clock ran at {min(clocks):,.0f} to {max(clocks):,.0f} MHz")
    if throttled:
        told.append(f"the processor was throttled {throttled} times")
    return told
