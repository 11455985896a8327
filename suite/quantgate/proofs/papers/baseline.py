"""Read and write baselines/papers/<section>.toml: the accepted value and interval of each finding."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from quantgate.baselines.toml_file import one_line, parse_toml, write_toml
from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.paths import FIXTURES
from quantgate.proofs.papers.section import Finding, Measured
from quantgate.records import FORMAT, Measurement, Record, Scalar
from quantgate.run.plan import Need

BASELINES = FIXTURES.parent / "baselines"

COMMAND = "python -m quantgate.proofs.papers --update-baselines"

SHARE = 0.5
"""Of the distance from a finding to the ends of its interval: how far it may move. What makes it uncertain is which
texts and items were taken, and these are the same in every run: what is left is rounding."""
ROUNDING = 0.01
"""Of the value: what rounding may make of a finding, however narrow its interval."""
EXACT = 1e-6
"""The same, of a finding without an interval."""


CONTENT = {
    "source", "text", "tokens", "n_ctx", "windows", "protocol", "scored tokens", "reference",
    "task", "task version", "items", "data", "prompts", "fewshot",
}  # fmt: skip
"""Conditions of a metric that say what was measured, and not how."""


class Known(Record):
    """One finding. low, high: its 95 % interval; None: it is exact."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def allowed(self) -> tuple[float, float]:
        """From where to where it may move."""
        if self.low is None or self.high is None:
            below = above = EXACT * abs(self.value)
        else:
            least = ROUNDING * abs(self.value)
            below, above = (max(SHARE * d, least) for d in (self.value - self.low, self.high - self.value))
        return self.value - below, self.value + above

    def allows(self, finding: Finding) -> bool:
        """Whether a finding is what it was."""
        low, high = self.allowed
        return low <= finding.value <= high

    @property
    def text(self) -> str:
        low, high = self.allowed
        return f"{self.value:.4g} (may be {low:.4g} to {high:.4g})"


class Baseline(Record):
    """Those of one section of the page. workload: see `workload_of`."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    accepted: str
    reason: str
    workload: str
    findings: dict[str, Known]


def path_of(section: str, root: Path = BASELINES) -> Path:
    """Where the baseline of a section is kept."""
    return root / "papers" / f"{section}.toml"


def load(section: str, root: Path = BASELINES) -> Baseline | None:
    """None where nothing was accepted yet. Raises InputError naming file, key and remedy."""
    file = parse_toml(path_of(section, root), Baseline)
    return file[0] if file else None


def accept(
    section: str, findings: Sequence[Finding], workload: str, reason: str, root: Path = BASELINES
) -> Path:
    """Make the findings of a section its baseline; returns its file. Raises InputError without a reason or for a
    finding that is not a number, QuantgateError where the file cannot be written: then it stays as it was."""
    if not (reason := one_line(reason)):
        raise InputError('--update-baselines needs --reason "why the values change"')
    if nothing := [f.key for f in findings if math.isnan(f.value)]:
        raise InputError(
            f"{section}: {nothing[0]} is not a number and cannot be a baseline: find out why, or update the other "
            "sections alone (-k)"
        )
    path = path_of(section, root)
    data = {
        "format": FORMAT,
        "accepted": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "reason": reason,
        "workload": workload,
        "findings": {f.key: _known(f).model_dump(exclude_none=True) for f in findings},
    }
    write_toml(path, f"{COMMAND} -k '^{section}$' --reason {reason!r}", data, lines=["findings"])
    return path


def workload_of(measured: Measured, requests: Sequence[str]) -> str:
    """A hash of which cells were measured on which weights, texts and items: what two findings have to have in common
    before they may be compared.

    Of the section's `requests` alone, without what is relative to a reference: a record may hold more, by the cases
    that were selected with it. And of `CONTENT` alone, not of how it was computed: whether another way of computing
    comes to the same figures is what the baseline is there to tell.
    """
    return hash_of([[cell.id, _content(cell, record, requests)] for cell, record in measured])[:16]


def _content(cell: Cell, record: Measurement, requests: Sequence[str]) -> list[dict[str, Scalar]]:
    needs = [Need(cell, request) for request in requests]
    conditions = [
        {key: value for key, value in metric.conditions.items() if key in CONTENT}
        for name, metric in record.metrics.items()
        if metric.kind == "paired" and not metric.relative and any(need.covers(name) for need in needs)
    ]
    # Each once: metrics of one text or task have it in common.
    by_hash = {hash_of(one): one for one in conditions if one.keys() - {"source"}}
    return [by_hash[key] for key in sorted(by_hash)]


def _known(finding: Finding) -> Known:
    if not math.isfinite(finding.low):
        return Known(value=finding.value)
    return Known(value=finding.value, low=finding.low, high=finding.high)
