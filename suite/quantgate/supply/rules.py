"""The files that say how a task of the user's own is asked and marked."""

from __future__ import annotations

from pathlib import Path

from quantgate.errors import InputError
from quantgate.supply.rows import plain_yaml


def rules_beside(file: Path) -> list[Path]:
    """Return a task's file, those that it includes, and the Python files beside it, whose functions it may name; empty:
    there is none. Raises InputError for one that it includes and that does not lie beside it."""
    if not file.is_file():
        return []
    files, last = {file}, [file]
    while last:
        named = [(one, name) for one in last for name in _includes(one)]
        last = []
        for one, name in named:
            path = one.parent / name
            if Path(name).name != name or not path.is_file():
                raise InputError(f"{one}: includes {name}, which has to be a file beside it")
            if path not in files:
                files.add(path)
                last.append(path)
    return sorted({*files, *file.parent.glob("*.py")})


def _includes(file: Path) -> list[str]:
    content = plain_yaml(file)
    named = content.get("include", []) if isinstance(content, dict) else []
    return [str(name) for name in (named if isinstance(named, list) else [named])]
