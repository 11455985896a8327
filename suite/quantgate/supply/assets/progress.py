"""Progress of a fetch: bars on a terminal, a line at start and end elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called as (text, done, total), in bytes; total 0 makes `text` a message to show once."""


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Yield a function that shows bars on stderr if that is a terminal, else messages alone, one line each."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None if total else print(text, file=sys.stderr, flush=True)
        return
    from rich import progress as bars  # here, since most runs find everything in the cache
    from rich.console import Console

    text_column = bars.TextColumn("{task.description}", markup=False)
    columns = (text_column, bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn())
    tasks: dict[str, bars.TaskID] = {}
    console = Console(stderr=True)
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console, transient=True) as shown:

        def show(text: str, done: int, total: int) -> None:
            if not total:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif text in tasks:
                shown.update(tasks[text], completed=done, total=total)
            else:
                tasks[text] = shown.add_task(text, completed=done, total=total)

        yield show
