"""baselines/papers.toml: what each finding came to when it was accepted, with the interval that it had then."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from suite.errors import InputError
from suite.matrix import FIXTURES
from suite.papers.section import Finding
from suite.records import Record
from suite.storage import one_line, write_toml
from suite.toml_input import read_toml, validate

BASELINE = FIXTURES.parent / "baselines" / "papers.toml"

EXACT = 1e-6
"""Relative: how far a finding without an interval may be from its baseline."""


class Known(Record):
    """One finding. low, high: its 95 % interval; None: it is exact."""

    value: float
    low: float | None = None
    high: float | None = None

    def allows(self, finding: Finding) -> bool:
        """Whether a finding is what it was. On the same items and the same texts it is the same number, up to rounding:
        one that has left its own interval of uncertainty has moved, whatever the sample."""
        if self.low is None or self.high is None:
            return math.isclose(finding.value, self.value, rel_tol=EXACT)
        return self.low <= finding.value <= self.high

    @property
    def text(self) -> str:
        interval = f" ({self.low:.4g} to {self.high:.4g})" if self.low is not None else ""
        return f"{self.value:.4g}{interval}"


class Section(Record):
    """Those of one section of the page."""

    accepted: str
    reason: str
    findings: dict[str, Known]


def load(path: Path = BASELINE) -> dict[str, dict[str, Known]]:
    """By section and key; empty where nothing was accepted yet. Raises InputError naming file and key."""
    return {name: section.findings for name, section in _sections(path).items()}


def accept(found: Mapping[str, Sequence[Finding]], reason: str, path: Path = BASELINE) -> None:
    """Make the findings of some sections, by name, the baseline of these. Raises InputError without a reason or for one
    that is not a number, QuantgateError where the file cannot be written: then it stays as it was."""
    reason = one_line(reason)
    if not reason:
        raise InputError('--update-baselines needs --reason "why the values change"')
    for name, findings in found.items():
        if nothing := [f.key for f in findings if math.isnan(f.value)]:
            raise InputError(f"{name}: {nothing[0]} is not a number: it cannot be a baseline")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = {
        name: Section(accepted=today, reason=reason, findings={f.key: _known(f) for f in findings})
        for name, findings in found.items()
    }
    sections = {**_sections(path), **new}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_toml(
        path,
        f"python -m suite.papers --update-baselines --reason {reason!r}",
        {
            **{name: {"accepted": s.accepted, "reason": s.reason} for name, s in sections.items()},
            **{f"{name}.findings": _lines(s) for name, s in sections.items()},
        },
        lines=[f"{name}.findings" for name in sections],
    )


def _known(finding: Finding) -> Known:
    if not math.isfinite(finding.low):
        return Known(value=finding.value)
    return Known(value=finding.value, low=finding.low, high=finding.high)


def _lines(section: Section) -> dict[str, dict[str, float]]:
    return {key: known.model_dump(exclude_none=True) for key, known in section.findings.items()}


def _sections(path: Path) -> dict[str, Section]:
    if not path.exists():
        return {}
    return {name: validate(Section, table, path, name) for name, table in read_toml(path).items()}
