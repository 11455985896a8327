"""The backends that there are."""

from __future__ import annotations

import pkgutil

import quantgate.backends

_NO_BACKENDS = ("base", "registry", "tree")


def backend_names() -> list[str]:
    """Return the names of the backends: the files of this folder but for those that no library stands behind."""
    names = (module.name for module in pkgutil.iter_modules(quantgate.backends.__path__))
    return [name for name in names if name not in _NO_BACKENDS and not name.startswith("_")]
