"""Check what backends and metric groups give: each may be a file of somebody else's, and what is missing or of another
type would end in a library's words, or in a number that no case judges."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quantgate.backends.base import Sizes
from quantgate.backends.spec import WITH_LOGITS, BackendSpec, Capability, Loader
from quantgate.errors import MeasurementError
from quantgate.measure.groups import Group, group_name
from quantgate.records import AGREEMENT, IN_PROCESS, Metric, Record, Scalar
from quantgate.words import shortened

if TYPE_CHECKING:
    from quantgate.backends.base import Backend

R = TypeVar("R", bound=Record)

MEMBERS: dict[Capability, tuple[str, ...]] = {
    "scores": ("scores",),
    "tops": ("answer",),
    "logits": ("logits", "reserve", "rounding", "lengths"),
    "steps": ("reserve", "prefill", "decode", "next_logits"),
    "timings": ("settings",),
    "weights": ("weights",),
    "tokenizes": ("tokenize",),
    "generates": ("generate",),
    "serves": ("retries", "generate_at_once", "traffic", "peak_memory", "processor_seconds"),
    "inputs": ("inputs",),
}
"""By capability, the members that a loaded model has to have (`quantgate.backends.base`)."""


def checked(name: str, spec: BackendSpec) -> Loader:
    """Return the loader of a backend, which raises MeasurementError where what it loads lacks a member of the
    capabilities that the backend declares. name: the backend's."""

    def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Backend:
        model: Backend = spec.load(checkpoint, options, threads)
        kind = f"what the backend {name} loads ({type(model).__name__})"
        for member in ("sizes", "facts"):
            if not _has(model, member):
                raise MeasurementError(f"{kind} has no {member}, which every backend has: write it")
        implied = WITH_LOGITS if "logits" in spec.capabilities else frozenset()
        for capability in sorted(spec.capabilities - implied):
            for member in MEMBERS[capability]:
                if not _has(model, member):
                    raise MeasurementError(
                        f"{kind} has no {member}, which belongs to the capability {capability} that BACKEND declares: "
                        "write it, or remove the capability"
                    )
        return model

    return load


def sizes_of(model: Backend) -> Sizes:
    """Return the sizes of a loaded model. Raises MeasurementError where they are something else."""
    sizes = model.sizes()
    if not isinstance(sizes, Sizes):
        raise MeasurementError(
            f"{type(model).__name__}.sizes returned {_kind(sizes)}: return Sizes(vocabulary=...)"
        )
    return sizes


def facts_of(model: Backend) -> dict[str, Scalar]:
    """Return what of a loaded model can change a number. Raises MeasurementError where it is no table of plain values
    with `kernels`."""
    facts = model.facts()
    where = f"{type(model).__name__}.facts"
    if not isinstance(facts, dict) or "kernels" not in facts:
        what = _kind(facts) if not isinstance(facts, dict) else "no kernels"
        raise MeasurementError(
            f'{where} returned {what}: return a dict that has "kernels", what the model runs on'
        )
    for key, value in facts.items():
        if not isinstance(value, str | int | float | None):
            raise MeasurementError(
                f"{where} returned {_kind(value)} as {key!r}: return text, a number, or None"
            )
    return facts


def read_part(workload: Path, model: type[R], name: str) -> R:
    """Read a text or task of a workload. Raises MeasurementError where no metric group has asked for it."""
    try:
        return model.model_validate_json((workload / f"{name}.json").read_bytes())
    except FileNotFoundError:
        kind, _, rest = name.partition("-")
        raise MeasurementError(
            f"{kind} {rest}: is not in the workload, as `needs` of no metric group of the tier names it: add it there"
        ) from None


def check_metrics(name: str, group: Group, metrics: Any) -> dict[str, Metric]:
    """Return what a group has measured. Raises MeasurementError where that is no metrics by full name, or where a name
    is that of another group, so that no case would judge it. name: the group's."""
    where = f"{inspect.getsourcefile(group.measure) or name}: measure"
    example = f'return metrics by full name, {{"{name}": Metric(...)}}'
    if not isinstance(metrics, dict):
        raise MeasurementError(f"{where} returned {_kind(metrics)}: {example}")
    for key, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise MeasurementError(f"{where} returned {_kind(metric)} as {key!r}: {example}")
    others = [key for key in metrics if group_name(key) != name and key not in (AGREEMENT, IN_PROCESS)]
    if others:
        raise MeasurementError(
            f"{where} returned {shortened(others, 3)}: only names that begin with {name} are judged by its case: call "
            f"it {name}/{others[0]}"
        )
    return metrics


def _has(model: object, member: str) -> bool:
    """Return whether there is a member, without asking for it: a property may run the model."""
    return hasattr(type(model), member) or member in getattr(model, "__dict__", {})


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
