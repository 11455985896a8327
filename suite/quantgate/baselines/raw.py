"""The raw file of a baseline: samples and other long values of its metrics, as JSON, with a seal of each line that the
summary has of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.baselines.summary import Entry, Summary
from quantgate.baselines.toml_file import damaged
from quantgate.errors import QuantgateError
from quantgate.files import hash_of
from quantgate.records import Estimate, Metric, Scalar

RAW_FIELDS = Metric.model_fields.keys() - Estimate.model_fields.keys() - {"conditions"}
"""Fields of a metric that the raw file holds, most of them long; the summary holds the others."""
DEFAULTS = {key: Metric.model_fields[key].get_default(call_default_factory=True) for key in RAW_FIELDS}
"""Their values where the raw file does not have them."""
ANCHORS = "[anchors]"
"""Stands among the metrics for the file of the anchors: its SHA-256 is its seal."""


def to_json(path: Path, metrics: Mapping[str, Metric], anchors: str = "") -> bytes:
    """Return the content of a raw file: one line per field, so that a diff shows which field of which metric changed.

    path: the summary, for the error. anchors: SHA-256 of the file of the anchors. Raises QuantgateError for a number
    that JSON cannot hold.
    """
    tables: dict[str, dict[str, Any]] = {ANCHORS: {"seal": anchors}} if anchors else {}
    for name, metric in metrics.items():
        fields = {key: value for key in RAW_FIELDS if (value := getattr(metric, key)) != DEFAULTS[key]}
        tables[name] = {**fields, "seal": seal_of(metric, metric.conditions)}
    blocks = []
    for name, table in sorted(tables.items()):
        try:
            lines = [
                f'  "{key}": {json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)}'
                for key, value in sorted(table.items())
            ]
        except ValueError as error:
            raise QuantgateError(
                f"{path}: not written: metrics.{name}.raw has a non-finite number"
            ) from error
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return ("{\n" + ",\n".join(blocks) + "\n}\n").encode()


def from_json(
    path: Path, raw_path: Path, content: bytes, summary: Summary, table: str, entries: Mapping[str, Entry]
) -> tuple[dict[str, Metric], str]:
    """Return the metrics of a raw file, and the SHA-256 of the anchors that it names (empty: none).

    path: the summary; entries: its lines of these metrics, in its table `table`. Raises InputError for a file that is
    not what was written, and for lines that were not written with it.
    """
    try:
        long: dict[str, dict[str, Any]] = json.loads(content)
        anchors = str(long.pop(ANCHORS, {}).get("seal", ""))
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
    if missing := sorted(long.keys() - metrics.keys()):
        raise damaged(path, f"{table}: {missing[0]!r}, which {raw_path.name} has, is missing")
    for name, metric in metrics.items():
        if seals.get(name) != seal_of(metric, summary.conditions.get(entries[name].conditions or "", {})):
            line = f"{table}.{name}: its line (value = {metric.value!r})"
            raise damaged(
                path, f"{line} or its conditions are not those that were written with {raw_path.name}"
            )
    return metrics, anchors


def seal_of(metric: Metric, conditions: Mapping[str, Scalar]) -> str:
    """Return a hash of everything that the summary says of the metric, kept in the raw file. It shows values that were
    edited by hand, and merges by lines that put the value of one update beside the samples of another. conditions: as
    they are written in the summary."""
    estimate = metric.model_dump(include=set(Estimate.model_fields))
    return hash_of([estimate, sorted((key, repr(value)) for key, value in conditions.items())])
