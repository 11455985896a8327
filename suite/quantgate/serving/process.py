"""A model server as a process of this one: started on a free port, waited for, ended with all that it has started."""

from __future__ import annotations

import atexit
import ipaddress
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psutil

from quantgate.errors import MeasurementError
from quantgate.processes.warden import guarded, stop
from quantgate.serving.client import without_key
from quantgate.serving.programs import program, why_missing

HOST = "127.0.0.1"
"""Nobody else can reach a server that listens there."""
KEPT = 400
"""Lines of a server's output that are kept."""
TAIL, SHOWN = 6, 240
"""Lines of them that an error shows, and characters: the last ones, which say most."""
LOOK = 0.5
"""Seconds between two looks at its memory."""
STEP = 0.05
"""Seconds between two looks at a server that is starting."""


def filled(command: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Return a command with its placeholders (`{port}`) replaced; braces around anything else stay."""
    words = []
    for word in command:
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", str(value))
        words.append(word)
    return words


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _anonymous(process: psutil.Process) -> int:
    """Return the anonymous resident memory of a process, in bytes; 0 where it has ended. `shared` counts the pages of
    files and of shared memory, and resident are these and the anonymous ones (proc(5), statm)."""
    with suppress(psutil.NoSuchProcess):
        memory = process.memory_info()
        return int(memory.rss - memory.shared)
    return 0


def _last(text: str) -> str:
    """Return the end of a text that is too long for a message."""
    return text if len(text) <= SHOWN else f"... {text[-SHOWN:]}"


class ModelServer:
    """A started server. What it prints goes to this process's stdout, too; it ends with this process, however that
    ends. command: as `filled` takes it; the server has to listen on `HOST`. key: left out of what is printed."""

    def __init__(self, command: Sequence[str], values: Mapping[str, object], key: str = "") -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._key = key
        words = filled(command, {**values, "port": self.port})
        self._program = words[0]
        if missing := why_missing(words[0]):
            raise MeasurementError(missing)
        self._process = subprocess.Popen(
            guarded([str(program(words[0])), *words[1:]]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.peak_memory = 0
        """Bytes: the most anonymous memory that its processes had together, looked at each `LOOK` seconds; what they
        share after a fork counts in each."""
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        atexit.register(self.close)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for raw in output:
                line = without_key(raw.decode(errors="replace").rstrip(), self._key)
                self.lines.append(line)
                with suppress(OSError, ValueError):  # a stdout that is closed
                    print(line, file=sys.__stdout__, flush=True)

    def _watch(self) -> None:
        while not self._closed.wait(LOOK):
            self.peak_memory = max(self.peak_memory, sum(map(_anonymous, self.processes())))

    def why_ended(self, seconds: float = STEP) -> str:
        """Say that the server has ended, how, and what it printed last; empty: it runs for so many seconds."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return ""
        self._reader.join(1.0)
        how = f"exit status {status}" if status >= 0 else f"signal {-status}"
        last = _last(" | ".join(line.strip() for line in list(self.lines)[-TAIL:] if line.strip()))
        return f"the server {self._program} has ended with {how}{f'; its last lines: {last}' if last else ''}"

    def wait(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until the server is ready. Raises MeasurementError: it ended before, or is not ready in time."""
        begin = time.monotonic()
        while not is_ready():
            if ended := self.why_ended():  # waits for a moment, too
                raise MeasurementError(f"not ready: {ended}")
            if time.monotonic() - begin > seconds:
                last = _last(self.lines[-1].strip()) if self.lines else "nothing"
                raise MeasurementError(
                    f"the server {self._program} is not ready after {seconds:g} s (start_limit of its scheme); it "
                    f"printed last: {last}"
                )

    def processes(self) -> list[psutil.Process]:
        """Return the processes that the server is made of."""
        with suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self._process.pid).children(recursive=True))
        return []

    def processor_seconds(self) -> float:
        """Return the processor seconds of its processes so far."""
        seconds = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def check_local(self) -> None:
        """Raise MeasurementError where the server listens on an address that others can reach."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                for one in process.net_connections(kind="tcp"):
                    listens = one.status == psutil.CONN_LISTEN
                    if listens and not ipaddress.ip_address(one.laddr.ip).is_loopback:
                        raise MeasurementError(
                            f"the server {self._program} listens on {one.laddr.ip}, where others can reach it: have it "
                            f"listen on {HOST} (--host {HOST} in the command of its scheme)"
                        )

    def close(self) -> None:
        """End the server and all that it has started; return when they are gone."""
        self._closed.set()
        if self._process.poll() is None:
            stop(self._process)
        self._reader.join(1.0)
        atexit.unregister(self.close)
