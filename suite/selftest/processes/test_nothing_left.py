"""Nothing of a job stays when it ends, is given up, or loses its server or parent."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from quantgate.errors import ProcessError
from quantgate.paths import import_root
from quantgate.processes.server import Server

from selftest.processes.jobs import ends, facts, given_up, has_ended, pids, run, start


def interrupt(phase: str, done: float, total: float) -> None:
    """As Ctrl-C, which arrives wherever the parent is: it waits for progress most of the time."""
    if phase == "sleeping":
        raise KeyboardInterrupt


@pytest.mark.parametrize("maker", ["leave_child", "leave_fork", "leave_daemon"])
def test_what_a_job_leaves_running_is_ended_with_it(shared: Server, tmp_path: Path, maker: str) -> None:
    """A forked copy holds the connection open; it is not waited for either. A daemon has a session and no parent."""
    assert all(has_ended(process) for process in pids(run(shared, tmp_path, maker)))
    facts(shared, tmp_path / "next")


def test_a_server_of_its_own_ends_with_its_job(tmp_path: Path) -> None:
    children = psutil.Process().children()
    assert all(ends(process) for process in pids(start(tmp_path, "leave_daemon")))
    assert psutil.Process().children() == children


@pytest.mark.parametrize("end", ["time limit", "Ctrl-C"])
def test_a_job_that_is_given_up_ends_with_its_children_and_its_server_and_the_next_one_is_done(
    shared: Server, tmp_path: Path, end: str
) -> None:
    before = facts(shared, tmp_path / "before")["parent"]
    if end == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            run(shared, tmp_path, "sleep_forever", on_progress=interrupt)
    else:
        given_up(shared, tmp_path, "sleep_forever", lambda error: "    | gone to sleep" in error)
    assert all(ends(process) for process in (before, *pids(tmp_path / "made")))
    assert facts(shared, tmp_path / "after")["parent"] != before


def test_a_time_limit_counts_while_modules_are_imported(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    code = "import os, time; print('importing', os.getpid(), flush=True); time.sleep(600)"
    facts(server, tmp_path / "before")  # it has started
    error = given_up(server, tmp_path, "dump", lambda error: "importing" in error, modules=module(code))
    importing = re.search(r"importing (\d+)", error)
    assert importing is not None
    assert ends(int(importing[1]))


def test_endless_progress_does_not_outlast_the_time_limit(shared: Server, tmp_path: Path) -> None:
    arrived: list[str] = []

    def follow(phase: str, done: float, total: float) -> None:
        arrived.append(phase)

    message = '{"phase": "a", "done": 0, "total": 1}'
    arguments = {"on_progress": follow, "text": message, "times": 10**9}
    given_up(shared, tmp_path, "write_progress", lambda _: "a" in arrived, **arguments)


def test_a_server_that_has_ended_is_replaced(shared: Server, tmp_path: Path) -> None:
    first = facts(shared, tmp_path / "1")["parent"]
    warden = psutil.Process(first).ppid()
    psutil.Process(first).kill()
    assert ends(first)
    assert ends(warden)
    assert facts(shared, tmp_path / "2")["parent"] != first


def test_a_server_that_is_killed_takes_its_process_with_it(shared: Server, tmp_path: Path) -> None:
    def kill(phase: str, done: float, total: float) -> None:
        if phase == "sleeping":
            worker, _ = pids(tmp_path / "made")
            psutil.Process(worker).parent().send_signal(signal.SIGKILL)

    with pytest.raises(ProcessError, match="was killed by SIGKILL"):
        run(shared, tmp_path, "sleep_forever", on_progress=kill)
    assert all(ends(process) for process in pids(tmp_path / "made"))
    assert facts(shared, tmp_path / "next")["process"]


def test_a_killed_parent_takes_the_process_with_it(tmp_path: Path) -> None:
    code = "import sys, pathlib, selftest.processes.jobs as jobs; "
    code += "jobs.start(pathlib.Path(sys.argv[1]), 'sleep_forever')"
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=import_root())
    made = tmp_path / "made"
    end = time.monotonic() + 600
    while not (made.exists() and len(pids(made)) == 2) and time.monotonic() < end:
        time.sleep(0.02)
    worker, child = pids(made)
    server = psutil.Process(worker).ppid()
    warden = psutil.Process(server).ppid()
    parent.kill()
    parent.wait()
    assert all(ends(process) for process in (warden, server, worker, child))
