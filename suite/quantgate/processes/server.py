"""A process that imports libraries once and then forks itself for each job, so that starting a job costs no imports.

A server may be any interpreter's process. It loads no model and holds no more than its imports. The jobs of one server
share where libraries and heap lie in memory; processes whose spread is to be measured come from several servers.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from quantgate.paths import import_root
from quantgate.processes.warden import guarded, stop


class Server:
    """Forks a process for each job, one at a time. Starts with the first job, and again after it has ended.

    command: runs `quantgate.processes.fork.serve` when `--serve DESCRIPTOR` is added to it. threads: of the jobs'
    numeric libraries; None: the user's own setting.
    """

    def __init__(self, command: Sequence[str], threads: int | None = None) -> None:
        self._command = [*command, "--serve"]
        self._threads = threads
        self.imported: set[str] = set()
        """What the latest job had it import."""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._loading = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def load(self, modules: Sequence[str], log: Path) -> None:
        """Begin to import `modules` before there is a job, so that several servers can do so at the same time: call
        `wait` for each of them. An import that fails is reported when the server is given a job."""
        if not self._alive() or set(modules) != self.imported:
            self.send("", modules, log)
            self._loading = True

    def wait(self, timeout: float) -> None:
        """Wait until `load` is done; end a server that has failed or takes longer than `timeout` seconds."""
        if self._loading and self._control is not None:
            self._control.settimeout(timeout)
            try:
                answer = self._control.recv(64)
            except OSError:
                answer = b""
            self._control.settimeout(None)
            if not answer:
                self.close()
        self._loading = False

    def send(self, file: str, modules: Sequence[str], log: Path, *descriptors: int) -> socket.socket:
        """Give the server, started if necessary, a job's file, or (empty) only modules to import.

        modules: are imported first; a server that has imported any others is replaced. log: takes what the job prints.
        descriptors: go to the job. Returns the connection on which progress arrives, and an answer when the job has
        ended.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            control = self._connection(output.fileno(), set(modules))
            message = os.fsencode("\0".join([file, *modules]))
            # Where the server has ended, the caller sees so when it waits for the answer.
            with suppress(BrokenPipeError):
                socket.send_fds(control, [message], [output.fileno(), *descriptors])
        return control

    def exit_status(self, timeout: float) -> int:
        """Wait for a server that has closed its connection; return its exit status, or minus the number of the signal
        that killed it. Raises TimeoutError."""
        assert self._process is not None
        try:
            return self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def close(self) -> None:
        """Kill the server and everything that it has forked."""
        if self._process is not None:
            stop(self._process)
        if self._control is not None:
            self._control.close()
        self._process = self._control = None
        self.imported = set()
        self._loading = False

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _connection(self, output: int, modules: set[str]) -> socket.socket:
        """Return the connection with a server that has imported nothing but some of `modules`. A server that is started
        for it prints to `output`."""
        if not self._alive() or self._control is None or not self.imported <= modules:
            self.close()
            # Messages keep their boundaries, and each side sees the end of the other: unix(7).
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
        self.imported = modules
        return self._control


_FOR_TESTS = re.compile(
    r"COV_CORE_\w+|COVERAGE_PROCESS_\w+|PYTEST_CURRENT_TEST"
    r"|PYTHON(?:WARNINGS|DEVMODE|OPTIMIZE|TRACEMALLOC|INSPECT|VERBOSE|DEBUG|PROFILEIMPORTTIME)"
)
"""Variables that are meant for the process of the tests. In one that measures, coverage would trace each call, warnings
that are errors would end imports of large libraries, and a debugging interpreter takes more time and memory."""


def environment(threads: int | None) -> dict[str, str]:
    """Return the variables of a process that computes with `threads` threads; None: the user's own setting. With its
    PYTHONPATH any interpreter imports this engine, whatever folder it is started in."""
    variables = {name: value for name, value in os.environ.items() if not _FOR_TESTS.fullmatch(name)}
    folders = [Path(part).absolute() for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    variables["PYTHONPATH"] = os.pathsep.join(map(str, dict.fromkeys([import_root(), *folders])))
    if threads:
        variables["OMP_NUM_THREADS"] = str(threads)
    return variables
