"""Find what files and other distributions add to the engine: one object a module, or one entry point."""

from __future__ import annotations

import importlib
import pkgutil
from importlib import metadata
from typing import Any

from quantgate.errors import InputError, in_one_line


def discover(package: str, attribute: str, group: str) -> dict[str, Any]:
    """Return the objects called `attribute` of a package's modules by module name, sorted, and those that installed
    distributions offer as entry points of `group` by entry point name.

    Raises InputError: an entry point cannot be imported, or has the name of a module.
    """
    declared = {}
    for name in sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)):
        if not name.startswith("_"):
            module = importlib.import_module(f"{package}.{name}")
            if hasattr(module, attribute):
                declared[name] = getattr(module, attribute)
    for entry in metadata.entry_points(group=group):
        origin = f"entry point {entry.name} of {entry.dist.name if entry.dist else 'a distribution'}"
        if entry.name in declared:
            raise InputError(f"{origin}: {package} has a module of this name: rename the entry point")
        try:
            declared[entry.name] = entry.load()
        except Exception as error:
            raise InputError(f"{origin}: {entry.value} cannot be imported: {in_one_line(error)}") from error
    return declared
