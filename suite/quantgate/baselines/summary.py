"""The summary of a baseline as it stands in its TOML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from quantgate.baselines.toml_file import damaged
from quantgate.files import hash_of
from quantgate.judge.anchor import Origin
from quantgate.judge.kernels import name_of
from quantgate.records import Estimate, Record, Scalar, Scalars

SEALED = 5
"""The first format with a seal."""


class RawFile(Record):
    """A file beside the summary, named by its content."""

    file: str
    sha256: str


class Entry(Estimate):
    """One line of `[metrics]`."""

    conditions: str | None = None
    """The key of its conditions in `[conditions]`; None: it has none."""
    earlier: str | None = None
    """The key of its origin in `[earlier]`, for an anchor, and for a metric that a later update kept."""


class Summary(Record):
    """The file, key by key, in the order of interest for a reviewer."""

    format: int = Field(ge=1)
    cell: str
    tier: str
    machine: str | None = None
    created: str
    reason: str
    fingerprint: str
    seal: str | None = None
    """`seal_of`; None: of a format before `SEALED`."""
    metrics: dict[str, Entry]
    other_kernels: dict[str, Entry] = Field(default_factory=dict)
    """Metrics of `metrics`, measured on other kernels."""
    anchors: dict[str, Entry] = Field(default_factory=dict)
    """What losses of metrics add up from, where that is another value than the one in `metrics`."""
    conditions: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Each set of conditions once, under the name of the first metric that has it."""
    environment: Scalars = Field(default_factory=dict)
    earlier: dict[str, Origin] = Field(default_factory=dict)
    raw: RawFile
    raw_anchors: RawFile | None = None

    @property
    def values(self) -> dict[str, Entry]:
        """The lines of all metrics, on all kernels."""
        return self.metrics | self.other_kernels

    @property
    def files(self) -> dict[str, RawFile]:
        """The raw files by the key that names them."""
        files = {"raw": self.raw, "raw_anchors": self.raw_anchors}
        return {key: file for key, file in files.items() if file is not None}


def check(path: Path, summary: Summary) -> None:
    """Raise InputError where parts of the summary at `path` do not go together."""
    for name in summary.other_kernels:
        if name_of(name) not in summary.metrics:
            raise damaged(path, f"other_kernels: {name!r} is not a metric of [metrics]")
    for table, entries in (("metrics", summary.values), ("anchors", summary.anchors)):
        for name, entry in entries.items():
            if problem := _problem(entry, summary, anchor=table == "anchors"):
                raise damaged(path, f"{table}.{name}.{problem}")
    for key, raw in summary.files.items():
        if raw.file != raw_name(path, raw.sha256, key):
            raise damaged(
                path, f"{key}.file: {raw.file!r} does not match the summary's name and {key}.sha256"
            )
    if summary.seal != (seal_of(summary) if summary.format >= SEALED else None):
        raise damaged(
            path, "environment or earlier: not what was written: the seal of this file is of another"
        )


def _problem(entry: Entry, summary: Summary, *, anchor: bool) -> str:
    """Return which key of a line does not go with the summary, and why; empty: all do."""
    if entry.conditions is not None and entry.conditions not in summary.conditions:
        return f"conditions: {entry.conditions!r} is not in [conditions]"
    if entry.earlier is None:
        return "earlier: missing" if anchor else ""
    if (origin := summary.earlier.get(entry.earlier)) is None:
        return f"earlier: there is no [earlier.{entry.earlier}]"
    if anchor and origin_id(origin) != entry.earlier:
        return f"earlier: its origin [earlier.{entry.earlier}] is not the one that was written"
    return ""


def seal_of(summary: Summary) -> str:
    """Return a hash of the environments in a summary, which decide how much a value may differ. The lines of the values
    have seals in the raw file."""
    return hash_of([summary.environment, {key: one.model_dump() for key, one in summary.earlier.items()}])


def origin_id(origin: Origin) -> str:
    """Return the key of an origin in `[earlier]`."""
    return f"{origin.created}-{hash_of(origin.model_dump())[:8]}"


def raw_name(path: Path, sha256: str, key: str = "raw") -> str:
    """Return the name of a raw file of the summary `path`. key: `raw`, or `raw_anchors`."""
    return f"{path.stem}.{sha256[:12]}{'.anchors' if key == 'raw_anchors' else ''}.json"
