"""Read `fixtures/acknowledged.toml`: events that a person looked at and accepts for a time, with the reason. In git, so
that a history can be made anew and nothing is forgotten."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import InputError
from quantgate.paths import FIXTURES
from quantgate.records import Record

ACKNOWLEDGED = FIXTURES / "acknowledged.toml"


class Acknowledgement(Record):
    """One entry: the event, the cells and metrics of it (patterns), why, and until when."""

    event: str = Field(pattern=r"^(worse|better|unequal)-\d{8}-[0-9a-f]{4,}$")
    cell: str = "*"
    metric: str = "*"
    reason: str = Field(min_length=1)
    until: datetime.date


class _File(Record):
    acknowledged: list[Acknowledgement] = Field(default_factory=list)


def load_acknowledged(path: Path | None = None) -> Sequence[Acknowledgement]:
    """Read and validate. path: in place of `ACKNOWLEDGED`, which need not be there. Raises InputError naming file, key
    and what is wrong."""
    if path is None:
        path = ACKNOWLEDGED
        if not path.exists():
            return []
    entries = validate(_File, read_toml(path), path).acknowledged
    seen: set[tuple[str, str, str]] = set()
    for number, entry in enumerate(entries):
        key = entry.event, entry.cell, entry.metric
        if key in seen:
            raise InputError(
                f"{path}: acknowledged (entry {number + 1}): is there twice ({entry.event}): remove one"
            )
        seen.add(key)
    return entries
