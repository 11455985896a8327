"""Where the engine and its data lie."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

PACKAGE = Path(__file__).parent
IMPORT_ROOT = PACKAGE.parent
"""The folder on `sys.path` from which `quantgate` is imported."""

INSTALLED = (PACKAGE / "fixtures").is_dir()
"""Whether this is a wheel, which has `fixtures/` and the cases inside; a checkout has them beside the engine."""
FIXTURES = PACKAGE / "fixtures" if INSTALLED else PACKAGE.parents[1] / "fixtures"
"""The default TOML files."""
CASES = PACKAGE / "cases" if INSTALLED else PACKAGE.parent
"""The pytest cases, `test_*.py`."""

ENGINES = "engines"
"""Folder of the cache: links to installed packages, see `import_root`."""

RESULTS = Path(".quantgate")
"""Where commands leave their results, below the current folder."""


def cache_dir() -> Path:
    """Return the cache: `QUANTGATE_CACHE`, or the user's cache folder of this system."""
    return _cache().absolute()


def lacks_home() -> bool:
    """Return whether the cache is to lie in a home folder that cannot be told: an unknown user, no HOME."""
    return str(_cache()).startswith("~")


def _cache() -> Path:
    if chosen := os.environ.get("QUANTGATE_CACHE"):
        return Path(os.path.expanduser(chosen))  # noqa: PTH111 - Path's raises where there is no home
    try:
        return user_cache_path("quantgate")
    except RuntimeError:
        return Path("~/.cache/quantgate")


def import_root() -> Path:
    """Return a folder from which any interpreter imports this quantgate.

    It is the checkout's `suite/`. A wheel lies among all other packages, which another environment (`--against`)
    must not import: there it is a folder of the cache with nothing but a link to the package.
    """
    if not INSTALLED:
        return IMPORT_ROOT
    package = PACKAGE.resolve()
    root = cache_dir() / ENGINES / hashlib.sha256(os.fsencode(package)).hexdigest()[:12]
    if not (root / "quantgate").exists():
        root.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (root / "quantgate").symlink_to(package)
    return root
