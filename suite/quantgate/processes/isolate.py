"""Run a job in a process of its own, or two jobs side by side, within a time limit; leave nothing running."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from pydantic import ValidationError

from quantgate.errors import ProcessError
from quantgate.files import write_atomic
from quantgate.processes.ends import explain, tail
from quantgate.processes.progress import MESSAGE, VARIABLE, End, OnProgress, ignore_progress
from quantgate.processes.server import Server

LONGEST = 2**16
"""Bytes of a message; a longer one is cut off, and is no JSON then."""


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


def run_together(assignments: Sequence[Assignment], *, timeout: float) -> None:
    """Run the jobs of different servers at the same time, all to their end; two jobs take turns
    (`quantgate.processes.turns`).

    timeout: seconds for all of them. Raises ProcessError for the first job that fails, with the reason (exit status,
    signal, time limit) and the last lines of its log. On any exception, Ctrl-C included, all jobs that have not ended,
    their children and their servers are killed first.
    """
    for assignment in assignments:
        assignment.server.wait(timeout)
    deadline = time.monotonic() + timeout
    running = list(assignments)
    try:
        for assignment, status in _ends(_start(assignments), deadline):
            running.remove(assignment)
            if status != 0:
                raise ProcessError(f"{assignment.place}{explain(status, assignment.log)}")
    except BaseException as error:
        for assignment in running:
            assignment.server.close()
        if isinstance(error, TimeoutError):
            why = f"took longer than its time limit of {timeout:g} s: raise `time_limit` of the tier, or measure less"
            raise running[0].error(why) from None
        raise


def _start(assignments: Sequence[Assignment]) -> dict[socket.socket, Assignment]:
    """Give each server its job, and return the connections on which they report."""
    with ExitStack() as stack:
        partners: list[list[int]] = [[] for _ in assignments]
        if len(assignments) == 2:
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Afterwards only the two processes hold their connection, so each sees when the other has ended.
            partners = [[stack.enter_context(end).fileno()] for end in pair]
        return {
            one.server.send(str(one.file), one.modules, one.log, *partner): one
            for one, partner in zip(assignments, partners, strict=True)
        }


def _ends(running: dict[socket.socket, Assignment], deadline: float) -> Iterator[tuple[Assignment, int]]:
    """Yield each job when it has ended, with its exit status (minus the number of a signal); hand progress on until
    then. Raises ProcessError, and TimeoutError at `deadline`."""
    while running:
        ready = wait(list(running), max(0.0, deadline - time.monotonic()))
        if not ready or time.monotonic() > deadline:
            raise TimeoutError
        for control in ready:
            assert isinstance(control, socket.socket)
            status = _read(control, running[control], deadline)
            if status is not None:
                yield running.pop(control), status


def _read(control: socket.socket, assignment: Assignment, deadline: float) -> int | None:
    """Read one message: hand progress on, or return the exit status of a job that has ended."""
    try:
        data = control.recv(LONGEST)
    except ConnectionResetError:  # the server ended before it had read the job
        data = b""
    if not data:
        return assignment.server.exit_status(deadline - time.monotonic())
    try:
        message = MESSAGE.validate_json(data)
    except ValidationError:
        beginning = f"{data[:60]!r}{'...' if len(data) > 60 else ''}"
        raise assignment.error(
            f"something in it wrote {beginning} to the socket of its progress (descriptor in {VARIABLE}), "
            "which takes only messages in JSON"
        ) from None
    if isinstance(message, End):
        return message.status
    assignment.on_progress(message.phase, message.done, message.total)
    return None
