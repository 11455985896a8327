"""Live progress while cells are measured: which, which phase, how far, how long still.

On a terminal, one line *below* the cursor, wiped when the cell ends. Not `rich.live`: that one draws on
the cursor's own line, where pytest has usually written half of its (`suite/test_perplexity.py ..`), and
hides the cursor meanwhile. Here the cursor stays visible and where it was, whatever interrupts.
Elsewhere (a CI log), a plain line when a cell starts and one when it ends.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TextIO

from quantgate.words import clean, duration

if TYPE_CHECKING:
    from collections.abc import Callable

BELOW = "\x1bD\x1b[A\x1b7\x1b[B\r\x1b[K"
"""Make sure that there is a line below, remember the place, go to that line and wipe it."""
BACK = "\x1b8"
BAR = 12
"""Characters of the bar."""
TICK = 1.0
"""Seconds between drawings when no event comes in, so that the times go on."""


@dataclass
class _Running:
    """The cell that is measured now."""

    cell: str
    phases: list[str]
    begin: float
    phase: str = ""
    phase_begin: float = 0.0
    share: float = 0.0
    """Of the present phase."""
    took: dict[str, float] = field(default_factory=dict)
    """Seconds of the phases that ended."""


class Progress:
    """Shows the progress of a run of `total_cells` cells in `file`, and nowhere else.

    Under pytest, take a duplicate of descriptor 1 in `pytest_configure`: in a fixture it is captured.
    fresh_line: called before a line that stays, to end one that someone else has begun.
    """

    def __init__(
        self,
        file: TextIO,
        total_cells: int,
        clock: Callable[[], float] = time.monotonic,
        tick: float = TICK,
        fresh_line: Callable[[], None] = lambda: None,
    ) -> None:
        self._file = file
        self.total = total_cells
        """Cells of the run; may be set until the first one starts."""
        self._clock = clock
        self._tick = tick
        self._fresh_line = fresh_line
        self._live = file.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")
        self._numbers: dict[str, int] = {}
        """In the order of their coming; a cell that is measured again keeps its number."""
        self._running: _Running | None = None
        self._seconds: list[float] = []
        self._phases: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing and wipe the line."""
        self._end()

    def start(self, cell: str, planned_phases: list[str]) -> None:
        """A cell's process starts."""
        self._end()
        self._numbers.setdefault(cell, len(self._numbers) + 1)
        now = self._clock()
        self._running = _Running(cell, list(planned_phases), begin=now, phase_begin=now)
        if self._live:
            self._stop.clear()
            self._ticker = threading.Thread(target=self._keep_drawing, daemon=True)
            self._ticker.start()
        else:
            kinds = dict.fromkeys(
                phase.partition(" ")[0] for phase in planned_phases
            )  # of `memory 2/3`: memory
            phases = f" ({', '.join(kinds)})" if kinds else ""
            self.note(f"cell {self._place(cell)} {cell}: started{phases}")

    def event(self, cell: str, phase: str, done: float, total: float) -> None:
        """The cell's process says how far its present phase is."""
        with self._lock:
            running = self._running
            if running is None or running.cell != cell:
                return  # a late line of a process that was given up
            now = self._clock()
            if phase != running.phase:
                if running.phase:
                    running.took[running.phase] = now - running.phase_begin
                running.phase, running.phase_begin = phase, now
            running.share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        self._draw()

    def preparation(self, phase: str, done: float, total: float) -> None:
        """What is made for the running cell (a download, a checkpoint) says how far it is."""
        if (running := self._running) is not None:
            self.event(running.cell, phase, done, total)

    def finish(self, cell: str, seconds: float, outcome: str) -> None:
        """The cell's process ended; also for a cell that was never started, since its record is reused."""
        running = self._running
        if running is not None and running.cell == cell:
            self._end()
            self._learn(running, seconds)
        self._numbers.setdefault(cell, len(self._numbers) + 1)
        if not self._live:
            took = f" ({duration(seconds)})" if seconds else ""
            left = self._run_left() if len(self._numbers) < self.total else None
            rest = f", about {duration(left)} left" if left else ""
            self.note(f"cell {self._place(cell)} {cell}: {outcome}{took}{rest}")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._fresh_line()
        with self._lock:
            if self._running and self._live:
                self._write(BELOW + BACK)
            self._write(f"{' '.join(clean(text).split())}\n")
        self._draw()

    def _place(self, cell: str) -> str:
        return f"{self._numbers[cell]}/{max(self.total, len(self._numbers))}"

    def _end(self) -> None:
        """No cell runs any more: the line is wiped, whatever follows finds the cursor where it was."""
        if self._ticker:
            self._stop.set()
            self._ticker.join()
            self._ticker = None
        with self._lock:
            if self._running and self._live:
                self._write(BELOW + BACK)
            self._running = None

    def _learn(self, running: _Running, seconds: float) -> None:
        """What later estimates rest on."""
        self._seconds.append(seconds)
        if running.phase:
            running.took[running.phase] = self._clock() - running.phase_begin
        for phase, took in running.took.items():
            self._phases.setdefault(phase, []).append(took)

    def _cell_left(self, running: _Running) -> float | None:
        """From the pace of this phase and what the next ones took in earlier cells; None: cannot say."""
        elapsed = self._clock() - running.phase_begin
        expected = {phase: sum(took) / len(took) for phase, took in self._phases.items()}
        if running.share > 0:
            left = elapsed / running.share * (1 - running.share)
        elif running.phase in expected:
            left = max(0.0, expected[running.phase] - elapsed)
        else:
            return None
        here = running.phases.index(running.phase) if running.phase in running.phases else -1
        coming = running.phases[here + 1 :]
        if any(phase not in expected for phase in coming):
            return None
        return left + sum(expected[phase] for phase in coming)

    def _run_left(self) -> float | None:
        """Of the run: the rest of this cell, and the mean cell for each that is still to come."""
        if not self._seconds:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        left = mean * max(0, self.total - len(self._numbers))
        if self._running:
            cell = self._cell_left(self._running)
            left += max(0.0, mean - (self._clock() - self._running.begin)) if cell is None else cell
        return left

    def _keep_drawing(self) -> None:
        self._draw()
        while not self._stop.wait(self._tick):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._live and self._running:
                self._write(BELOW + self._line(self._running) + BACK)

    def _line(self, running: _Running) -> str:
        """As much as fits into one line of the terminal; a longer one would wrap and could not be wiped."""
        place, label = f"[{self._place(running.cell)}]", running.cell.partition("/")[2] or running.cell
        phase = f"{running.phase or 'starting'} {running.share:4.0%}"
        full = round(running.share * BAR)
        bar = f"[{'#' * full}{'.' * (BAR - full)}]"
        cell, run = self._cell_left(running), self._run_left()
        times = duration(self._clock() - running.begin)
        times += f", {duration(cell)} left" if cell is not None else ""
        times += f", run {duration(run)} left" if run is not None else ""
        width = self._width()
        for words in ((place, running.cell, phase, bar, times), (place, label, phase, bar, times)):
            if len(line := clean(" ".join(words))) <= width:
                return line
        return clean(f"{place} {label} {phase} {times}")[:width]

    def _width(self) -> int:
        """Of the terminal behind the file: under pytest's capture, stdout is something else."""
        try:
            return os.get_terminal_size(self._file.fileno()).columns - 1
        except (OSError, ValueError):
            return 79

    def _write(self, text: str) -> None:
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._file.write(text.encode(encoding, "replace").decode(encoding))  # "?" rather than an exception
        self._file.flush()
