"""Keep the cache under a limit, and remove what killed runs have left.

A run removes at its end what was used longest ago, until all fits under QUANTGATE_CACHE_LIMIT (gigabytes; 50). What any
run has used in the last day, and what this one has used however long ago it began, stays.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantgate.cache.kept import ENTRIES, LOCKS, discard, entry_file, lock_file, read_entry, size_of
from quantgate.errors import InputError
from quantgate.locks import BusyError, locked
from quantgate.paths import ENGINES, cache_dir

VARIABLE = "QUANTGATE_CACHE_LIMIT"
DEFAULT = 50.0
"""Gigabytes."""
DAY = 24 * 3600.0
SHORT_LIVED = ("logprobs",)
"""Kinds that are removed when they were not used for a day, even below the limit: each change of a library makes new
ones, of gigabytes."""
LOCKED = (
    "assets", "calibration", "checkpoints", "environments", "hub", "tokenizers", "tools", "workloads",
)  # fmt: skip
"""Kinds that are made under a lock of their name: what is half-made there, and not locked, is of a run that was killed.
Elsewhere it is left for a day."""
INTERNAL = (ENGINES, ENTRIES, LOCKS, "tmp", "wheels")


@dataclass(frozen=True)
class Thing:
    """One that is kept. used: when, in seconds since 1970."""

    path: Path
    bytes: int
    used: float

    @property
    def kind(self) -> str:
        return self.path.parent.name


def limit_bytes() -> float:
    """Return what QUANTGATE_CACHE_LIMIT allows. Raises InputError."""
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text or DEFAULT)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise InputError(f"{VARIABLE}={text!r}: is not a number of gigabytes; write {VARIABLE}={DEFAULT:g}")
    return limit * 1e9


def things(root: Path) -> list[Thing]:
    """Return all that the cache keeps, what was used longest ago first."""
    listed = []
    for path in root.glob("*/*"):
        if path.parent.name in INTERNAL or path.name.startswith("."):
            continue
        with suppress(OSError):  # another run may be removing it
            entry = read_entry(path)
            stamp = entry_file(path) if entry else path
            listed.append(Thing(path, entry.bytes if entry else size_of(path), stamp.stat().st_mtime))
    return sorted(listed, key=lambda thing: thing.used)


def surplus(listed: Iterable[Thing], limit: float, is_old: Callable[[Thing], bool]) -> Iterator[Thing]:
    """Yield what to remove of `listed`: what is old, and of the rest what was used longest ago until it takes no more
    than `limit` bytes."""
    listed = list(listed)
    left = sum(thing.bytes for thing in listed if not is_old(thing))
    for thing in listed:
        if is_old(thing):
            yield thing
        elif left > limit:
            left -= thing.bytes
            yield thing


def remove(chosen: Iterable[Thing]) -> list[Thing]:
    """Remove things that no process is making or has used meanwhile; return those that were removed."""
    removed = []
    for thing in chosen:
        with suppress(OSError, BusyError), locked(lock_file(thing.path), f"remove {thing.path}", 0.0):
            stamp = entry_file(thing.path)
            if not stamp.exists() or stamp.stat().st_mtime <= thing.used:
                discard(thing.path)
                removed.append(thing)
    return removed


def bound(begin: float) -> list[Thing]:
    """Keep the cache under its limit, at the end of a run that began at `begin`; return what was removed."""
    yesterday = time.time() - DAY
    chosen = surplus(
        things(cache_dir()),
        limit_bytes(),
        lambda thing: thing.kind in SHORT_LIVED and thing.used < yesterday,
    )
    return remove(thing for thing in chosen if thing.used < min(begin, yesterday))


def sweep(root: Path) -> None:
    """Remove what killed runs have left half-made: a free lock shows that no process is making it."""
    rooms = [(path, path.with_name(path.name[1:].rpartition(".")[0])) for path in root.glob("*/.*")]
    folders = [*root.glob("tmp/*"), *(f for f in root.glob("environments/*") if not entry_file(f).exists())]
    for path, thing in [*rooms, *((folder, folder) for folder in folders)]:
        with suppress(OSError, BusyError):
            unlocked = path != thing and path.parent.name not in LOCKED
            if unlocked and path.stat().st_mtime > time.time() - DAY:
                continue
            with locked(lock_file(thing), f"remove {path}", 0.0):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
