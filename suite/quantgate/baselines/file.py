"""One baseline: the summary (TOML) and the raw files (JSON) that it names: one of its metrics, one of its anchors.

The raw files are named by their content, so replacing the summary is the one step that changes a baseline: a reader
sees the old set or the new set, whenever the writer dies. The file of the anchors stays as it is for as long as they
do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from quantgate.baselines.baseline import Baseline
from quantgate.baselines.raw import from_json, to_json
from quantgate.baselines.summary import Entry, RawFile, Summary, check, origin_id, raw_name, seal_of
from quantgate.baselines.toml_file import damaged, parse_toml, write_bytes, write_toml
from quantgate.judge.anchor import Anchor, Origin
from quantgate.records import FORMAT, Estimate, Metric

V = TypeVar("V")

OLDEST = 2
"""The first format with the layout below; 3 adds `[other_kernels]`, 4 `[anchors]`, 5 `seal`."""


def read_file(path: Path, cell: str, tier: str, machine: str | None) -> Baseline | None:
    """Read the baseline whose summary is `path`; None: no file. Raises InputError for a damaged one, and for one of
    another format."""
    if (parsed := parse_toml(path, Summary, OLDEST)) is None:
        return None
    summary, content = parsed
    for key, expected in {"cell": cell, "tier": tier, "machine": machine}.items():
        if (value := getattr(summary, key)) != expected:
            raise damaged(path, f"{key} is {value!r}, but the file's place belongs to {expected!r}")
    check(path, summary)
    try:
        raw = {key: _read(path.with_name(named.file)) for key, named in summary.files.items()}
    except OSError as error:
        if parse_toml(path, Summary, OLDEST) != parsed:
            return read_file(path, cell, tier, machine)  # an update came in between: read its files
        missing = Path(str(error.filename))
        key = next(key for key, named in summary.files.items() if named.file == missing.name)
        problem = f"cannot be read ({error.strerror}), {key}.file of {path.name}"
        if isinstance(error, FileNotFoundError):
            problem += " (does a .gitignore keep it out of git?)"
        raise damaged(missing, problem) from error
    for key, named in summary.files.items():
        if hashlib.sha256(raw[key]).hexdigest() != named.sha256:
            problem = f"truncated or changed: its SHA-256 is not {key}.sha256 of {path.name}"
            raise damaged(path.with_name(named.file), problem)
    raw_path = path.with_name(summary.raw.file)
    metrics, sha256 = from_json(path, raw_path, raw["raw"], summary, "metrics", summary.values)
    if sha256 != (summary.raw_anchors.sha256 if summary.raw_anchors else ""):
        raise damaged(path, f"raw_anchors: the anchors are not those that were written with {raw_path.name}")
    return Baseline(
        **summary.model_dump(include={"format", "cell", "tier", "machine", *Origin.model_fields}),
        metrics={name: metrics[name] for name in summary.metrics},
        others={name: metrics[name] for name in summary.other_kernels},
        kept={name: summary.earlier[m.earlier] for name, m in summary.values.items() if m.earlier},
        anchors=_anchors(path, summary, raw.get("raw_anchors", b"")),
        digests={str(path): hashlib.sha256(content).hexdigest()},
        complete=True,
        path=path,
    )


def _read(path: Path) -> bytes:
    """Return a raw file as it was written: git may have converted its line ends (`core.autocrlf`)."""
    return path.read_bytes().replace(b"\r\n", b"\n")


def _anchors(path: Path, summary: Summary, raw: bytes) -> dict[str, Anchor]:
    if summary.raw_anchors is None:
        if summary.anchors:
            raise damaged(path, "anchors: there is no [raw_anchors]")
        return {}
    raw_path = path.with_name(summary.raw_anchors.file)
    metrics, _ = from_json(path, raw_path, raw, summary, "anchors", summary.anchors)
    origins = {name: summary.earlier[entry.earlier or ""] for name, entry in summary.anchors.items()}
    return {name: Anchor(metric=metric, origin=origins[name]) for name, metric in metrics.items()}


def write_file(baseline: Baseline, command: str) -> list[Path]:
    """Write a baseline to its place and return its files, the summary first. Equal baselines give equal bytes.

    command: regenerates the baseline; the summary's first line. Raises QuantgateError where a value cannot be kept or a
    file cannot be written; then the old files stay.
    """
    path = baseline.path
    metrics = _sorted(baseline.metrics) | _sorted(baseline.others)
    anchors = _sorted(baseline.anchors)
    anchored = {name: anchor.metric for name, anchor in anchors.items()}
    contents = {"raw_anchors": to_json(path, anchored)} if anchors else {}
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}
    contents["raw"] = to_json(path, metrics, digests.get("raw_anchors", ""))
    digests["raw"] = hashlib.sha256(contents["raw"]).hexdigest()
    files = {key: RawFile(file=raw_name(path, sha, key), sha256=sha) for key, sha in digests.items()}
    every = metrics | {f"anchor of {name}": metric for name, metric in anchored.items()}
    named = _named_conditions(every)
    origins = {name: anchor.origin for name, anchor in anchors.items()}

    def entry(metric: Metric, conditions: str | None, origin: Origin | None) -> Entry:
        estimate = metric.model_dump(include=set(Estimate.model_fields))
        return Entry(**estimate, conditions=conditions, earlier=origin_id(origin) if origin else None)

    entries = {n: entry(metric, named.get(n), baseline.kept.get(n)) for n, metric in metrics.items()}
    summary = Summary(
        # Without the wall times of the run (seconds, phases): they are timings of an unnamed machine.
        **baseline.model_dump(include={"cell", "tier", "machine", "created", "reason", "fingerprint"}),
        format=FORMAT,
        metrics={name: line for name, line in entries.items() if name in baseline.metrics},
        other_kernels={name: line for name, line in entries.items() if name in baseline.others},
        anchors={n: entry(m, named.get(f"anchor of {n}"), origins[n]) for n, m in anchored.items()},
        conditions={name: _sorted(every[name].conditions) for name in sorted(set(named.values()))},
        environment=_sorted(baseline.environment),
        earlier=_sorted({origin_id(one): one for one in [*baseline.kept.values(), *origins.values()]}),
        raw=files["raw"],
        raw_anchors=files.get("raw_anchors"),
    )
    summary = summary.model_copy(update={"seal": seal_of(summary)})
    data = summary.model_dump(exclude_defaults=True)
    written = [path.with_name(file.file) for file in summary.files.values()]
    try:
        for key, content in contents.items():
            place = path.with_name(files[key].file)
            if key == "raw" or not place.exists():
                write_bytes(place, content)
        write_toml(path, command, data, lines=("metrics", "other_kernels", "anchors", "conditions"))
    finally:
        _sweep(path)
    return [path, *written]


def _sorted(table: Mapping[str, V]) -> dict[str, V]:
    return dict(sorted(table.items()))


def _named_conditions(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Return, for each metric with conditions, the first one that has the same, which gives them their name."""
    # repr: 1, 1.0 and True are equal, but have to come back as what they are.
    keys = {name: repr(_sorted(metric.conditions)) for name, metric in metrics.items() if metric.conditions}
    first: dict[str, str] = {}
    return {name: first.setdefault(key, name) for name, key in keys.items()}


def _sweep(path: Path) -> None:
    """Remove the files of earlier and crashed updates beside the summary `path`: all that it does not name."""
    parsed = parse_toml(path, Summary, OLDEST)
    current = {named.file for named in parsed[0].files.values()} if parsed else set()
    stem, raw = re.escape(path.stem), r"[0-9a-f]{12}(\.anchors)?\.json"
    ours = re.compile(rf"{stem}\.{raw}|\.{stem}\.({raw}|toml)\..+")  # the latter: temporary files
    for file in path.parent.glob("*"):
        if ours.fullmatch(file.name) and file.name not in current:
            with suppress(OSError):  # the next update tries again
                file.unlink()
