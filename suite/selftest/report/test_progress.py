"""Progress: plain in a log; on a terminal one line that leaves nothing behind."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.report.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

CELL = "smollm2-135m/llamacpp/Q4_K_M"
WIPED = "\x1b[B\r\x1b[K\x1b8"
PHASES = ["load", "perplexity", "memory"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """A terminal of 80 columns that understands what a VT100 does of what we send."""

    def __init__(self, height: int = 6) -> None:
        super().__init__()
        self.lines = [""] * height
        self.row = self.column = 0
        self.saved = (0, 0)
        self.seen: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b(?:\[[0-9?;]*[A-Za-z]|.)|[^\x1b]", text):
            self._take(part)
        self.seen.append("\n".join(self.lines))
        return super().write(text)

    def _take(self, part: str) -> None:
        if part in ("\n", "\x1bD"):
            self.column = 0 if part == "\n" else self.column
            if self.row == len(self.lines) - 1:
                self.lines = [*self.lines[1:], ""]
            else:
                self.row += 1
        elif part == "\r":
            self.column = 0
        elif part == "\x1b[A":
            self.row = max(0, self.row - 1)
        elif part == "\x1b[B":
            self.row = min(len(self.lines) - 1, self.row + 1)
        elif part == "\x1b[K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif part == "\x1b7":
            self.saved = (self.row, self.column)
        elif part == "\x1b8":
            self.row, self.column = self.saved
        else:
            assert not part.startswith("\x1b"), f"unknown sequence {part!r}"
            assert self.column < 80, "the line wraps"
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
            self.column += 1


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_cell(progress: Progress, clock: Clock, cell: str = CELL) -> None:
    """Ten seconds of loading, thirty of perplexity, twenty of memory."""
    progress.start(cell, PHASES)
    for phase, seconds in zip(PHASES, (10, 30, 20), strict=True):
        for done in range(2):
            progress.event(cell, phase, done, 2)
            clock.now += seconds / 2
    progress.finish(cell, 60, "measured")


def shown(file: Screen) -> str:
    """The last status line that was drawn."""
    screens = [screen for screen in file.seen if "[" in screen]
    return next(line for line in reversed(screens[-1].splitlines()) if "[" in line)


def test_a_log_gets_one_line_at_the_start_and_one_at_the_end(clock: Clock) -> None:
    file = io.StringIO()
    with closing(Progress(file, 3, clock)) as progress:
        run_cell(progress, clock)
        progress.note("a note\x1b[31m")
        progress.finish("m/b/reused", 0, "reused")
        run_cell(progress, clock, "m/b/last")
    assert file.getvalue().splitlines() == [
        f"cell 1/3 {CELL}: started (load, perplexity, memory)",
        f"cell 1/3 {CELL}: measured (1 min 00 s)",
        "a note",
        "cell 2/3 m/b/reused: reused",
        "cell 3/3 m/b/last: started (load, perplexity, memory)",
        "cell 3/3 m/b/last: measured (1 min 00 s)",
    ]


@pytest.mark.parametrize(("raised", "outcome"), [(KeyboardInterrupt, "interrupted"), (OSError, "error")])
def test_an_interrupt_is_no_error_of_its_cell(
    clock: Clock, raised: type[BaseException], outcome: str
) -> None:
    file = io.StringIO()
    progress = Progress(file, 1, clock)
    with pytest.raises(raised), progress.measuring(CELL, ["perplexity"]):
        raise raised
    assert file.getvalue().splitlines()[-1] == f"cell 1/1 {CELL}: {outcome}"


def test_a_log_gets_no_control_characters(clock: Clock) -> None:
    file = io.StringIO()
    with closing(Progress(file, 1, clock)) as progress:
        run_cell(progress, clock, "m/b/\x1b[31m\r\x07s")
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", file.getvalue()) == []


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_gets_the_plain_lines(
    term: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    file = Screen()
    with closing(Progress(file, 1, clock)) as progress:
        run_cell(progress, clock)
    assert "\x1b" not in file.getvalue()


def test_a_terminal_shows_cell_phase_share_and_time(clock: Clock) -> None:
    file = Screen()
    with closing(Progress(file, 4, clock)) as progress:
        run_cell(progress, clock, "m/b/first")
        progress.start(CELL, PHASES)
        clock.now += 10
        progress.event(CELL, "perplexity", 0, 4)
        clock.now += 10
        progress.event(CELL, "perplexity", 1, 4)
        assert shown(file) == f"[2/4] {CELL} perplexity 25 %, 20 s"


def test_a_cell_that_is_measured_again_keeps_its_number(clock: Clock) -> None:
    file = io.StringIO()
    with closing(Progress(file, 2, clock)) as progress:
        for cell in ("m/b/1", "m/b/2", "m/b/1"):
            run_cell(progress, clock, cell)
    assert [line.split()[1] for line in file.getvalue().splitlines()[::2]] == ["1/2", "2/2", "1/2"]


def test_a_narrow_terminal_loses_the_model(clock: Clock) -> None:
    file = Screen()
    with closing(Progress(file, 4, clock)) as progress:
        cell = f"{'m' * 60}/llamacpp/Q4_K_M"
        progress.start(cell, PHASES)
        progress.event(cell, "perplexity", 1, 2)
        assert shown(file) == "[1/4] llamacpp/Q4_K_M perplexity 50 %, 0 s"


def test_a_terminal_is_left_as_it_was(clock: Clock) -> None:
    """At the bottom of the screen too, where drawing below makes it scroll."""
    file = Screen(height=3)
    file.write("one\ntwo\nsuite/test_perplexity.py ..")
    with closing(Progress(file, 2, clock)) as progress:
        run_cell(progress, clock)
        assert any(CELL in screen for screen in file.seen)
        assert "".join(file.lines).endswith("suite/test_perplexity.py ..")
        file.write(".")
        run_cell(progress, clock)
    file.write(".\n")
    assert "\n".join(file.lines).strip() == "two\nsuite/test_perplexity.py ...."


def test_an_interrupt_wipes_the_line_and_the_cursor_was_never_hidden(clock: Clock) -> None:
    file = Screen()
    file.write("here ")
    with pytest.raises(KeyboardInterrupt), closing(Progress(file, 2, clock)) as progress:  # noqa: PT012
        progress.start(CELL, PHASES)
        progress.event(CELL, "load", 1, 2)
        raise KeyboardInterrupt
    assert (file.row, file.column) == (0, 5)
    assert "".join(file.lines) == "here "
    assert "\x1b[?25l" not in file.getvalue()


def test_a_note_stays_on_a_terminal(clock: Clock) -> None:
    file = Screen()
    with closing(Progress(file, 2, clock)) as progress:
        progress.start(CELL, PHASES)
        progress.note("measuring again")
        progress.finish(CELL, 1, "measured")
    assert "".join(file.lines) == "measuring again"


def test_odd_events_do_no_harm(clock: Clock) -> None:
    file = Screen()
    with closing(Progress(file, 1, clock)) as progress:
        progress.event(CELL, "load", 1, 2)
        progress.start(CELL, [])
        progress.event("other/cell/x", "load", 1, 2)
        assert "load" not in file.getvalue()
        progress.event(CELL, "x" * 200, 5, 2)
        progress.event(CELL, "unplanned", 1, 0)
        progress.event(CELL, "unplanned", -1, 2)
    assert "".join(file.lines) == ""


def test_the_times_go_on_between_events() -> None:
    file = Screen()
    with closing(Progress(file, 1, tick=0.01)) as progress:
        progress.start(CELL, PHASES)
        before = len(file.seen)
        for _ in range(200):
            if len(file.seen) > before + 3:
                break
            time.sleep(0.01)
    assert len(file.seen) > before + 3


def test_a_file_that_lacks_a_character_gets_a_question_mark(clock: Clock) -> None:
    binary = io.BytesIO()
    with closing(Progress(io.TextIOWrapper(binary, encoding="ascii"), 1, clock)) as progress:
        progress.start("modèle/b/s", [])
    assert binary.getvalue() == b"cell 1/1 mod?le/b/s: started\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, Any]]:
    """A real pseudo terminal of 200 columns: the descriptor to read from, the file to write to."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    with os.fdopen(slave, "w") as file:
        yield master, file
    os.close(master)


def test_the_width_is_that_of_the_terminal_behind_the_file(terminal: tuple[int, Any], clock: Clock) -> None:
    master, file = terminal
    cell = f"model/{'b' * 60}/{'s' * 60}"
    with closing(Progress(file, 1, clock)) as progress:
        progress.start(cell, PHASES)
        progress.event(cell, "load", 1, 2)
    output = ""
    while not output.endswith(WIPED) and select.select([master], [], [], 2)[0]:
        output += os.read(master, 100_000).decode()
    assert f"[1/1] {cell} load 50 %, 0 s\x1b8" in output
    assert output.endswith(WIPED)
