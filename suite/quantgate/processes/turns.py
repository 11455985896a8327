"""Two measuring processes that live at the same time and work in turns: while one times a round, the other sleeps.

A machine that others use changes its speed from second to second. Rounds of the two that follow one another within
fractions of a second met nearly the same machine, and in their ratio its speed cancels; in that of two processes that
run one after the other it does not (randomized blocks: Fisher, The Design of Experiments, 1935, chapter 4).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable

DESCRIPTOR = "QUANTGATE_TURNS_FD"
"""Environment variable of a process that works in turns: its end of the connection with the other one."""
_MESSAGE = struct.Struct("dd")
STILL = 0.005
"""Seconds of rest after a turn: threads of OpenMP libraries go on spinning for some milliseconds when their work is
done. As long again, and at most `_LONGEST` in all, while the process still uses the processor."""
_LONGEST = 0.1


class Turns:
    """The turns of one process; without a partner, every turn is its.

    partner: connection with the other process, which keeps messages apart. first: whether this process begins the first
    turn and the other ends it; the other begins the next one, and so on: neither always follows.
    """

    def __init__(self, partner: socket.socket | None = None, first: bool = True) -> None:
        self._partner = partner
        self._first = first
        self.waited = 0.0
        """Seconds in which it was the other's turn."""
        self.aside = 0.0
        """Processor seconds of the other process in all, as of its latest message."""

    @property
    def shared(self) -> bool:
        """Whether there is another process, as far as is known."""
        return self._partner is not None

    def meet(self) -> None:
        """Wait until both are here."""
        self._send(0.0)
        self._receive()

    def take(self, work: Callable[[], float]) -> tuple[float, float]:
        """Take one turn: both processes do their work, one after the other. Return what `work` returned here (seconds),
        and there: the same, where there is no other process, or it has ended."""
        theirs = None if self._first else self._receive()
        mine = work()
        self._send(mine)
        if self._first:
            theirs = self._receive()
        self._first = not self._first
        return mine, mine if theirs is None else theirs

    def _send(self, seconds: float) -> None:
        if self._partner is None:
            return
        _rest()
        try:
            self._partner.send(_MESSAGE.pack(seconds, time.process_time()))
        except (BrokenPipeError, ConnectionResetError):
            self._go_on_alone(self._partner)

    def _receive(self) -> float | None:
        if self._partner is None:
            return None
        begin = time.monotonic()
        try:
            message = self._partner.recv(_MESSAGE.size)
        except ConnectionResetError:
            message = b""
        self.waited += time.monotonic() - begin
        if not message:
            self._go_on_alone(self._partner)
            return None
        seconds, self.aside = _MESSAGE.unpack(message)
        return float(seconds)

    def _go_on_alone(self, partner: socket.socket) -> None:
        """Go on without the other process. It had less to do, or it failed; then the parent ends this one."""
        partner.close()
        self._partner = None


def inherited(first: bool) -> Turns:
    """Return the turns of a process that was given a connection (`DESCRIPTOR`), or has none to share."""
    descriptor = os.environ.get(DESCRIPTOR)
    return Turns(socket.socket(fileno=int(descriptor)) if descriptor else None, first)


def _rest() -> None:
    """Sleep until this process has left the processor."""
    end = time.monotonic() + _LONGEST
    while True:
        before = time.process_time()
        time.sleep(STILL)
        if time.process_time() - before < STILL / 5 or time.monotonic() > end:
            return
