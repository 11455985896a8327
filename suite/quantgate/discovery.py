"""Find what files and other distributions add to the engine: one object a module, or one entry point."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any, TypeVar

from quantgate.errors import InputError, with_place

T = TypeVar("T")


def discover(package: str, attribute: str, group: str, kind: type[T]) -> dict[str, T]:
    """Return the objects called `attribute` of a package's modules by module name, sorted, and those that installed
    distributions offer as entry points of `group` by entry point name.

    Raises InputError: a module or an entry point cannot be imported, is of another kind, or has the name of another.
    """
    modules = import_all(package)
    declared = {
        name: _checked(f"{module.__file__}: {attribute}", getattr(module, attribute), kind)
        for name, module in modules.items()
        if hasattr(module, attribute)
    }
    for entry in metadata.entry_points(group=group):
        origin = f"entry point {entry.name} of {entry.dist.name if entry.dist else 'a distribution'}"
        if entry.name in declared:
            other = "a module" if entry.name in modules else "another entry point"
            raise InputError(f"{origin}: {package} has {other} of this name: rename the entry point")
        try:
            offered = entry.load()
        except Exception as error:
            cause = with_place(error)
            raise InputError(f"{origin}: {entry.value} cannot be imported: {cause}; correct it") from error
        remedy = f": name the object, {entry.value}:{attribute}" if isinstance(offered, ModuleType) else ""
        declared[entry.name] = _checked(f"{origin}: {entry.value}", offered, kind, remedy)
    return declared


def import_all(package: str) -> dict[str, ModuleType]:
    """Import the modules of a package, and return them by name, sorted; without those that begin with `_`. Raises
    InputError for one that cannot be imported."""
    folder, modules = importlib.import_module(package).__path__, {}
    for name in sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_")):
        try:
            modules[name] = importlib.import_module(f"{package}.{name}")
        except Exception as error:
            cause = with_place(error)
            raise InputError(f"{folder[0]}/{name}.py: cannot be imported: {cause}; correct it") from error
    return modules


def guarded(what: str, function: Callable[..., T]) -> Callable[..., T]:
    """Return a function of somebody else's, whose errors become an InputError with their place. what: it is."""

    @functools.wraps(function)
    def called(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{what} fails: {with_place(error)}; correct it") from error

    return called


def _checked(origin: str, offered: Any, kind: type[T], remedy: str = "") -> T:
    if not isinstance(offered, kind):
        is_kind = "the class itself" if offered is kind else f"a {type(offered).__name__}"
        raise InputError(f"{origin} is {is_kind}, not a {kind.__name__}{remedy}")
    return offered
