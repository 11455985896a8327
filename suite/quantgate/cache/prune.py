"""The size of the cache: `python -m quantgate.cache.prune` lists what is in it and removes what is not needed any more.

A run removes at its end what was used longest ago, until all fits under QUANTGATE_CACHE_LIMIT (gigabytes; 50). What any
run has used in the last day, and what this one has used however long ago it began, stays.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from quantgate.cache.kept import ENTRIES, discard, entry_file, read_entry, size_of
from quantgate.commands import Parser
from quantgate.errors import InputError
from quantgate.locks import BusyError, locked
from quantgate.paths import ENGINES, cache_dir

VARIABLE = "QUANTGATE_CACHE_LIMIT"
DEFAULT = 50.0
"""Gigabytes."""
DAY = 24 * 3600.0
SHORT = {"logprobs": DAY}
"""Kinds that are removed when nobody has used them for so many seconds, whatever the limit: each change of a library
makes new ones, of gigabytes."""
INTERNAL = (ENGINES, ENTRIES, "locks", "tmp", "wheels")


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
    """What QUANTGATE_CACHE_LIMIT allows. Raises InputError."""
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text or DEFAULT)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise InputError(f"{VARIABLE}={text!r}: is no number of gigabytes; write {VARIABLE}={DEFAULT:g}")
    return limit * 1e9


def things(root: Path) -> list[Thing]:
    """All that the cache keeps, what was used longest ago first."""
    listed = []
    for kind in root.iterdir() if root.is_dir() else ():
        for path in kind.iterdir() if kind.is_dir() and kind.name not in INTERNAL else ():
            with suppress(OSError):  # another run may be removing it
                if not path.name.startswith("."):
                    entry = read_entry(path)
                    stamp = entry_file(path) if entry else path
                    listed.append(Thing(path, entry.bytes if entry else size_of(path), stamp.stat().st_mtime))
    return sorted(listed, key=lambda thing: thing.used)


def too_many(listed: Iterable[Thing], limit: float, before: float, now: float) -> Iterator[Thing]:
    """Which of `listed` (in order of use) to remove, so that they take no more than `limit` bytes: only what was used
    `before` that time. Short-lived kinds go in any case."""
    listed = list(listed)
    left = sum(thing.bytes for thing in listed)
    for thing in listed:
        old = thing.used < now - SHORT.get(thing.kind, math.inf)
        if thing.used < before and (left > limit or old):
            left -= thing.bytes
            yield thing


def remove(chosen: Iterable[Thing]) -> list[Thing]:
    """Remove things that nobody makes or has used meanwhile; those that were removed."""
    removed = []
    for thing in chosen:
        lock = thing.path.parent.parent / "locks" / f"{thing.path.name}.lock"
        with suppress(OSError, BusyError), locked(lock, f"remove {thing.path}", 0.0):
            stamp = entry_file(thing.path)
            if not stamp.exists() or stamp.stat().st_mtime <= thing.used:
                discard(thing.path)
                removed.append(thing)
    return removed


def bound(begin: float) -> list[Thing]:
    """Keep the cache under its limit, at the end of a run that began at `begin`; what was removed."""
    now = time.time()
    return remove(too_many(things(cache_dir()), limit_bytes(), min(begin, now - DAY), now))


def sweep(root: Path) -> None:
    """Remove what a killed run has left half-made: what nobody is making, as its lock is free."""
    rests = [(folder, folder.name) for folder in (root / "tmp").glob("*")]
    for kind in ("checkpoints", "workloads", "calibration", "logprobs", "budgets"):
        rests += [(rest, rest.name[1:].rpartition(".")[0]) for rest in (root / kind).glob(".*")]
    rests += [
        (folder, f"environment-{folder.name}")
        for folder in (root / "environments").glob("*")
        if not (folder / ".complete").exists()
    ]
    for path, name in rests:
        with suppress(OSError, BusyError):
            # The logits of a reference are written by a process that holds no lock: they are left for a day.
            if path.parent.name in ("logprobs", "budgets") and path.stat().st_mtime > time.time() - DAY:
                continue
            with locked(root / "locks" / f"{name}.lock", f"remove {path}", 0.0):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """List, or remove."""
    parser = Parser("python -m quantgate.cache.prune", description=__doc__, formatter_class=_Formatter)
    add = parser.add_argument
    add("--older-than", type=float, metavar="DAYS", help="remove what was not used for so long")
    add("--max-size", type=float, metavar="GB", help="remove what was used longest ago, until the rest fits")
    add("--dry-run", action="store_true", help="only say what would be removed")
    options = parser.parse_args(arguments)
    for name in ("older_than", "max_size"):
        value = getattr(options, name)
        if value is not None and not value >= 0:
            print(f"--{name.replace('_', '-')} {value}: must be 0 or more", file=sys.stderr)
            return 4
    root, now = cache_dir(), time.time()
    listed = things(root)
    if options.older_than is None and options.max_size is None:
        _table(listed)
        print(f"{_gigabytes(sum(thing.bytes for thing in listed))} in {root}")
        return 0
    chosen: list[Thing] = []
    if options.older_than is not None:
        chosen = [thing for thing in listed if thing.used < now - options.older_than * DAY]
    if options.max_size is not None:
        rest = [thing for thing in listed if thing not in chosen]
        left = sum(thing.bytes for thing in rest)
        for thing in rest:
            if left > options.max_size * 1e9:
                chosen.append(thing)
                left -= thing.bytes
    removed = chosen if options.dry_run else remove(chosen)
    _table(removed)
    word = "would be removed" if options.dry_run else "removed"
    print(f"{word}: {len(removed)}, {_gigabytes(sum(thing.bytes for thing in removed))} of {root}")
    if busy := len(chosen) - len(removed):
        print(f"left, as they are in use or cannot be removed: {busy}")
    return 0


class _Formatter(argparse.RawDescriptionHelpFormatter):
    pass


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3f} GB"


def _table(listed: Iterable[Thing]) -> None:
    for thing in listed:
        day = datetime.fromtimestamp(thing.used).astimezone().strftime("%Y-%m-%d %H:%M")
        print(f"{_gigabytes(thing.bytes):>14}  used {day}  {thing.kind}/{thing.path.name}")


if __name__ == "__main__":
    sys.exit(main())
