"""Read fixtures/papers.toml: the sections of the papers page, their requests, and the expected states."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, model_validator

from quantgate.config.matrix import Cell
from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import InputError
from quantgate.paths import FIXTURES
from quantgate.proofs.papers.baseline import BASELINES, COMMAND, Baseline, path_of
from quantgate.proofs.papers.section import Finding, SectionModule, State
from quantgate.records import Record

PAPERS = FIXTURES / "papers.toml"


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
    """A finding and its expected state. against: why it does not fit its baseline; empty: it fits."""

    finding: Finding
    expected: Expected
    against: str = ""

    @property
    def changes(self) -> list[str]:
        """How the finding differs from what is expected; empty while nothing is expected."""
        if self.expected.state == "unknown":
            return []
        other = self.expected.state != self.finding.state
        state = [f"expected: {self.expected.state} (fixtures/papers.toml)"] if other else []
        return [*state, *filter(None, [self.against])]

    @property
    def text(self) -> str:
        """Full text, for the case and the terminal."""
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
    """By key. workload: of what was measured (`quantgate.proofs.papers.baseline.workload_of`). Raises InputError
    where the file
    and the module do not have the same findings."""
    by_key = {f.key: f for f in findings}
    if differing := [*(by_key.keys() ^ entry.findings.keys())]:
        key = sorted(differing)[0]
        where = "its module" if key in entry.findings else "fixtures/papers.toml"
        raise InputError(f"{PAPERS}: {name}.findings.{key}: is not in {where}")
    return {
        key: Outcome(f, entry.findings[key], _against(name, f, workload, baseline))
        for key, f in by_key.items()
    }


def _against(name: str, finding: Finding, workload: str, baseline: Baseline | None) -> str:
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
