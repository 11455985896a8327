"""Programs that take turns by signals: each runs for some hundredths of a second while the others are stopped.

A shared machine changes its speed within tenths of a second: two programs that run one after the other met different
machines, and two that take short turns met the same one. For a program that is stopped time stands still: the clocks
that it reads go on where they were (`stopped_clock.cpp`, preloaded).
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from suite.run.fork import end_with_parent

SLICE = 0.03
"""Seconds of a turn: many to a second, and long beside what it costs to stop and to go on."""


@dataclass(frozen=True)
class Program:
    """What is run, and where its output and its log go (the same file may take both). ready: descriptor of an empty
    file, to which it writes (`QUANTGATE_PROGRESS_FD`) when it begins its work: until then it runs alone, so that what
    others do meanwhile is the same work. A pipe that nobody empties would stop it one day."""

    command: Sequence[str]
    environment: Mapping[str, str]
    output: Path
    log: Path
    ready: int | None = None


@dataclass(frozen=True)
class Ended:
    """Exit status (minus the number of a signal), and seconds from start to end, without those in which it was
    stopped."""

    status: int
    seconds: float


def take_turns(programs: Sequence[Program], clock: Path, *, timeout: float) -> list[Ended]:
    """Run all programs to their end; one that is left goes on alone.

    clock: the library made of `stopped_clock.cpp`. Raises TimeoutError after `timeout` seconds; on any exception all
    are killed first.
    """
    deadline = time.monotonic() + timeout
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = [
            stack.enter_context(_started(program, clock, folder / str(number)))
            for number, program in enumerate(programs)
        ]
        for program, one in zip(programs, running, strict=True):
            while program.ready is not None and not one.ended and not os.fstat(program.ready).st_size:
                if time.monotonic() > deadline:
                    raise TimeoutError
                one.run(SLICE)
        order = list(running)
        while order := [one for one in reversed(order) if not one.ended]:  # none always follows the other
            if time.monotonic() > deadline:
                raise TimeoutError
            for one in order:
                one.run(SLICE if len(order) > 1 else max(0.0, deadline - time.monotonic()))
        return [one.ended for one in running if one.ended]


@dataclass
class _Running:
    """A program that is stopped, but for its turns."""

    process: subprocess.Popen[bytes]
    end: int
    """Becomes readable when the process ends, see pidfd_open(2)."""
    counter: mmap.mmap
    since: int
    """When it was stopped, in nanoseconds of the monotonic clock."""
    ended: Ended | None = None
    _stopped: int = 0
    _began: int = field(default_factory=time.monotonic_ns)

    def run(self, seconds: float) -> None:
        """Its turn."""
        self._stopped += time.monotonic_ns() - self.since
        self.counter[:] = struct.pack("q", self._stopped)
        os.kill(self.process.pid, signal.SIGCONT)
        over, _, _ = select.select([self.end], [], [], seconds)
        if over:
            ran = time.monotonic_ns() - self._began - self._stopped
            self.ended = Ended(self.process.wait(), ran / 1e9)
        else:
            self.stop()

    def stop(self) -> None:
        """Wait until all of its threads stand still (or it has ended)."""
        os.kill(self.process.pid, signal.SIGSTOP)
        found = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if found and found.si_code == os.CLD_STOPPED:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        self.since = time.monotonic_ns()


@contextmanager
def _started(program: Program, clock: Path, counter: Path) -> Iterator[_Running]:
    counter.write_bytes(struct.pack("q", 0))
    preload = filter(None, [str(clock), program.environment.get("LD_PRELOAD")])
    with (
        counter.open("r+b") as shared,
        mmap.mmap(shared.fileno(), 8) as page,
        program.output.open("wb") as output,
        program.log.open("ab" if program.log == program.output else "wb") as log,
    ):
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env={
                **program.environment,
                "LD_PRELOAD": os.pathsep.join(preload),
                "QUANTGATE_STOPPED": str(counter),
                **({} if program.ready is None else {"QUANTGATE_PROGRESS_FD": str(program.ready)}),
            },
            pass_fds=() if program.ready is None else (program.ready,),
            preexec_fn=end_with_parent,  # what is stopped would else stay so for good
        )
        end = os.pidfd_open(process.pid)
        try:
            one = _Running(process, end, page, time.monotonic_ns())
            one.stop()
            yield one
        finally:
            os.close(end)
            process.kill()
            process.wait()
