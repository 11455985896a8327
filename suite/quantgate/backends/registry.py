"""The backends that there are: files of this folder, and entry points of `quantgate.backends`."""

from __future__ import annotations

import functools

from quantgate.backends.spec import BackendSpec
from quantgate.discovery import discover


@functools.cache
def backends() -> dict[str, BackendSpec]:
    """Return all backends by name. Raises InputError for an entry point that cannot be imported."""
    return discover("quantgate.backends", "BACKEND", "quantgate.backends")


def unused() -> dict[str, frozenset[str]]:
    """Return by backend what it does not compute with (`BackendSpec.unused`)."""
    return {name: spec.unused for name, spec in backends().items()}
