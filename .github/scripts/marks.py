"""Marks: comments of HTML in the text of an issue, which nobody sees and the next night reads."""

from __future__ import annotations

import json
import re
from collections.abc import Set as AbstractSet
from typing import Any

DASHES = "-\\u002d"
"""Two dashes, as JSON: written out, they would end the comment that a mark is."""
FEW = 10
"""Members that a comment names."""


def mark(kind: str, data: Any) -> str:
    """Return a mark. kind: its first words."""
    return f"<!-- {kind} {json.dumps(data).replace('--', DASHES)} -->"


def read_mark(kind: str, text: str) -> dict[str, Any] | None:
    """Return what the mark of this kind says in a text; None: there is none."""
    match = re.search(rf"<!-- {kind} (\{{.*\}}) -->", text)
    return json.loads(match[1]) if match else None


def came_and_went(old: AbstractSet[str], new: AbstractSet[str], kept: int) -> list[str]:
    """Return a sentence for the members that came, and one for those that went. kept: how many of the old ones a mark
    holds; where it is full, nobody knows which of the others came."""
    came = new - old if len(old) < kept else set()
    return [
        f"{word}: {', '.join(f'`{member}`' for member in sorted(members)[:FEW])}"
        f"{f' and {len(members) - FEW} more' if len(members) > FEW else ''}."
        for word, members in (("New", came), ("Gone", old - new))
        if members
    ]
