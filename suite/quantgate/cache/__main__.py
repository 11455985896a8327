"""`python -m quantgate.cache`: list what the cache holds, and remove what is no longer needed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from quantgate.cache.prune import DAY, Thing, remove, surplus, things
from quantgate.commands import WRONG_INPUT, Parser, run_command
from quantgate.paths import cache_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """List, or remove."""
    parser = Parser("python -m quantgate.cache", description=__doc__)
    add = parser.add_argument
    add("--older-than", type=float, metavar="DAYS", help="remove entries that were not used for so many days")
    add(
        "--max-size",
        type=float,
        metavar="GB",
        help="remove the least recently used entries until the rest fits",
    )
    add("--dry-run", action="store_true", help="only say what would be removed")
    options = parser.parse_args(arguments)
    for name in ("older_than", "max_size"):
        value = getattr(options, name)
        if value is not None and not value >= 0:
            print(f"--{name.replace('_', '-')} {value}: must be 0 or more", file=sys.stderr)
            return WRONG_INPUT
    root = cache_dir()
    listed = things(root)
    if options.older_than is None and options.max_size is None:
        _print(listed)
        print(f"{_size(listed)} in {root}")
        return 0
    limit = math.inf if options.max_size is None else options.max_size * 1e9
    oldest = -math.inf if options.older_than is None else time.time() - options.older_than * DAY
    chosen = list(surplus(listed, limit, lambda thing: thing.used < oldest))
    removed = chosen if options.dry_run else remove(chosen)
    _print(removed)
    word = "would be removed" if options.dry_run else "removed"
    print(f"{word}: {len(removed)}, {_size(removed)} of {root}")
    if busy := len(chosen) - len(removed):
        print(f"left, as they are in use or cannot be removed: {busy}")
    return 0


def _size(listed: Iterable[Thing]) -> str:
    return f"{sum(thing.bytes for thing in listed) / 1e9:,.3f} GB"


def _print(listed: Iterable[Thing]) -> None:
    for thing in listed:
        day = datetime.fromtimestamp(thing.used).astimezone().strftime("%Y-%m-%d %H:%M")
        print(f"{_size([thing]):>14}  used {day}  {thing.kind}/{thing.path.name}")


if __name__ == "__main__":
    run_command(main)
