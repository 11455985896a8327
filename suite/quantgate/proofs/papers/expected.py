"""fixtures/papers.toml: the sections of the papers page, what they measure, and what is expected of each finding."""

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
    """Of one finding. state: `unknown` until it is measured for the first time. why: for the reader of the page, where
    it does not hold or is open."""

    state: Literal[State, "unknown"]
    why: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"state": value} if isinstance(value, str) else value


class Entry(Record):
    """One section. cells: patterns of ids, of the tier's cells; requests: what is measured of each of them."""

    tier: str
    cells: list[str] = Field(default=["*"])
    requests: list[str] = Field(min_length=1)
    findings: dict[str, Expected]

    def chosen(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells that the section uses, in their order."""
        return [c for c in cells if any(fnmatchcase(c.id, pattern) for pattern in self.cells)]


@dataclass(frozen=True)
class Outcome:
    """A finding beside what was expected of it. against: what else is wrong, see `outcomes`; empty: it fits its
    baseline."""

    finding: Finding
    expected: Expected
    against: str = ""

    @property
    def changes(self) -> list[str]:
        """What it is other than expected; none while nothing is expected."""
        if self.expected.state == "unknown":
            return []
        other = self.expected.state != self.finding.state
        state = [f"expected: {self.expected.state} (fixtures/papers.toml)"] if other else []
        return [*state, *filter(None, [self.against])]

    @property
    def text(self) -> str:
        """In full, for the case and for the terminal."""
        f = self.finding
        lines = [
            f"{f.name}: {', '.join([f.state, *self.changes])}",
            f"the paper: {f.claim}",
            f"measured: {f.measured}, {f.text}",
        ]
        if self.expected.state == "unknown":
            lines.append("nothing is expected yet: write what this is into fixtures/papers.toml, and why")
        return "\n  ".join([*lines, *([self.expected.why] if self.expected.why and not self.changes else [])])


def load_entries(path: Path = PAPERS) -> dict[str, Entry]:
    """Every section by the name of its module, in the order of the page. Raises InputError naming file and key."""
    return {name: validate(Entry, table, path, name) for name, table in read_toml(path).items()}


def module_of(name: str) -> SectionModule:
    """The code of a section. Raises InputError where there is none."""
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
    """What is to be said against a finding by its baseline."""
    accepted = baseline.findings.get(finding.key) if baseline else None
    remedy = (
        f"({path_of(name).relative_to(BASELINES.parent)}; {COMMAND} -k '^{name}$' accepts what was measured)"
    )
    if baseline is None or accepted is None:
        return f"has no baseline {remedy}"
    if baseline.workload != workload:
        return f"not comparable: its baseline is of other cells, texts or items {remedy}"
    return "" if accepted.allows(finding) else f"has left its baseline {accepted.text} {remedy}"
