"""Values of a metric on several kinds of kernels: their names, and which of them another value is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from quantgate.records import KERNELS, Metric, Scalar

V = TypeVar("V")
_ON = " on "


def kernels_of(metric: Metric, environment: Mapping[str, Scalar]) -> str:
    """Return the kernels that a metric was computed with: its own condition, else those of its environment; empty where
    neither names them."""
    return metric.kernels or str(environment.get(KERNELS) or "")


def same_work(one: Metric, other: Metric) -> bool:
    """Whether two metrics differ in nothing but the kernels that they were measured on."""
    conditions = [{k: v for k, v in m.conditions.items() if k != KERNELS} for m in (one, other)]
    return (one.kind, one.unit_count, conditions[0]) == (other.kind, other.unit_count, conditions[1])


def on_kernels(name: str, kernels: str) -> str:
    """Return the name of a metric on these kernels: `memory/peak_resident on AVX2 avx2`; without kernels, `name`."""
    return f"{name}{_ON}{kernels}" if kernels else name


def name_of(key: str) -> str:
    """Return the metric's name for a name that `on_kernels` made."""
    return key.partition(_ON)[0]


def nearest(kinds: Mapping[str, V], kernels: str) -> V | None:
    """Return the entry whose kernels are `kernels`, else the one that has most features in common with them; None where
    there are no entries. kinds: entries by their kernels."""
    here = set(kernels.split())
    return kinds[min(kinds, key=lambda kind: (len(here ^ set(kind.split())), kind))] if kinds else None
