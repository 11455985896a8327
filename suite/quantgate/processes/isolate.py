"""Jobs, each in a process of its own: forked for it, ended after it, killed when it takes too long.

The process is forked by a server, which has imported what its jobs need: starting one then costs no imports. A server
is an interpreter's own process (`quantgate.measure.worker --serve`), which need not be this interpreter. It loads
no model, and
holds no more than its imports. What is forked by one server shares where libraries and heap lie in memory; processes
that shall stand for each other's spread come from several servers.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from quantgate.errors import MeasurementError
from quantgate.files import write_atomic
from quantgate.paths import import_root
from quantgate.processes.ends import explained, tail
from quantgate.processes.warden import guarded, stop
from quantgate.records import Job, Preparation, Record

WORKER = (sys.executable, "-m", "quantgate.measure.worker")
OnProgress = Callable[[str, float, float], None]


def unheard(phase: str, done: float, total: float) -> None:
    """For whom the end is enough."""


class Server:
    """Forks a process for each job, one at a time. Started when the first job comes, and anew when it has ended.

    command: starts it. threads: of what it forks; None: the user's own setting.
    """

    def __init__(self, command: Sequence[str] = WORKER, threads: int | None = None) -> None:
        self._command = [*command, "--serve"]
        self._threads = threads
        self._imported: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._loading = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(
        self,
        job: Job | Preparation,
        log: Path,
        *,
        timeout: float,
        on_progress: OnProgress = unheard,
        modules: Sequence[str] = (),
    ) -> None:
        """Run `job` to its end, as `run_together` does."""
        run_together([Task(self, job, log, on_progress, modules)], timeout=timeout)

    def ended(self, timeout: float) -> int:
        """How the server ended, which closed its connection: exit status, or minus the number of a signal. Raises
        TimeoutError."""
        assert self._process is not None
        try:
            return self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def load(self, modules: Sequence[str], log: Path) -> None:
        """Import `modules` before there is a job, so that several servers do so side by side: `wait` for each of them.
        One that fails says why when it is given a job."""
        if self._alive() and set(modules) == self._imported:
            return
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.send("", modules, output.fileno(), output.fileno())
        self._loading = True

    def wait(self, timeout: float) -> None:
        """Until `load` is done; a server that takes longer than `timeout` seconds, or has failed, is ended."""
        if self._loading and self._control is not None:
            self._control.settimeout(timeout)
            try:
                done = self._control.recv(64)
            except OSError:
                done = b""
            if done:
                self._control.settimeout(None)
            else:
                self.close()
        self._loading = False

    def send(self, file: str, modules: Sequence[str], output: int, *descriptors: int) -> socket.socket:
        """Tell the server, started where there is none, of a job or (no file) of modules alone. The connection on which
        it answers; what is printed goes to `output`, and `descriptors` are for the job."""
        control = self._running(output, set(modules))
        with suppress(BrokenPipeError):  # whoever waits for an answer sees that the server has ended
            socket.send_fds(control, [os.fsencode("\0".join([file, *modules]))], [output, *descriptors])
        return control

    def close(self) -> None:
        """Kill the server and what it has forked."""
        if self._process is not None:
            stop(self._process)
        if self._control is not None:
            self._control.close()
        self._process = self._control = None
        self._imported = set()
        self._loading = False

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _running(self, output: int, modules: set[str]) -> socket.socket:
        """The connection with a server that has imported nothing but of `modules`; one that is started now prints to
        `output`."""
        if not self._alive() or self._control is None or not self._imported <= modules:
            self.close()
            # Messages are kept apart, and the end of the one side is seen by the other: unix(7).
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    guarded([*self._command, str(theirs.fileno())]),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=import_root(),
                    env=environment(self._threads),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        self._imported = modules
        return self._control


@dataclass(frozen=True)
class Task:
    """A job for a server.

    log: takes whatever the job prints. modules: what the server imports first, unless it has done so; one that has
    imported anything else is replaced. What is not to be forked once it is imported, such as CUDA, is left to the job.
    place: where the job runs, in words; the beginning of its error.
    """

    server: Server
    job: Job | Preparation
    log: Path
    on_progress: OnProgress = unheard
    modules: Sequence[str] = ()
    place: str = ""

    def file(self) -> Path:
        """Where the job now stands, for its process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        file = self.log.with_name(f"{self.log.stem}~job.json")  # no scheme has such a name
        write_atomic(file, self.job.model_dump_json(indent=1).encode())
        return file

    def failed(self, why: str) -> MeasurementError:
        """With the last lines of the log."""
        return MeasurementError(f"{self.place}{why}{tail(self.log)}")


def run_together(tasks: Sequence[Task], *, timeout: float) -> None:
    """Run the jobs of different servers at the same time, all to their end; two of them work in turns
    (`quantgate.processes.turns`).

    Raises MeasurementError of the first that failed, saying why (exit status, signal, time-out) with the last lines of
    its log; the others are killed first. On any exception, Ctrl-C included, all processes, their children and their
    servers are.
    """
    for task in tasks:
        task.server.wait(timeout)
    deadline = time.monotonic() + timeout
    running: list[_Running] = []
    try:
        with ExitStack() as stack:
            for task, turns in zip(tasks, stack.enter_context(_connection(len(tasks))), strict=True):
                running.append(stack.enter_context(_started(task, turns)))
            # Only the two processes hold it now: each sees when the other has ended.
            failed = _follow(running, deadline)
    except TimeoutError:
        _close(tasks)
        late = next((one.task for one in running if not one.ended), tasks[0])
        raise late.failed(f"took longer than its time limit of {timeout:g} s") from None
    except BaseException:
        _close(tasks)
        raise
    if failed is not None:
        one, status = failed
        _close([other.task for other in running if not other.ended])
        raise MeasurementError(f"{one.task.place}{explained(status, one.task.log)}")


def _close(tasks: Sequence[Task]) -> None:
    for task in tasks:
        task.server.close()


@contextmanager
def _connection(count: int) -> Iterator[list[socket.socket | None]]:
    """For each of two processes its end; none for a single one."""
    if count == 1:
        yield [None]
        return
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield [one, other]


PIPE, READ = 2**20, 2**16
"""Bytes that a pipe holds at most (proc(5), pipe-max-size), and that are read at once."""
LONGEST_LINE = 2**16


class Event(Record):
    """A line of progress."""

    phase: str
    done: float
    total: float


@dataclass(eq=False)
class _Running:
    """A task whose job a server has been given. progress: where it tells how far it is."""

    task: Task
    control: socket.socket
    progress: int
    ended: bool = False
    _pending: bytes = b""

    def hear(self, said: bool, deadline: float) -> int | None:
        """Hand progress lines on. How the process ended, if that was `said`: exit status, or minus the number of a
        signal."""
        try:
            end = self.control.recv(64) if said else None
        except ConnectionResetError:  # the server ended before it had read the job
            end = b""
        # Whatever the process wrote before its end was said is in the pipe by now, which holds no more than this.
        with suppress(BlockingIOError):
            for _ in range(PIPE // READ):
                self._pending += os.read(self.progress, READ)
        *lines, self._pending = self._pending.split(b"\n")
        if len(self._pending) > LONGEST_LINE:
            raise self._garbled(self._pending)
        for line in lines:
            try:
                event = Event.model_validate_json(line)
            except ValidationError:
                raise self._garbled(line) from None
            self.task.on_progress(event.phase, event.done, event.total)
        if end is None:
            return None
        return int(end) if end else self.task.server.ended(deadline - time.monotonic())

    def _garbled(self, line: bytes) -> MeasurementError:
        start = f"{line[:60]!r}{'...' if len(line) > 60 else ''}"
        return self.task.failed(
            f"something in it wrote {start} to the pipe of its progress (descriptor in QUANTGATE_PROGRESS_FD), which "
            "takes lines of JSON alone"
        )


@contextmanager
def _started(task: Task, turns: socket.socket | None) -> Iterator[_Running]:
    """Give the server the job, and with it the end of a connection, which is closed here."""
    file = task.file()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        with task.log.open("wb") as output:
            partner = [turns.fileno()] if turns else []
            control = task.server.send(str(file), task.modules, output.fileno(), writer, *partner)
        if turns:
            turns.close()
        yield _Running(task, control, reader)
    finally:
        os.close(reader)
        os.close(writer)


def run_isolated(
    job: Job | Preparation,
    log: Path,
    *,
    timeout: float,
    on_progress: OnProgress = unheard,
    threads: int | None = None,
    command: Sequence[str] = WORKER,
) -> None:
    """Run `job` with a server of its own; see `run_together`."""
    with Server(command, threads) as server:
        server.run(job, log, timeout=timeout, on_progress=on_progress)


def python_path() -> str:
    """With which any interpreter imports this suite."""
    return os.pathsep.join(filter(None, [str(import_root()), os.environ.get("PYTHONPATH")]))


def environment(threads: int | None) -> dict[str, str]:
    """Of a process that measures with so many threads (None: the user's own setting)."""
    variables = {**os.environ, "PYTHONPATH": python_path()}
    if threads:
        variables["OMP_NUM_THREADS"] = str(threads)
    return variables


def _follow(running: Sequence[_Running], deadline: float) -> tuple[_Running, int] | None:
    """Wait until all have ended well, or one has not: which, and how. Raises TimeoutError at `deadline`."""
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
            for one, said in ready.items():
                status = one.hear(said, deadline)
                if status is None:
                    continue
                one.ended = True
                if status != 0:
                    return one, status
                for source in (one.control, one.progress):
                    selector.unregister(source)
    return None
