"""Hold findings against what is expected: states of fixtures/papers.toml, values of baselines/papers/<section>.toml."""

from __future__ import annotations

import datetime
import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from quantgate.baselines.toml_file import one_line, parse_toml, write_toml
from quantgate.config.matrix import Cell
from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.paths import FIXTURES
from quantgate.proofs.papers.section import Finding, Measured, SectionModule, State
from quantgate.records import FORMAT, Measurement, Record, Scalar
from quantgate.run.plan import Need

PAPERS = FIXTURES / "papers.toml"
BASELINES = FIXTURES.parent / "baselines"

COMMAND = "python -m quantgate.proofs.papers --update-baselines"

SHARE = 0.5
"""How far a finding may move, as a share of the distance to the ends of its interval. The interval is that of other
texts and items; these are the same in every run, so that only rounding moves a finding."""
ROUNDING = 0.01
"""How far rounding may move a finding, as a share of its value, however narrow its interval is."""
EXACT = 1e-6
"""The same for a finding without an interval."""


CONTENT = {
    "source", "text", "tokens", "n_ctx", "windows", "protocol", "scored tokens", "reference",
    "task", "task version", "items", "data", "prompts", "fewshot",
}  # fmt: skip
"""Conditions of a metric that say what was measured, not how."""


class Accepted(Record):
    """Accepted value of one finding. low, high: its 95 % interval; None: it is exact."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value that a later run may come to."""
        if self.low is None or self.high is None:
            below = above = EXACT * abs(self.value)
        else:
            least = ROUNDING * abs(self.value)
            below, above = (max(SHARE * d, least) for d in (self.value - self.low, self.high - self.value))
        return self.value - below, self.value + above

    def allows(self, finding: Finding) -> bool:
        """Return whether a finding is still within the bounds."""
        low, high = self.bounds
        return low <= finding.value <= high

    @property
    def text(self) -> str:
        low, high = self.bounds
        return f"{self.value:.4g} (may be {low:.4g} to {high:.4g})"


class Baseline(Record):
    """The accepted findings of one section. workload: see `workload_of`."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    accepted: str
    reason: str
    workload: str
    findings: dict[str, Accepted]


class Expected(Record):
    """Expected state of one finding. state: `unknown` until it is first measured. why: tells the reader of the page
    why a finding does not hold or is open."""

    state: Literal[State, "unknown"]
    why: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"state": value} if isinstance(value, str) else value


class Entry(Record):
    """One section. cells: patterns of cell ids of the tier. requests: what is measured of each cell."""

    tier: str
    cells: list[str] = Field(default=["*"])
    requests: list[str] = Field(min_length=1)
    findings: dict[str, Expected]

    def chosen(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells that the section uses, in their order."""
        return [c for c in cells if any(fnmatchcase(c.id, pattern) for pattern in self.cells)]


@dataclass(frozen=True)
class Outcome:
    """A finding and its expected state. moved: how it disagrees with its baseline; empty: it agrees."""

    finding: Finding
    expected: Expected
    moved: str = ""

    @property
    def changes(self) -> list[str]:
        """How the finding differs from what is expected; empty while nothing is expected."""
        if self.expected.state == "unknown":
            return []
        other = self.expected.state != self.finding.state
        state = [f"expected: {self.expected.state} (fixtures/papers.toml)"] if other else []
        return [*state, *filter(None, [self.moved])]

    @property
    def text(self) -> str:
        """The whole outcome, for the case and the terminal."""
        f = self.finding
        lines = [
            f"{f.name}: {', '.join([f.state, *self.changes])}",
            f"the paper: {f.claim}",
            f"measured: {f.measured}, {f.text}",
        ]
        if self.expected.state == "unknown":
            lines.append("nothing is expected yet: write this state into fixtures/papers.toml, and why")
        return "\n  ".join([*lines, *([self.expected.why] if self.expected.why and not self.changes else [])])


def load_entries(path: Path = PAPERS) -> dict[str, Entry]:
    """Return every section by the name of its module, in page order. Raises InputError naming file and key."""
    return {name: validate(Entry, table, path, name) for name, table in read_toml(path).items()}


def module_of(name: str) -> SectionModule:
    """Return the module of a section. Raises InputError where there is none."""
    try:
        return cast(SectionModule, importlib.import_module(f"quantgate.proofs.papers.{name}"))
    except ModuleNotFoundError as error:
        if error.name != f"quantgate.proofs.papers.{name}":
            raise
        raise InputError(f"{PAPERS}: {name}: there is no suite/quantgate/proofs/papers/{name}.py") from None


def outcomes(
    name: str, entry: Entry, findings: Sequence[Finding], workload: str, baseline: Baseline | None
) -> dict[str, Outcome]:
    """Return the outcome of each finding by key. workload: `workload_of` what was measured. Raises InputError where
    fixtures/papers.toml and the module do not have the same findings."""
    by_key = {f.key: f for f in findings}
    if differing := [*(by_key.keys() ^ entry.findings.keys())]:
        key = sorted(differing)[0]
        where = "its module" if key in entry.findings else "fixtures/papers.toml"
        raise InputError(f"{PAPERS}: {name}.findings.{key}: is not in {where}")
    return {
        key: Outcome(f, entry.findings[key], _moved(name, f, workload, baseline)) for key, f in by_key.items()
    }


def _moved(name: str, finding: Finding, workload: str, baseline: Baseline | None) -> str:
    """Return how a finding disagrees with its baseline; empty where it agrees."""
    accepted = baseline.findings.get(finding.key) if baseline else None
    remedy = (
        f"({path_of(name).relative_to(BASELINES.parent)}; {COMMAND} -k '^{name}$' accepts what was measured)"
    )
    if baseline is None or accepted is None:
        return f"has no baseline {remedy}"
    if baseline.workload != workload:
        return f"not comparable: its baseline is of other cells, texts or items {remedy}"
    return "" if accepted.allows(finding) else f"has left its baseline {accepted.text} {remedy}"


# --- baselines


def path_of(section: str, root: Path = BASELINES) -> Path:
    """Return the file of a section's baseline."""
    return root / "papers" / f"{section}.toml"


def load_baseline(section: str, root: Path = BASELINES) -> Baseline | None:
    """Return a section's baseline; None where nothing was accepted yet. Raises InputError naming file, key and
    remedy."""
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
        "findings": {f.key: _accepted(f).model_dump(exclude_none=True) for f in findings},
    }
    write_toml(path, f"{COMMAND} -k '^{section}$' --reason {reason!r}", data, lines=["findings"])
    return path


def workload_of(measured: Measured, requests: Sequence[str]) -> str:
    """Hash which cells were measured on which weights, texts and items; findings compare only where it is equal.

    It covers the section's `requests` without metrics relative to a reference, since the record of a larger run holds
    more. It covers `CONTENT`, not how a metric was computed: the baseline has to show whether that changes a figure.
    """
    return hash_of([[cell.id, _content(cell, record, requests)] for cell, record in measured])[:16]


def _content(cell: Cell, record: Measurement, requests: Sequence[str]) -> list[dict[str, Scalar]]:
    needs = [Need(cell, request) for request in requests]
    conditions = [
        {key: value for key, value in metric.conditions.items() if key in CONTENT}
        for name, metric in record.metrics.items()
        if metric.kind == "paired" and not metric.relative and any(need.covers(name) for need in needs)
    ]
    # Metrics of one text or task share its conditions: each counts once.
    by_hash = {hash_of(one): one for one in conditions if one.keys() - {"source"}}
    return [by_hash[key] for key in sorted(by_hash)]


def _accepted(finding: Finding) -> Accepted:
    if not math.isfinite(finding.low):
        return Accepted(value=finding.value)
    return Accepted(value=finding.value, low=finding.low, high=finding.high)
