"""The verdict on one metric of one cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from quantgate import records
from quantgate.config.tolerances import Tolerance
from quantgate.judge import nested
from quantgate.judge.statistics import Change, Interval, flips, growth, mcnemar, mean_difference
from quantgate.records import Metric, Scalar, Status, Verdict

MACHINE_CONDITIONS = {"kernels", "threads", "governor"}
"""Conditions that differ on another machine without anybody's doing."""
OWN_CODE = "quantgate"
"""Prefix of the lines about the suite's own code among the changes of an environment."""
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
"""Distributions that do not compute in a process that runs llama.cpp. Their effect on texts and checkpoints is among
the conditions."""
UNUSED_BY_OTHERS = frozenset(("datasets", "llama-cpp-python", "llama.cpp", "lm_eval"))


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
    """Compare `measured` with `baseline`.

    `regression`: worse by more than the tolerance, and by more than noise explains at level `alpha` (one-sided);
    `improvement`: the same for the better; `pass`: the 95 % limit of the change for the worse is within the
    tolerance; `inconclusive`: the sample allows none of these; `not comparable`: the conditions differ.

    environment: what changed in the environment since the baseline; reproduce: the command that repeats the case.
    Raises ValidationError where the change is not a finite number.
    """
    verdict = Verdict(
        cell=cell,
        metric=name,
        status=Status.NO_BASELINE,
        measured=measured.value,
        unit=measured.unit,
        environment=list(environment),
        reproduce=reproduce,
        text="no baseline is stored",
    )
    if baseline is None:
        return verdict
    verdict = _with(verdict, baseline=baseline.value)
    different, by_machine = first_difference(baseline, measured)
    if different:
        return _with(verdict, status=Status.NOT_COMPARABLE, text=different, by_machine=by_machine)
    if not baseline.value:
        tolerance = tolerance.of_zero()
    change, evidence = _change(measured, baseline, tolerance)
    interval = change.at(alpha)
    relative = tolerance.relative is not None
    outside = loosening(cell, environment)
    floor = tolerance.floor / abs(baseline.value) if relative else tolerance.floor
    limit = max(tolerance.limit(unchanged=not outside), floor)
    lower = measured.better == "lower"
    worse = interval.estimate if lower else -interval.estimate
    if worse > limit:
        status = Status.REGRESSION if change.p < alpha else Status.INCONCLUSIVE
    elif worse < -limit and not measured.relative and change.p < alpha:
        # A value relative to the reference never counts as an improvement: a slow reference would make every other
        # cell look faster.
        status = Status.IMPROVEMENT
    elif _worse_end(change.at(nested.PASS_LEVEL), lower) <= limit:
        status = Status.PASS
    else:
        status = Status.INCONCLUSIVE
    if measured.nested and status == Status.INCONCLUSIVE:
        evidence = nested.why_inconclusive(measured, baseline, tolerance, alpha)
    bounded = interval.low != interval.high and math.isfinite(interval.low) and math.isfinite(interval.high)
    return _with(
        verdict,
        status=status,
        change=interval.estimate,
        change_low=interval.low if bounded else None,
        change_high=interval.high if bounded else None,
        change_unit="relative" if relative else "absolute",
        tolerance=limit,
        detectable=baseline.detectable if outside else None,
        text=_text(status, change, worse > limit, alpha, evidence),
    )


def _with(verdict: Verdict, **fields: object) -> Verdict:
    """Replace fields; validated, so that infinity and NaN are refused."""
    return Verdict.model_validate({**dict(verdict), **fields})


def recorded(cell: str, name: str, measured: Metric, baseline: Metric | None, text: str = "") -> Verdict:
    """Return the verdict on a metric without a gate: shown beside the others, never fails."""
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
    """Return `error`: there is no measurement to judge, because of `text`."""
    return Verdict(cell=cell, metric=name, status=Status.ERROR, text=text, reproduce=reproduce)


def worst(verdicts: Iterable[Verdict]) -> Status:
    """Return the status of a case: the worst of its metrics."""
    return records.worst(v.status for v in verdicts)


def loosening(cell: str, environment: Sequence[str]) -> list[str]:
    """Return the changes of the environment that can change a number of the cell.

    Left out are libraries that the cell's backend does not compute with, and the suite's own code: if that changes a
    number, a person has to look at it and accept it.
    """
    unused = UNUSED_BY_LLAMA_CPP if "/llamacpp/" in cell else UNUSED_BY_OTHERS

    def matters(line: str) -> bool:
        return not line.startswith(OWN_CODE) and line.removeprefix("build of ").split(" ")[0] not in unused

    return list(filter(matters, environment))


def first_difference(baseline: Metric, measured: Metric) -> tuple[str, bool]:
    """Return why two metrics may not be compared, as the first condition that differs (empty: they may), and whether
    only the machine differs."""
    if baseline.kind != measured.kind:
        return _differs("kind", baseline.kind, measured.kind), False
    old, new = baseline.conditions, measured.conditions
    differing = [key for key in old | new if old.get(key) != new.get(key)]
    for key in sorted(differing, key=lambda key: key in MACHINE_CONDITIONS):
        return _differs(key, old.get(key), new.get(key)), key in MACHINE_CONDITIONS
    before, now = len(baseline.samples or ()), len(measured.samples or ())
    if measured.kind == "paired" and before != now:
        return _differs("number of samples", before, now), False
    return "", False


def _differs(key: str, old: Scalar, new: Scalar) -> str:
    before, now = ("none" if value is None else value for value in (old, new))
    return f"{key} differs: baseline {before}, measured {now}"


def _change(measured: Metric, baseline: Metric, tolerance: Tolerance) -> tuple[Change, str]:
    """Return the signed change in the tolerance's terms, and the evidence as text."""
    if measured.kind == "paired":
        return _paired_change(measured, baseline, tolerance)
    if measured.nested:
        return nested.change(measured, baseline, tolerance), nested.evidence(measured, baseline)
    difference = measured.value - baseline.value
    if tolerance.relative is not None:
        difference /= abs(baseline.value)
    return Change(difference), ""


def _paired_change(measured: Metric, baseline: Metric, tolerance: Tolerance) -> tuple[Change, str]:
    old, new = baseline.samples or [], measured.samples or []
    evidence, exact = f"{len(new):,} paired samples", None
    terms: Callable[[float], float] | None = None
    if measured.answers:
        lost, gained = flips(old, new)
        exact = mcnemar(lost, gained)
        evidence = f"{lost:,} items lost, {gained:,} gained of {len(new):,}, exact McNemar test"
    if tolerance.relative is not None:
        base = abs(baseline.value)
        terms = growth if measured.link == "exp" else lambda x: x / base
    return Change(*mean_difference(old, new, measured.weights, tolerance.noise), terms, exact), evidence


def _worse_end(change: Interval, lower: bool) -> float:
    """Return the limit of the change for the worse, positive for a loss; lower: whether lower is better."""
    return change.high if lower else -change.low


def _text(status: Status, change: Change, beyond: bool, alpha: float, evidence: str) -> str:
    """Return the cause. A pass has no p: a change within the tolerance may well be significant."""
    if status == Status.PASS:
        if change.estimate == change.se == 0:
            return "equal to the last digit"
        return f"within tolerance ({evidence})" if evidence else "within tolerance"
    tail = f" ({evidence}, p = {change.p:.2g})" if evidence else ""
    match status:
        case Status.REGRESSION:
            return f"worse by more than the tolerance{tail}"
        case Status.IMPROVEMENT:
            return f"better by more than the tolerance{tail}: update the baseline"
        case _ if beyond:
            noise = f"the sample cannot distinguish this from noise{tail}, level {alpha:.2g}"
            return f"worse by more than the tolerance, but {noise}"
        case _:
            return f"no loss beyond the tolerance seen, but the sample cannot rule one out{tail}"
