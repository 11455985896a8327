"""The verdict on one metric of one cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from quantgate import records
from quantgate.config.tolerances import Tolerance
from quantgate.judge import processes
from quantgate.judge.statistics import (
    Change,
    Interval,
    differences,
    flips,
    growth,
    mcnemar,
    mean_difference,
    root_mean_square,
)
from quantgate.records import Metric, Status, Verdict

MACHINE_CONDITIONS = {"kernels", "threads", "governor"}
"""Conditions that another machine changes without anyone's doing."""
OWN_CODE = "quantgate"
"""How the lines of an environment's change begin that tell of the suite's own code."""
UNUSED_BY_LLAMA_CPP = frozenset(
    (
        "accelerate",
        "bitsandbytes",
        "datasets",
        "gguf",
        "lm_eval",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
    )
)
"""Distributions that do not compute in a process that runs llama.cpp. What they make of texts and checkpoints is in the
conditions."""
UNUSED_BY_OTHERS = frozenset(("datasets", "llama-cpp-python", "llama.cpp", "lm_eval"))

_BLANK = dict(Verdict(cell="", metric="", status=Status.PASS))
"""Every field of a verdict."""


def judge(
    cell: str,
    name: str,
    measured: Metric,
    baseline: Metric | None,
    tolerance: Tolerance,
    alpha: float,
    environment: Sequence[str] = (),
    reproduce: str = "",
) -> Verdict:
    """Hold `measured` against `baseline`.

    `regression`: worse by more than the tolerance, and by more than noise explains at level `alpha`;
    `improvement`: the same for the better; `pass`: the 95 % limit of the change for the worse is within the
    tolerance; `inconclusive`: the sample allows neither. Different conditions: `not comparable`.
    """
    known: dict[str, Any] = {
        **_BLANK,
        "cell": cell,
        "metric": name,
        "measured": measured.value,
        "unit": measured.unit,
        "environment": list(environment),
        "reproduce": reproduce,
    }
    if baseline is None:
        return Verdict(**known | {"status": Status.NO_BASELINE, "text": "no baseline is stored"})
    known["baseline"] = before = baseline.value
    different, by_machine = first_difference(baseline, measured)
    if different:
        return Verdict(
            **known | {"status": Status.NOT_COMPARABLE, "text": different, "by_machine": by_machine}
        )
    if not before:
        tolerance = tolerance.of_zero()
    found, evidence = _change(measured, baseline, tolerance)
    change = found.at(alpha)
    relative = tolerance.relative is not None
    limit = tolerance.limit(unchanged=not loosening(cell, environment))
    beyond = max(limit, tolerance.floor / abs(before) if relative else tolerance.floor)
    lower = measured.better == "lower"
    worse = change.estimate if lower else -change.estimate
    if worse > beyond:
        status = Status.REGRESSION if found.p < alpha else Status.INCONCLUSIVE
    elif worse < -beyond and not measured.relative and found.p < alpha:
        # Not relative to a reference: one that happened to be slow, or got worse, makes all others look better.
        status = Status.IMPROVEMENT
    elif (alpha <= processes.SURE and _worse_end(change, lower) <= beyond) or _worse_end(
        found.at(processes.SURE), lower
    ) <= beyond:
        # The limit at `alpha` is the wider one: where that is within, no other needs computing.
        status = Status.PASS
    else:
        status = Status.INCONCLUSIVE
    if measured.nested and status == Status.INCONCLUSIVE:
        evidence = processes.why_unsure(measured, baseline, tolerance, alpha)
    interval = change.low != change.high and math.isfinite(change.low) and math.isfinite(change.high)
    known["status"] = status
    known["change"] = change.estimate
    known["change_low"] = change.low if interval else None
    known["change_high"] = change.high if interval else None
    known["change_unit"] = "relative" if relative else "absolute"
    known["tolerance"] = beyond
    known["detectable"] = baseline.detectable if loosening(cell, environment) else None
    known["text"] = _text(status, found, worse > beyond, alpha, evidence)
    if not math.isfinite(change.estimate):
        return Verdict(**known)  # refuses it
    return Verdict.trusted(known)


def recorded(cell: str, name: str, measured: Metric, baseline: Metric | None, text: str = "") -> Verdict:
    """For a metric without a gate: shown beside the others, never fails."""
    return Verdict(
        cell=cell,
        metric=name,
        status=Status.PASS,
        measured=measured.value,
        baseline=baseline.value if baseline else None,
        unit=measured.unit,
        text=text or "recorded, not gated",
    )


def no_result(cell: str, name: str, text: str, reproduce: str = "") -> Verdict:
    """`error`: there is no measurement to judge."""
    return Verdict(cell=cell, metric=name, status=Status.ERROR, text=text, reproduce=reproduce)


def worst(verdicts: Iterable[Verdict]) -> Status:
    """The status of a case: the worst of its metrics."""
    return records.worst(v.status for v in verdicts)


def loosening(cell: str, environment: Sequence[str]) -> list[str]:
    """Of what changed in the environment, what may change a number of the cell: no library that its backend does not
    compute with, and not the suite's own code, which is named, but whose other numbers are for a person to accept."""
    backend = cell.split("/")[1]
    unused = UNUSED_BY_LLAMA_CPP if backend == "llamacpp" else UNUSED_BY_OTHERS

    def touches(line: str) -> bool:
        return not line.startswith(OWN_CODE) and line.removeprefix("build of ").split(" ")[0] not in unused

    return list(filter(touches, environment))


def first_difference(baseline: Metric, measured: Metric) -> tuple[str, bool]:
    """Why two metrics may not be compared: the first condition that differs, in words (empty when none does),
    and whether nothing but the machine differs."""
    if baseline.kind != measured.kind:
        return f"the baseline is of kind {baseline.kind}, the measurement of kind {measured.kind}", False
    old, new = baseline.conditions, measured.conditions
    if old != new:
        differing = [k for k in old | new if old.get(k) != new.get(k)]
        for key in sorted(differing, key=lambda k: k in MACHINE_CONDITIONS):
            said = f"{key} differs: {old.get(key)} in the baseline, {new.get(key)} measured"
            return said, key in MACHINE_CONDITIONS
    if measured.kind == "paired":
        before, now = len(baseline.samples or ()), len(measured.samples or ())
        if before != now:
            return f"{before} samples in the baseline, {now} measured", False
    return "", False


def _change(measured: Metric, baseline: Metric, tolerance: Tolerance) -> tuple[Change, str]:
    """The signed change in the tolerance's terms, and the evidence in words."""
    if measured.kind == "paired":
        return _paired_change(measured, baseline, tolerance)
    if measured.nested:
        return processes.change(measured, baseline, tolerance), processes.evidence(measured, baseline)
    plain = measured.value - baseline.value
    if tolerance.relative is not None:
        plain /= abs(baseline.value)
    return Change(plain), ""


def _paired_change(measured: Metric, baseline: Metric, tolerance: Tolerance) -> tuple[Change, str]:
    old, new = baseline.samples or [], measured.samples or []
    evidence, exact = f"paired over {len(new)}", None
    terms: Callable[[float], float] | None = None
    if measured.answers:
        lost, gained = flips(old, new)
        exact = mcnemar(lost, gained)
        evidence = f"{lost} items lost, {gained} gained of {len(new)}, exact McNemar test"
    if tolerance.relative is not None:
        base = abs(baseline.value)
        terms = growth if measured.link == "exp" else lambda x: x / base
    return Change(*mean_difference(old, new, measured.weights, tolerance.noise), terms, exact), evidence


def _worse_end(change: Interval, lower: bool) -> float:
    """The limit of the change for the worse, positive where that is a loss; lower: which is better."""
    return change.high if lower else -change.low


def _text(status: Status, change: Change, beyond: bool, alpha: float, evidence: str) -> str:
    """Why; with p where it was asked for: a change within tolerance may well be certain."""
    if status == Status.PASS:
        if change.estimate == change.se == 0:
            return "equal to the last digit"
        return f"within tolerance ({evidence})" if evidence else "within tolerance"
    tail = f" ({evidence}, p = {change.p:.2g})" if evidence else ""
    match status:
        case Status.REGRESSION:
            return f"worse by more than the tolerance{tail}"
        case Status.IMPROVEMENT:
            return f"better by more than the tolerance{tail}: take it into the baseline"
        case _ if beyond:
            noise = f"this sample cannot tell it from noise{tail}, level {alpha:.2g}"
            return f"worse by more than the tolerance, but {noise}"
        case _:
            return f"no loss seen, but this sample cannot exclude one beyond the tolerance{tail}"


def of_choices(metric: Metric) -> Metric | None:
    """The log-likelihoods of all choices of all items, as a metric of its own; None where `metric` does not keep them.
    A margin knows the best wrong choice only."""
    kept = metric.raw.get("loglikelihoods")
    if kept is None:
        return None
    samples = [value for item in kept for value in item]
    return metric.model_copy(update={"samples": samples, "weights": None, "unit": "nats", "answers": False})


def reproduction(verdict: Verdict, measured: Metric, baseline: Metric, tolerance: Tolerance) -> Verdict:
    """Is it still the same computation on the same weights? The second verdict on a paired metric, beside the
    `verdict` whether it got worse.

    Root mean square over the units of measurement minus baseline, in the unit of the samples (nats): in the baseline's
    own environment against next to nothing (`here`), in any other against what other processors and builds of the same
    libraries cause. Beyond it: `changed`. It sees what a mean cannot (a change that is better on one half of the
    text and worse on the other), and proves no loss.
    """
    old, new = baseline.samples or [], measured.samples or []
    size = root_mean_square(old, new, measured.weights)
    outside = loosening(verdict.cell, verdict.environment)
    limit = tolerance.limit(unchanged=not outside)
    same = size <= limit
    unequal = same and old != new and not verdict.environment
    text = "equal to the last digit" if old == new else f"the same computation, over {len(new)}"
    if unequal:
        text += ", but not equal to the last digit, though nothing has changed: it does not repeat itself"
    if not same:
        moves = differences(old, new)
        largest = max(moves, key=abs)
        if outside:
            cause = "other processors and builds differ less"
        elif verdict.environment:
            cause = (
                "only the suite's own code, or libraries that this cell does not compute with, have changed"
            )
        else:
            cause = "nothing else has changed"
        text = (
            f"the computation or the weights are not the baseline's: {cause} "
            f"(largest: {largest:+.3g}, number {moves.index(largest) + 1} of {len(new)})"
        )
    return verdict.having(
        {
            "metric": f"{verdict.metric}/reproduction",
            "status": Status.PASS if same else Status.CHANGED,
            "measured": size,
            "baseline": 0.0,
            "unit": measured.unit or "nats",  # the samples of a perplexity are nats
            "change": size,
            "change_low": None,
            "change_high": None,
            "change_unit": "absolute",
            "tolerance": limit,
            "detectable": None,
            "unequal": unequal,
            "text": text,
        }
    )
