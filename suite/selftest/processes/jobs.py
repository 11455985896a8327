"""Jobs for the tests of processes: makers of `selftest.makers`, run to their end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from quantgate.errors import ProcessError
from quantgate.jobs import Preparation
from quantgate.machine.environment import WORKER
from quantgate.processes.isolate import Assignment, run_together, write_job
from quantgate.processes.progress import OnProgress, ignore_progress
from quantgate.processes.server import Server

LIMITS = (0.5, 3.0, 30.0)
"""Seconds, each for a job that had not begun at the limit before."""


def preparation(folder: Path, maker: str, **arguments: Any) -> Preparation:
    """Return a job for one of `selftest.makers`."""
    return Preparation(
        title="a test", maker=f"selftest.makers:{maker}", arguments=arguments, output=folder / "made"
    )


def start(
    folder: Path, maker: str, *, timeout: float = 600, on_progress: OnProgress = ignore_progress,
    threads: int | None = None, **arguments: Any,
) -> Path:  # fmt: skip
    """Run a maker in a process with a server of its own; return the path of what it makes."""
    with Server(WORKER, threads) as server:
        return run(
            server, folder, maker, timeout=timeout, on_progress=on_progress, log="logs/a.log", **arguments
        )


def run(
    server: Server, folder: Path, maker: str, *, timeout: float = 600, on_progress: OnProgress = ignore_progress,
    modules: Sequence[str] = (), log: str = "a.log", **arguments: Any,
) -> Path:  # fmt: skip
    """Have a server run a maker; return the path of what it makes."""
    job = preparation(folder, maker, **arguments)
    file = write_job(job.model_dump_json(), folder / log)
    run_together([Assignment(server, file, folder / log, on_progress, modules)], timeout=timeout)
    return job.output


def facts(
    server: Server, folder: Path, maker: str = "dump", modules: Sequence[str] = (), **arguments: Any
) -> Any:
    """Have a server run a maker that writes JSON; return what it wrote."""
    return json.loads(run(server, folder, maker, modules=modules, **arguments).read_text())


def failure(server: Server, folder: Path, maker: str, **arguments: Any) -> str:
    """Return the error of a maker that fails."""
    with pytest.raises(ProcessError) as caught:
        run(server, folder, maker, **arguments)
    return str(caught.value)


def given_up(server: Server, folder: Path, maker: str, begun: Callable[[str], bool], **arguments: Any) -> str:
    """Return the error of a job that does not end, at the first of the time limits within which it had begun, as
    `begun` says of its error: half a second is enough on most machines, at most times."""
    for limit in LIMITS:
        error = failure(server, folder, maker, timeout=limit, **arguments)
        assert error.startswith(f"took longer than its time limit of {limit:g} s: raise `time_limit`")
        if begun(error):
            return error
    raise AssertionError(error)


def ends(pid: int) -> bool:
    """Return whether a process ends within a minute; a dead one that nobody has waited for counts as ended."""
    end = time.monotonic() + 60
    while not has_ended(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def has_ended(pid: int) -> bool:
    """Return whether a process has ended by now."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def pids(file: Path) -> list[int]:
    """Return the numbers of processes that a maker wrote."""
    return [int(word) for word in file.read_text().split()]
