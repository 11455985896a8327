"""Compute a cell's metrics relative to its reference in the same run: what the scheme costs, whatever the machine and
the libraries do to both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from quantgate.config.matrix import Cell
from quantgate.measure.groups import agreement_group, group_name, metric_groups
from quantgate.records import AGREEMENT, IN_PROCESS, Declared, Measurement, Metric, Scalar, Scalars

LOSS, RECOVERY = "loss", "recovery"
WORK = ("source", "tokens", "text", "n_ctx", "windows", "protocol", "block", "scored tokens")
"""Conditions of a perplexity that name its tokens, not how they were scored."""

SERVED_SPEED = "traffic/in_process"

WAYS = ("scoring", "attention")
"""Conditions that name how a cell is computed: a cell and its reference may differ in them."""

KIND = ("cpu", "cores", "cpu_quota", "os")
"""Facts of a machine that kernels and timings depend on."""


def another_kind(record: Measurement, reference: Measurement) -> str:
    """Return why a cell is not compared with its reference: machines of different kinds measured them, whose difference
    it would be; empty: it is."""
    for key in KIND:
        here, there = record.environment.get(key), reference.environment.get(key)
        if here != there:
            return f"{reference.cell} was measured on another kind of machine: {key} {there}, {here} here"
    return ""


def relative_metrics(
    metrics: Mapping[str, Metric], reference: Mapping[str, Metric], name: str
) -> dict[str, Metric]:
    """Hold the perplexities and accuracies of a cell against those of its reference, whose id is `name`.

    `<metric>/loss`: a perplexity (link exp) divided by the reference's; paired again, so that the judge compares the
    loss per unit with the baseline's.
    `<group>/<task>/recovery`: accuracy as a share of the reference's; `raw` has the flips (items that the reference
    gets right and the cell wrong, and the other way round). Of `acc` and `acc_norm` it is the latter.

    Absent: what the reference did not measure, or on other units; the recovery of an accuracy of 0, and of a share that
    is better low.
    """
    relative: dict[str, Metric] = {}
    for metric_name, metric in metrics.items():
        other = reference.get(metric_name)
        if other is None:
            continue
        # The conditions that both have. Budgets may differ: they change last digits alone.
        shared = (metric.conditions.keys() & other.conditions.keys()) - {"budget", *WAYS}
        if not _same_units(metric, other, shared):
            continue
        conditions = {**metric.conditions, **_particular(other, metric), "relative to": name}
        if metric.link == "exp":
            relative[f"{metric_name}/{LOSS}"] = _loss(metric, other, conditions)
        elif metric.unit == "fraction" and metric.better == "higher" and other.value:
            task, _, kind = metric_name.rpartition("/")
            relative[f"{task}/{RECOVERY}"] = _recovery(metric, other, {**conditions, "of": kind})
    return relative


def add_ratios(record: Measurement, reference: Measurement | None, cell: Cell) -> Measurement:
    """Add the ratio `<name>_ratio` of each timing: this cell's value divided by its reference's in the same run.

    Where both sides ran in several processes, the samples are the ratios of the first to the first, and so on."""
    if reference is None or cell.reference == cell.id:
        return record
    ratios: dict[str, Metric] = {}
    for name, metric in record.metrics.items():
        other = reference.metrics.get(name)
        if metric.kind != "rounds" or other is None or not has_ratio(name):
            continue
        pairs = [a / b for a, b in zip(metric.per_process, other.per_process, strict=False)]
        value, conditions = metric.value / other.value, {"reference": cell.reference}
        ratios[f"{name}_ratio"] = _ratio(metric, other, value, pairs, conditions, metric.better)
    return record.model_copy(update={"metrics": {**record.metrics, **ratios}})


def _ratio(
    metric: Metric,
    other: Metric,
    value: float,
    pairs: Sequence[float],
    conditions: Mapping[str, Scalar],
    better: Literal["lower", "higher"] = "higher",
) -> Metric:
    """Return the ratio of two timings of one run. pairs: that of each pair of processes. What casts doubt on one of the
    two casts it on their ratio."""
    shared = {key: held for key, held in metric.conditions.items() if key not in ("threads", "governor")}
    return Metric(
        kind="ratio",
        value=value,
        unit="x",
        better=better,
        samples=list(pairs) if len(pairs) > 1 else None,
        conditions={**shared, **conditions},
        raw={
            key: [entry for one in (metric, other) for entry in one.raw.get(key, [])]
            for key in ("disturbances", "doubts")
            if key in metric.raw or key in other.raw
        },
    )


def has_ratio(name: str) -> bool:
    """Return whether a timing is compared with the reference's, as its metric group declares."""
    group = metric_groups().get(group_name(name))
    declared = group.metrics.get(name) if group else None
    return declared is None or declared.ratio


def declared_relatives(name: str, metric: Declared) -> dict[str, Declared]:
    """Return the metrics that a declared one may have relative to the reference (`relative_metrics`, `add_ratios`)."""
    if metric.kind == "rounds":
        return {f"{name}_ratio": Declared("ratio")} if metric.ratio else {}
    if metric.link == "exp":
        agreements = (AGREEMENT, IN_PROCESS) if name == agreement_group() else ()
        return {f"{name}/{LOSS}": Declared("paired", "exp"), **dict.fromkeys(agreements, Declared("exact"))}
    return {f"{name.rpartition('/')[0]}/{RECOVERY}": Declared("ratio")} if metric.share else {}


def agreement(
    metrics: Mapping[str, Metric],
    others: Mapping[str, Mapping[str, Metric]],
    name: str = AGREEMENT,
    otherwise: str = "one of them is not the model that the matrix names",
) -> dict[str, Metric]:
    """`agreement/references`: how far a full-precision cell is from those of the same model in other backends
    (`others`, by cell id) on the same tokens: the mean difference of the negative log-likelihoods, nats per token, of
    the one that is farthest away. With another `name`, the same of other cells; otherwise: what it means where they are
    far apart.

    Absent where there is no perplexity of the same tokens.
    """
    mine = metrics.get(agreement_group())
    differences = []
    for cell, its in others.items():
        other = its.get(agreement_group())
        if mine is not None and other is not None and _same_units(mine, other, WORK):
            pairs = zip(mine.samples or (), other.samples or (), strict=True)
            mean, stderr = _weighted_mean([a - b for a, b in pairs], mine.weights)
            differences.append((abs(mean), mean, stderr, cell, other.value))
    if mine is None or not differences:
        return {}
    _, mean, stderr, cell, value = max(differences)
    says = f"perplexity {mine.value:.5g} here, {value:.5g} in {cell}: {otherwise}"
    metric = Metric(
        kind="exact",
        value=mean,
        unit="nats per token",
        better="lower",
        stderr=stderr,
        conditions={**mine.conditions, "relative to": cell},
        raw={"says": says},
    )
    return {name: metric}


def served_speed(record: Measurement, in_process: Measurement) -> dict[str, Metric]:
    """`traffic/in_process`: tokens/s of a server that answers one request at a time, divided by those of decoding the
    same weights in process. Absent where one of them was not timed."""
    mine = record.metrics.get("traffic/1/per_token")
    other = in_process.metrics.get("throughput/decode")
    if mine is None or other is None:
        return {}
    pairs = [1 / (seconds * rate) for seconds, rate in zip(mine.per_process, other.per_process, strict=False)]
    conditions = {"decoded in process": other.conditions.get("decode"), "reference": in_process.cell}
    return {SERVED_SPEED: _ratio(mine, other, 1 / (mine.value * other.value), pairs, conditions)}


def _same_units(metric: Metric, other: Metric, keys: Iterable[str]) -> bool:
    """Return whether samples belong together one by one: the same count, weights, and conditions of these `keys`."""
    return (
        metric.unit_count == other.unit_count > 1
        and metric.link == other.link
        and metric.weights == other.weights
        and all(metric.conditions.get(key) == other.conditions.get(key) for key in keys)
    )


def _particular(reference: Metric, metric: Metric) -> Scalars:
    """Return the conditions that only the reference has, or in which it differs."""
    return {
        f"reference {key}": value
        for key, value in reference.conditions.items()
        if key not in metric.conditions or (key in WAYS and value != metric.conditions[key])
    }


def _loss(metric: Metric, reference: Metric, conditions: Scalars) -> Metric:
    samples = [a - b for a, b in zip(metric.samples or (), reference.samples or (), strict=True)]
    mean, stderr = _weighted_mean(samples, metric.weights)
    return Metric(
        kind="paired",
        value=math.exp(mean),
        unit="x",
        better="lower",
        stderr=math.exp(mean) * stderr,  # delta method
        link="exp",
        samples=samples,
        weights=metric.weights,
        conditions=conditions,
    )


def _recovery(metric: Metric, reference: Metric, conditions: Scalars) -> Metric:
    pairs = list(zip(reference.samples or (), metric.samples or (), strict=True))
    lost, gained = sum(was > now for was, now in pairs), sum(was < now for was, now in pairs)
    return Metric(
        kind="ratio",
        value=metric.value / reference.value,
        unit="fraction",
        better=metric.better,
        conditions=conditions,
        raw={"lost": lost, "gained": gained, "items": len(pairs)},
    )


def _weighted_mean(samples: Sequence[float], weights: Sequence[float] | None) -> tuple[float, float]:
    """Return the mean with its standard error: a ratio of means (Cochran, Sampling Techniques, 1977, section 2.11)."""
    values, shares = np.array(samples), np.array(weights or [1.0] * len(samples))
    shares = shares / shares.sum()
    mean, n = float(shares @ values), len(values)
    return mean, math.sqrt(n / (n - 1) * float(((shares * (values - mean)) ** 2).sum()))
