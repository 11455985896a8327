"""Runs `python -m MODULE` in a process that is forked from one that has imported pytest and the engine: a real process
with an environment and an exit status of its own, without the second of imports that each of a hundred would take."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import NoReturn

import pytest

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTS = [
    __name__,
    "selftest.templates",
    "selftest.installed",
    *(f"_pytest.{name}" for name in ("junitxml", "terminal", "logging", "pastebin", "skipping")),
    *(f"quantgate.{name}" for name in ("plugin.wiring", "plugin.case", "plugin.finish", "plugin.screen")),
    *(f"quantgate.proofs.papers.{name}" for name in ("section", "expected")),
    *(
        "scipy.special",
        "gguf.constants",
        "jinja2",
        "tomlkit",
        "rich.console",
        "rich.table",
    ),  # imported where used
]
"""What the process imports that all others are forked from; no module whose `assert` statements pytest rewrites."""
PATH = tuple(sys.path)
"""Of an interpreter that was just started, in the forked processes."""


class Forked:
    """A started process; what it prints is collected."""

    def __init__(self, process: multiprocessing.context.ForkServerProcess, output: Connection) -> None:
        self._process = process
        self._printed: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=[output], daemon=True)
        self._reader.start()

    def _read(self, output: Connection) -> None:
        with os.fdopen(os.dup(output.fileno()), "rb") as file:
            output.close()
            self._printed.extend(iter(lambda: file.read1(), b""))

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def finish(self, limit: float) -> tuple[int, str]:
        """Wait for its end; return the exit status, or minus the number of a signal, and all that it printed.

        Raises TimeoutError after `limit` seconds, and kills it then.
        """
        try:
            self._process.join(limit)
            if self._process.exitcode is None:
                raise TimeoutError(f"process {self.pid} took longer than {limit} s")
        finally:
            self._process.kill()
            self._process.join()
            self._reader.join(10)  # what it has left running may still hold the other end
        return self._process.exitcode, b"".join(self._printed).decode()


def start(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    fresh: bool = False,
) -> Forked:
    """Start `python -m MODULE` in a folder. fresh: by a new interpreter, which reads variables such as PYTHONPATH."""
    get_temp_dir()  # of multiprocessing's socket: not below the TMPDIR of this environment
    # The first call starts the process that others are forked from.
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        CONTEXT.set_forkserver_preload(IMPORTS)
        forkserver.ensure_running()
    reader, writer = CONTEXT.Pipe(duplex=False)
    job = (module, list(arguments), folder, dict(environment), fresh, writer)
    process = CONTEXT.Process(target=_run, args=job, daemon=True)
    process.start()
    writer.close()
    return Forked(process, reader)


def _run(
    module: str,
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    fresh: bool,
    output: Connection,
) -> NoReturn:
    os.chdir(folder)
    gc.freeze()  # pytest collects garbage ten times at its end: not among all that was imported before
    # As from a terminal: what a shell starts in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    if fresh:
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [str(folder), *PATH]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)
