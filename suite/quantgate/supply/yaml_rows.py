"""Rows of the harness's task files: plain YAML but for its own tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Safe; the harness's tags (`!function`) are left unread."""


_Plain.add_multi_constructor("!", lambda *_: None)


def yaml_rows(pattern: Path, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows that `keys` lead to in each file that has them, files by name. pattern: its last part has wildcards."""
    for file in sorted(pattern.parent.glob(pattern.name)):
        found: Any = yaml.load(file.read_text(encoding="utf-8"), Loader=_Plain)  # noqa: S506
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        yield from found or ()
