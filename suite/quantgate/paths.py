"""Where the engine and its data lie."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

PACKAGE = Path(__file__).parent
IMPORT_ROOT = PACKAGE.parent
"""The folder on `sys.path` from which `quantgate` is imported."""

_CHECKOUT = PACKAGE.parents[1]
FIXTURES = PACKAGE / "fixtures" if (PACKAGE / "fixtures").is_dir() else _CHECKOUT / "fixtures"
"""The default TOML files: package data of a wheel, `fixtures/` in a checkout."""

RESULTS = Path(".quantgate")
"""Where commands leave their results, below the current folder."""


def cache_dir() -> Path:
    """The folder that keeps downloads: `QUANTGATE_CACHE`, or this system's cache of the user."""
    chosen = os.environ.get("QUANTGATE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("quantgate")
