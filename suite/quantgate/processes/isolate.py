"""Run a job in a process of its own, or two jobs side by side, within a time limit; leave nothing running."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from quantgate.errors import ProcessError
from quantgate.files import write_atomic
from quantgate.processes.ends import explain, tail
from quantgate.processes.progress import GarbledError, OnProgress, Reader, ignore_progress
from quantgate.processes.server import Server

PIPE, READ = 2**20, 2**16
"""Bytes that a pipe holds at most (proc(5), pipe-max-size), and that are read at once."""


@dataclass(frozen=True)
class Assignment:
    """A job that a server is given.

    file: the job, as its process reads it. log: takes whatever the job prints. modules: what the server imports first;
    one that has imported anything else is replaced. What must not be forked after its import, such as CUDA, is left to
    the job. place: where the job runs, in words; the beginning of its error.
    """

    server: Server
    file: Path
    log: Path
    on_progress: OnProgress = ignore_progress
    modules: Sequence[str] = ()
    place: str = ""

    def error(self, why: str) -> ProcessError:
        """Return the error of this job, with the last lines of its log."""
        return ProcessError(f"{self.place}{why}{tail(self.log)}")


def write_job(text: str, log: Path) -> Path:
    """Write a job's file beside the log that its process is going to write, and return its path."""
    file = log.with_name(f"{log.stem}~job.json")  # a scheme's name has no `~`
    write_atomic(file, text.encode())
    return file


def run_isolated(
    file: Path,
    log: Path,
    *,
    command: Sequence[str],
    timeout: float,
    on_progress: OnProgress = ignore_progress,
    threads: int | None = None,
) -> None:
    """Run one job with a server of its own; see `run_together`."""
    with Server(command, threads) as server:
        run_together([Assignment(server, file, log, on_progress)], timeout=timeout)


def run_together(assignments: Sequence[Assignment], *, timeout: float) -> None:
    """Run the jobs of different servers at the same time, all to their end; two jobs take turns
    (`quantgate.processes.turns`).

    timeout: seconds for all of them. Raises ProcessError for the first job that fails, with the reason (exit status,
    signal, time limit) and the last lines of its log; the others are killed first. On any exception, Ctrl-C included,
    all processes, their children and their servers are killed.
    """
    for assignment in assignments:
        assignment.server.wait(timeout)
    deadline = time.monotonic() + timeout
    running: list[_Running] = []
    try:
        with ExitStack() as stack:
            for assignment, turns in zip(
                assignments, stack.enter_context(_connection(len(assignments))), strict=True
            ):
                running.append(stack.enter_context(_started(assignment, turns)))
            # Only the two processes hold their connection now, so each sees when the other has ended.
            failed = _follow(running, deadline)
    except TimeoutError:
        _close(assignments)
        late = next((one.assignment for one in running if not one.ended), assignments[0])
        raise late.error(f"took longer than its time limit of {timeout:g} s") from None
    except BaseException:
        _close(assignments)
        raise
    if failed is not None:
        one, status = failed
        _close([other.assignment for other in running if not other.ended])
        raise ProcessError(f"{one.assignment.place}{explain(status, one.assignment.log)}")


def _close(assignments: Sequence[Assignment]) -> None:
    for assignment in assignments:
        assignment.server.close()


@contextmanager
def _connection(count: int) -> Iterator[list[socket.socket | None]]:
    """Yield each of two processes' end of their connection; None for a single process."""
    if count == 1:
        yield [None]
        return
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield [one, other]


@dataclass(eq=False)
class _Running:
    """An assignment that its server has begun. control: the connection on which the server reports the job's end.
    progress: the pipe that the job writes progress to."""

    assignment: Assignment
    control: socket.socket
    progress: int
    ended: bool = False
    _reader: Reader = field(default_factory=Reader)

    def read(self, has_answer: bool, deadline: float) -> int | None:
        """Hand progress on. Return the exit status (minus the number of a signal) if the job has ended, which is when
        the server's connection has an answer. Raises ProcessError, and TimeoutError at `deadline`."""
        try:
            answer = self.control.recv(64) if has_answer else None
        except ConnectionResetError:  # the server ended before it had read the job
            answer = b""
        # All that the process wrote before its end is in the pipe by now, which holds no more than this.
        data = b""
        with suppress(BlockingIOError):
            for _ in range(PIPE // READ):
                data += os.read(self.progress, READ)
        self._hand_on(data)
        if answer is None:
            return None
        return int(answer) if answer else self.assignment.server.exit_status(deadline - time.monotonic())

    def _hand_on(self, data: bytes) -> None:
        try:
            for event in self._reader.feed(data):
                self.assignment.on_progress(event.phase, event.done, event.total)
        except GarbledError as error:
            raise self.assignment.error(
                f"something in it wrote {error} to the pipe of its progress (descriptor in QUANTGATE_PROGRESS_FD), "
                "which takes lines of JSON alone"
            ) from None


@contextmanager
def _started(assignment: Assignment, turns: socket.socket | None) -> Iterator[_Running]:
    """Give the server the job, and with it one end of the connection of two jobs, which is closed here."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        assignment.log.parent.mkdir(parents=True, exist_ok=True)
        with assignment.log.open("wb") as output:
            partner = [turns.fileno()] if turns else []
            control = assignment.server.send(
                str(assignment.file), assignment.modules, output.fileno(), writer, *partner
            )
        if turns:
            turns.close()
        yield _Running(assignment, control, reader)
    finally:
        os.close(reader)
        os.close(writer)


def _follow(running: Sequence[_Running], deadline: float) -> tuple[_Running, int] | None:
    """Wait until all jobs have ended well, or return the first that has not and its status. Raises TimeoutError at
    `deadline`."""
    with selectors.DefaultSelector() as selector:
        for one in running:
            for source in (one.control, one.progress):
                selector.register(source, selectors.EVENT_READ, one)
        while any(not one.ended for one in running):
            ready: dict[_Running, bool] = {}
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                ready[key.data] = ready.get(key.data, False) or key.fileobj is key.data.control
            if not ready or time.monotonic() > deadline:
                raise TimeoutError
            for one, has_answer in ready.items():
                status = one.read(has_answer, deadline)
                if status is None:
                    continue
                one.ended = True
                if status != 0:
                    return one, status
                for source in (one.control, one.progress):
                    selector.unregister(source)
    return None
