"""Is it still the same computation on the same weights? The second verdict on a paired metric."""

from __future__ import annotations

from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import loosening
from quantgate.judge.statistics import differences, root_mean_square
from quantgate.records import Metric, Status, Verdict


def of_choices(metric: Metric) -> Metric | None:
    """Return the log-likelihoods of all choices of all items as a metric; None where `metric` does not keep them.

    A margin depends on the best wrong choice only; this one on all of them.
    """
    kept = metric.raw.get("loglikelihoods")
    if kept is None:
        return None
    samples = [value for item in kept for value in item]
    return metric.model_copy(update={"samples": samples, "weights": None, "unit": "nats", "answers": False})


def reproduction(verdict: Verdict, measured: Metric, baseline: Metric, tolerance: Tolerance) -> Verdict:
    """Return the verdict on whether the units of a paired metric are still the baseline's, beside `verdict`, which
    says whether their mean got worse.

    Compared is the root mean square over the units of measurement minus baseline, in the unit of the samples (nats).
    The limit is `here`, next to nothing, in the baseline's own environment, and elsewhere what other processors and
    builds of the same libraries cause. Beyond it the status is `changed`. This sees what a mean cannot, such as a
    change that is better on one half of the text and worse on the other; it does not prove a loss.
    """
    old, new = baseline.samples or [], measured.samples or []
    size = root_mean_square(old, new, measured.weights)
    outside = loosening(verdict.cell, verdict.environment)
    limit = tolerance.limit(unchanged=not outside)
    same = size <= limit
    unequal = same and old != new and not verdict.environment
    if not same:
        text = f"the computation or the weights differ from the baseline's: {_cause(verdict, outside)} "
        text += f"({_largest(old, new)})"
    elif old == new:
        text = "equal to the last digit"
    else:
        text = f"the same computation ({len(new):,} paired samples)"
        text += ", but not equal to the last digit although the environment is unchanged" if unequal else ""
    return Verdict(
        cell=verdict.cell,
        metric=f"{verdict.metric}/reproduction",
        status=Status.PASS if same else Status.CHANGED,
        measured=size,
        baseline=0.0,
        unit=measured.unit or "nats",  # the samples of a perplexity are nats
        change=size,
        change_unit="absolute",
        tolerance=limit,
        unequal=unequal,
        by_machine=verdict.by_machine,
        text=text,
        environment=verdict.environment,
        reproduce=verdict.reproduce,
    )


def _cause(verdict: Verdict, outside: list[str]) -> str:
    if outside:
        return "by more than other processors and builds cause"
    if verdict.environment:
        return "only quantgate's own code, or libraries that this cell does not use, have changed"
    return "the environment is unchanged"


def _largest(old: list[float], new: list[float]) -> str:
    moves = differences(old, new)
    largest = max(moves, key=abs)
    return f"largest difference {largest:+.3g}, sample {moves.index(largest) + 1:,} of {len(new):,}"
