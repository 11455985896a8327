"""Read `report.json` of earlier runs, so that a history can have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pydantic_core
from pydantic import ValidationError

from quantgate.errors import InputError
from quantgate.history.record import to_lines
from quantgate.measure.groups import group_name, metric_groups
from quantgate.records import Kind, Status, Verdict
from quantgate.report import RunInfo
from quantgate.report.files import FORMAT

_BETTER_HIGH = (
    *("accuracy/*", "code/*", "*/recovery", "divergence/same_top", "memory/quantized_share"),
    *("throughput/prefill*", "throughput/decode*"),
)
"""Metrics that are better high: a report that does not say what is better has no others."""
_BETTER_LOW = ("*/brier", "*/brier_norm", "accuracy/*/choices*", "*/reproduction")


def read_report(path: Path) -> tuple[list[Verdict], RunInfo]:
    """Return the verdicts of a run and what its report says of it. path: `report.json`, or the folder that has it.

    A report of a quantgate without history lacks the kinds of metrics, which are looked up, and when the run ended, for
    which the file's time stands. Raises InputError naming the file.
    """
    path = path / "report.json" if path.is_dir() else path
    try:
        raw = pydantic_core.from_json(path.read_bytes())
        time = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a report.json that --report wrote") from None
    except ValueError:
        raise InputError(f"{path}: is not JSON; name a report.json that --report wrote") from None
    if not isinstance(raw, dict) or not {"info", "verdicts"} <= raw.keys():
        raise InputError(f"{path}: is not a report of quantgate; name a report.json that --report wrote")
    if isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise InputError(
            f"{path}: has format {raw['format']}, this quantgate reads {FORMAT}: use a newer one"
        )
    try:
        info = RunInfo.model_validate(raw["info"])
        verdicts = [Verdict.model_validate(verdict) for verdict in raw["verdicts"]]
    except (ValidationError, TypeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: is not a report of quantgate: {first}") from None
    if info.against:
        raise InputError(f"{path}: is of an A/B run, which does not belong in a history: leave it out")
    if not verdicts:
        raise InputError(f"{path}: nothing was judged in its run: leave it out")
    if not info.created:
        info = info.model_copy(update={"created": time})
        verdicts = list(map(_described, verdicts))
    try:
        to_lines(verdicts, info)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return verdicts, info


def _described(verdict: Verdict) -> Verdict:
    if verdict.measured is None or verdict.status == Status.ERROR:
        return verdict
    return verdict.model_copy(update={"kind": kind_of(verdict.metric), "better": better_of(verdict.metric)})


def kind_of(metric: str) -> Kind | None:
    """Return the kind of a metric as its group declares it; None: no group does."""
    if metric.endswith(("_ratio", "/recovery")):
        return "ratio"
    group = metric_groups().get(group_name(metric))
    for template, declared in (group.metrics if group else {}).items():
        if fnmatchcase(metric, re.sub(r"\{\w+\}", "*", template)):
            return declared.kind
    return None


def better_of(metric: str) -> Literal["lower", "higher"]:
    """Return what is better of a metric, by its name."""
    if any(fnmatchcase(metric, pattern) for pattern in _BETTER_LOW):
        return "lower"
    return "higher" if any(fnmatchcase(metric, pattern) for pattern in _BETTER_HIGH) else "lower"
