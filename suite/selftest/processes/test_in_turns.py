"""Two processes that work in turns: in order, and together until one of them fails or both are given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from quantgate.errors import ProcessError
from quantgate.machine.environment import WORKER
from quantgate.processes.isolate import Assignment, run_together, write_job
from quantgate.processes.progress import OnProgress, ignore_progress
from quantgate.processes.server import Server

from selftest.processes.jobs import LIMITS, ends, facts, pids, preparation

Pair = tuple[Server, Server]


@pytest.fixture
def pair(shared: Server, second: Server, tmp_path: Path) -> Pair:
    """Two servers that have started."""
    for server in (shared, second):
        facts(server, tmp_path / "start")
    return shared, second


@pytest.fixture(scope="module")
def second() -> Iterator[Server]:
    with Server(WORKER) as server:
        yield server


def in_turns(
    pair: Pair, folder: Path, ending: dict[str, str], *, timeout: float = 600,
    on_progress: OnProgress = ignore_progress,
) -> None:  # fmt: skip
    """Have two processes, `old` and `new`, write into one book in turns. ending: how a side ends in its third turn."""
    assignments = []
    for server, name, first in zip(pair, ("old", "new"), (True, False), strict=True):
        job = preparation(
            folder / name, "alternate", name=name, first=first, book=str(folder / "book"), turns=6,
            end=ending.get(name, ""),
        )  # fmt: skip
        log = folder / name / "a.log"
        file = write_job(job.model_dump_json(), log)
        assignments.append(Assignment(server, file, log, on_progress, place=f"{name}: "))
    run_together(assignments, timeout=timeout)


def both_have_ended(folder: Path) -> bool:
    return all(ends(pid) for name in ("old", "new") for pid in pids(folder / name / "made"))


def test_two_processes_work_turn_by_turn(pair: Pair, tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    in_turns(pair, tmp_path, {})
    orders = [("old", "new"), ("new", "old")]
    book = [f"{name}{number}" for number in range(6) for name in orders[number % 2]]
    assert (tmp_path / "book").read_text().split() == book
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize(
    ("end", "message"), [("error", "ValueError in "), ("signal", "was killed by SIGSEGV\n")]
)
def test_when_one_of_two_fails_its_error_is_raised_and_the_other_is_ended(
    pair: Pair, tmp_path: Path, side: str, end: str, message: str
) -> None:
    with pytest.raises(ProcessError) as caught:
        in_turns(pair, tmp_path, {side: end})
    assert str(caught.value).startswith(f"{side}: {message}")
    assert f"full log: {tmp_path / side / 'a.log'}" in str(caught.value)
    assert both_have_ended(tmp_path)


@pytest.mark.parametrize("end", ["time limit", "Ctrl-C"])
def test_two_that_are_given_up_leave_no_process_and_nothing_open(
    pair: Pair, tmp_path: Path, end: str
) -> None:
    """One hangs, the other waits for its turn."""

    def interrupt(phase: str, done: float, total: float) -> None:
        if phase == "new 2" and end == "Ctrl-C":
            raise KeyboardInterrupt

    pair[0].close()
    pair[1].close()
    before = psutil.Process().num_fds()
    for server in pair:
        facts(server, tmp_path / "start")
    if end == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            in_turns(pair, tmp_path, {"new": "hang"}, on_progress=interrupt)
    else:
        for limit in LIMITS:
            book = tmp_path / "book"
            book.unlink(missing_ok=True)
            with pytest.raises(ProcessError, match="took longer than its time limit"):
                in_turns(pair, tmp_path, {"new": "hang"}, timeout=limit)
            if book.exists() and book.read_text().endswith("old2 "):
                break
    assert (tmp_path / "book").read_text().endswith("old2 "), "the other has had its turn"
    assert both_have_ended(tmp_path)
    assert psutil.Process().num_fds() == before
