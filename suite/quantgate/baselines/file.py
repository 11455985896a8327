"""One baseline: the summary (TOML) and the raw file (JSON) that it names.

The raw file is named by its content, so replacing the summary is the one step that changes a baseline: a reader sees
the old pair or the new pair, whenever the writer dies.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from quantgate.baselines.toml_file import damaged, parse_toml, write_bytes, write_toml
from quantgate.errors import QuantgateError
from quantgate.files import hash_of
from quantgate.records import FORMAT, Estimate, Measurement, Metric, Record, Scalar, Scalars

if TYPE_CHECKING:
    from collections.abc import Mapping

V = TypeVar("V")

OLDEST = 2
"""The first format with the layout below; 3 adds `[other_kernels]`."""

_ON = " on "

RAW_FIELDS = Metric.model_fields.keys() - Estimate.model_fields.keys() - {"conditions"}
"""Fields of a metric that the raw file holds, most of them long; the summary holds the others."""
DEFAULTS = {key: Metric.model_fields[key].get_default(call_default_factory=True) for key in RAW_FIELDS}
"""Their values where the raw file does not have them."""


class Origin(Record):
    """The origin of values: the day and the job that measured them, and why a person accepted them."""

    created: str
    reason: str
    fingerprint: str
    environment: Scalars = Field(default_factory=dict)


class Baseline(Measurement):
    """An accepted measurement; `created`, `reason`, `fingerprint` and `environment` are those of the latest update.

    A partial update (`-k perplexity`) replaces what it measured and keeps the rest: `kept` has the origin of each
    metric that comes from an earlier update. `origin` covers both.
    """

    reason: str
    path: Path
    machine: str | None = None
    """The machine whose absolute timings it has."""
    kept: dict[str, Origin] = Field(default_factory=dict)
    others: dict[str, Metric] = Field(default_factory=dict)
    """Ratios of timings and memory peaks on other kernels than those in `metrics`, by `on_kernels`."""
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each summary that this was read from, by path: shows whether another run changed it since."""

    @property
    def latest(self) -> Origin:
        """The origin of the latest update."""
        return Origin.model_validate(self.model_dump(include=set(Origin.model_fields)))

    def origin(self, metric: str) -> Origin:
        """Return when, why and in which environment `metric` (a name in `metrics` or `others`) was measured."""
        return self.kept.get(metric) or self.latest

    def comparable(self, name: str, measured: Metric) -> tuple[Metric | None, Mapping[str, Scalar]]:
        """Return the value that `measured` is compared with, chosen by `key_for`, and its environment."""
        key = self.key_for(name, measured)
        value = self.metrics.get(key) or self.others.get(key)
        return value, self.kept[key].environment if key in self.kept else self.environment

    def key_for(self, name: str, measured: Metric) -> str:
        """Return the name in `metrics` or `others` of the value that `measured` is compared with: the one on the same
        kernels, else the one whose kernels have most features in common."""
        kinds = {self.metrics[name].kernels: name} if name in self.metrics else {}
        kinds |= {m.kernels: key for key, m in self.others.items() if name_of(key) == name}
        here = set(measured.kernels.split())
        return kinds[min(kinds, key=lambda kind: (len(here ^ set(kind.split())), kind))] if kinds else name


def on_kernels(name: str, metric: Metric) -> str:
    """Return the name of a metric in `Baseline.others`: `memory/peak_resident on AVX2 avx2`."""
    return f"{name}{_ON}{metric.kernels}"


def name_of(key: str) -> str:
    """Return the metric's name for a name in `Baseline.others`."""
    return key.partition(_ON)[0]


class _RawFile(Record):
    file: str
    sha256: str


class _Entry(Estimate):
    """One line of `[metrics]`."""

    conditions: str | None = None
    """The key of its conditions in `[conditions]`; None: it has none."""
    earlier: str | None = None
    """The key of its origin in `[earlier]`, for a metric that a later update kept."""


class _Summary(Record):
    """The summary file, key by key, in the order of interest for a reviewer."""

    format: int = Field(ge=1)
    cell: str
    tier: str
    machine: str | None = None
    created: str
    reason: str
    fingerprint: str
    metrics: dict[str, _Entry]
    other_kernels: dict[str, _Entry] = Field(default_factory=dict)
    """Metrics of `metrics`, measured on other kernels."""
    conditions: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Each set of conditions once, under the name of the first metric that has it."""
    environment: Scalars = Field(default_factory=dict)
    earlier: dict[str, Origin] = Field(default_factory=dict)
    raw: _RawFile


def read_file(path: Path, cell: str, tier: str, machine: str | None) -> Baseline | None:
    """Read the baseline whose summary is `path`; None: no file. Raises InputError for a damaged one, and for one of
    another format."""
    if (parsed := parse_toml(path, _Summary, OLDEST)) is None:
        return None
    summary, content = parsed
    for key, expected in {"cell": cell, "tier": tier, "machine": machine}.items():
        if (value := getattr(summary, key)) != expected:
            raise damaged(path, f"{key} is {value!r}, but the file's place belongs to {expected!r}")
    entries = summary.metrics | summary.other_kernels
    for name in summary.other_kernels:
        if name_of(name) not in summary.metrics:
            raise damaged(path, f"other_kernels: {name!r} is not a metric of [metrics]")
    for name, entry in entries.items():
        if entry.earlier is not None and entry.earlier not in summary.earlier:
            raise damaged(path, f"metrics.{name}.earlier: there is no [earlier.{entry.earlier}]")
        if entry.conditions is not None and entry.conditions not in summary.conditions:
            raise damaged(path, f"metrics.{name}.conditions: {entry.conditions!r} is not in [conditions]")
    if summary.raw.file != _raw_name(path, summary.raw.sha256):
        raise damaged(
            path, f"raw.file: {summary.raw.file!r} does not match the summary's name and raw.sha256"
        )
    raw_path = path.with_name(summary.raw.file)
    try:
        raw = raw_path.read_bytes()
    except OSError as error:
        if parse_toml(path, _Summary, OLDEST) != parsed:
            return read_file(path, cell, tier, machine)  # an update came in between: read its pair
        raise damaged(raw_path, f"cannot be read ({error.strerror}), raw.file of {path.name}") from error
    if hashlib.sha256(raw).hexdigest() != summary.raw.sha256:
        raise damaged(raw_path, f"truncated or changed: its SHA-256 is not raw.sha256 of {path.name}")
    try:
        long: dict[str, dict[str, Any]] = json.loads(raw)
        seals = {name: fields.pop("seal", "") for name, fields in long.items()}
        metrics = {
            name: Metric(
                **entry.model_dump(exclude={"conditions", "earlier"}),
                conditions=summary.conditions.get(entry.conditions or "", {}),
                **long.get(name, {}),
            )
            for name, entry in entries.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(raw_path, f"not what quantgate writes: {error}") from error
    for name, metric in metrics.items():
        if seals.get(name) != seal_of(metric, summary.conditions.get(entries[name].conditions or "", {})):
            line = f"metrics.{name}: its line (value = {metric.value!r})"
            raise damaged(
                path, f"{line} or its conditions are not those that were written with {raw_path.name}"
            )
    return Baseline(
        **summary.model_dump(include={"format", "cell", "tier", "machine", *Origin.model_fields}),
        metrics={name: metrics[name] for name in summary.metrics},
        others={name: metrics[name] for name in summary.other_kernels},
        kept={name: summary.earlier[m.earlier] for name, m in entries.items() if m.earlier},
        digests={str(path): hashlib.sha256(content).hexdigest()},
        complete=True,
        path=path,
    )


def write_file(baseline: Baseline, command: str) -> list[Path]:
    """Write a baseline to its place and return the two files. Equal baselines give equal bytes.

    command: regenerates the baseline; the summary's first line. Raises QuantgateError where a value cannot be kept or a
    file cannot be written; then the old pair stays.
    """
    path = baseline.path
    metrics = _sorted(baseline.metrics) | _sorted(baseline.others)
    raw = _raw_json(path, metrics)
    sha256 = hashlib.sha256(raw).hexdigest()
    raw_path = path.with_name(_raw_name(path, sha256))
    named = _named_conditions(metrics)
    entries = {
        name: _Entry(
            **metric.model_dump(include=set(Estimate.model_fields)),
            conditions=named.get(name),
            earlier=_origin_id(baseline.kept[name]) if name in baseline.kept else None,
        )
        for name, metric in metrics.items()
    }
    summary = _Summary(
        # Without the wall times of the run (seconds, phases): they are timings of an unnamed machine.
        **baseline.model_dump(include={"cell", "tier", "machine", "created", "reason", "fingerprint"}),
        format=FORMAT,
        metrics={name: entry for name, entry in entries.items() if name in baseline.metrics},
        other_kernels={name: entry for name, entry in entries.items() if name in baseline.others},
        conditions={name: _sorted(metrics[name].conditions) for name in sorted(set(named.values()))},
        environment=_sorted(baseline.environment),
        earlier=_sorted({_origin_id(origin): origin for origin in baseline.kept.values()}),
        raw=_RawFile(file=raw_path.name, sha256=sha256),
    )
    data = summary.model_dump(exclude_defaults=True)
    try:
        write_bytes(raw_path, raw)
        write_toml(path, command, data, lines=("metrics", "other_kernels", "conditions"))
    finally:
        _sweep(path)
    return [path, raw_path]


def _sorted(table: Mapping[str, V]) -> dict[str, V]:
    return dict(sorted(table.items()))


def _named_conditions(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Return, for each metric with conditions, the first one that has the same, which gives them their name."""
    # repr: 1, 1.0 and True are equal, but have to come back as what they are.
    keys = {name: repr(_sorted(metric.conditions)) for name, metric in metrics.items() if metric.conditions}
    first: dict[str, str] = {}
    return {name: first.setdefault(key, name) for name, key in keys.items()}


def _origin_id(origin: Origin) -> str:
    return f"{origin.created}-{hash_of(origin.model_dump())[:8]}"


def _raw_name(summary: Path, sha256: str) -> str:
    return f"{summary.stem}.{sha256[:12]}.json"


def _raw_json(path: Path, metrics: Mapping[str, Metric]) -> bytes:
    """One line per field, so that a diff shows which field of which metric changed."""
    blocks = []
    for name, metric in sorted(metrics.items()):
        fields = {key: getattr(metric, key) for key in sorted(RAW_FIELDS)}
        try:
            lines = [
                f'  "{key}": {json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)}'
                for key, value in sorted({**fields, "seal": seal_of(metric, metric.conditions)}.items())
                if value != DEFAULTS.get(key)
            ]
        except ValueError as error:
            raise QuantgateError(
                f"{path}: not written: metrics.{name}.raw has a non-finite number"
            ) from error
        if lines:
            blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return ("{\n" + ",\n".join(blocks) + "\n}\n").encode()


def seal_of(metric: Metric, conditions: Mapping[str, Scalar]) -> str:
    """Return a hash of everything that the summary says of the metric, kept in the raw file. It shows values that were
    edited by hand, and merges by lines that put the value of one update beside the samples of another. conditions: as
    they are written in the summary."""
    estimate = metric.model_dump(include=set(Estimate.model_fields))
    return hash_of([estimate, sorted((key, repr(value)) for key, value in conditions.items())])


def _sweep(path: Path) -> None:
    """Remove the files of earlier and crashed updates beside the summary `path`: all that it does not name."""
    parsed = parse_toml(path, _Summary, OLDEST)
    current = parsed[0].raw.file if parsed else ""
    stem, raw = re.escape(path.stem), r"[0-9a-f]{12}\.json"
    ours = re.compile(rf"{stem}\.{raw}|\.{stem}\.({raw}|toml)\..+")  # the latter: temporary files
    for file in path.parent.glob("*"):
        if ours.fullmatch(file.name) and file.name != current:
            with suppress(OSError):  # the next update tries again
                file.unlink()
