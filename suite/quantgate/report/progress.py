"""Live progress while cells are measured: which cell, which phase, how far, for how long.

On a terminal this is one line *below* the cursor, wiped when the cell ends. Not `rich.live`, which draws on the
cursor's own line, where pytest has usually written half of its line (`suite/test_perplexity.py ..`), and hides the
cursor. Here the cursor stays visible and in its place, whatever interrupts.
Elsewhere (a CI log) it is a plain line when a cell starts and one when it ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from quantgate.words import clean, duration

BELOW = "\x1bD\x1b[A\x1b7\x1b[B\r\x1b[K"
"""Make sure that there is a line below, save the cursor, go to that line and wipe it."""
BACK = "\x1b8"
TICK = 1.0
"""Seconds between drawings without an event, so that the time goes on."""


@dataclass
class _Running:
    """The cell that is being measured. share: how much of the present phase is done."""

    cell: str
    begin: float
    phase: str = ""
    share: float = 0.0


class Progress:
    """Show the progress of a run of `total` cells (which may be set until the first one starts) in `file`.

    Under pytest, take a duplicate of descriptor 1 in `pytest_configure`: in a fixture it is captured.
    fresh_line: called before a line that stays, to end a line that somebody else has begun.
    """

    def __init__(
        self,
        file: TextIO,
        total: int,
        clock: Callable[[], float] = time.monotonic,
        tick: float = TICK,
        fresh_line: Callable[[], None] = lambda: None,
    ) -> None:
        self._file, self.total, self._clock, self._tick = file, total, clock, tick
        self._fresh_line = fresh_line
        self._live = file.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")
        self._numbers: dict[str, int] = {}
        """By cell, in the order of their start; a cell that is measured again keeps its number."""
        self._running: _Running | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def close(self) -> None:
        """Stop drawing, wipe the line and leave the cursor where it was."""
        if self._ticker:
            self._stop.set()
            self._ticker.join()
            self._ticker = None
        with self._lock:
            if self._running and self._live:
                self._write(BELOW + BACK)
            self._running = None

    @contextmanager
    def measuring(self, cell: str, groups: Sequence[str]) -> Iterator[None]:
        """Show a cell while the block measures its metric groups."""
        begin, outcome = self._clock(), "error"
        self.start(cell, ["load", *groups])
        try:
            yield
            outcome = "measured"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            self.finish(cell, self._clock() - begin, outcome)

    def of_process(self, cell: str, number: int, count: int) -> Callable[[str, float, float], None]:
        """Return what takes the events of process `number` of `count`: from the second on, phases are `memory 2/3`."""
        place = f" {number + 1}/{count}" if number else ""
        return lambda phase, done, total: self.event(cell, phase + place, done, total)

    def start(self, cell: str, phases: Sequence[str]) -> None:
        """Begin a cell."""
        self._begin(cell)
        if not self._live:
            names = f" ({', '.join(phases)})" if phases else ""
            self.note(f"cell {self._place(cell)} {cell}: started{names}")

    def waiting(self, cell: str, done: int, total: int) -> None:
        """Show a cell that is waited for while others measure it and the rest of the run."""
        if self._running is None or self._running.cell != cell:
            self._begin(cell)
        self.event(cell, f"{done} of {total} cells measured", done, total)

    def _begin(self, cell: str) -> None:
        self.close()
        self._numbers.setdefault(cell, len(self._numbers) + 1)
        self._running = _Running(cell, self._clock())
        if self._live:
            self._stop.clear()
            self._ticker = threading.Thread(target=self._keep_drawing, daemon=True)
            self._ticker.start()

    def event(self, cell: str, phase: str, done: float, total: float) -> None:
        """Take note of how far the present phase of the cell's process is."""
        with self._lock:
            if self._running is None or self._running.cell != cell:
                return  # a late line of a process that was given up
            self._running.phase = phase
            self._running.share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        self._draw()

    def preparation(self, phase: str, done: float, total: float) -> None:
        """Take note of how far a preparation for the running cell is (a download, a checkpoint)."""
        if (running := self._running) is not None:
            self.event(running.cell, phase, done, total)

    def finish(self, cell: str, seconds: float, outcome: str) -> None:
        """End a cell; also one that was never started, because its record is reused."""
        if self._running is not None and self._running.cell == cell:
            self.close()
        self._numbers.setdefault(cell, len(self._numbers) + 1)
        if not self._live:
            took = f" ({duration(seconds)})" if seconds else ""
            self.note(f"cell {self._place(cell)} {cell}: {outcome}{took}")

    def note(self, text: str) -> None:
        """Write a line that stays."""
        self._fresh_line()
        with self._lock:
            if self._running and self._live:
                self._write(BELOW + BACK)
            self._write(f"{' '.join(clean(text).split())}\n")
        self._draw()

    def _place(self, cell: str) -> str:
        return f"{self._numbers[cell]}/{max(self.total, len(self._numbers))}"

    def _keep_drawing(self) -> None:
        self._draw()
        while not self._stop.wait(self._tick):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._live and self._running:
                self._write(BELOW + self._line(self._running) + BACK)

    def _line(self, running: _Running) -> str:
        """Return the line, cut to the width of the terminal: a longer one would wrap and could not be wiped."""
        phase = f"{running.phase or 'starting'} {running.share * 100:.0f} %"
        line = f"{phase}, {duration(self._clock() - running.begin)}"
        try:  # the terminal behind the file: under pytest's capture, stdout is something else
            width = os.get_terminal_size(self._file.fileno()).columns - 1
        except (OSError, ValueError):
            width = 79
        for name in (running.cell, running.cell.partition("/")[2] or running.cell):
            text = clean(f"[{self._place(running.cell)}] {name} {line}")
            if len(text) <= width:
                break
        return text[:width]

    def _write(self, text: str) -> None:
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._file.write(text.encode(encoding, "replace").decode(encoding))  # "?" rather than an exception
        self._file.flush()
