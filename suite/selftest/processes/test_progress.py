"""What a job reports on the way, and what surrounds it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from quantgate.paths import import_root
from quantgate.processes.isolate import LONGEST
from quantgate.processes.progress import MESSAGE
from quantgate.processes.server import Server

from selftest.processes.jobs import failure, run, start


def test_progress_arrives_in_order_while_the_job_runs(shared: Server, tmp_path: Path) -> None:
    events: list[tuple[str, float, float]] = []
    times: list[float] = []

    def follow(phase: str, done: float, total: float) -> None:
        events.append((phase, done, total))
        times.append(time.monotonic())

    run(shared, tmp_path, "count", on_progress=follow, steps=4)
    assert events == [("a test", 0, 1), *(("counting", n, 4) for n in range(4)), ("last", 0, 1)]
    assert times[-1] - times[1] > 0.3, "not all at the end"


@pytest.mark.parametrize(
    "message",
    [
        "\n",
        "0",
        '{"phase": 1, "done": 0, "total": 1}',
        '{"phase": "a", "done": NaN, "total": 1}',
        '{"phase": "a"}',
        '{"status": "0"',
        "\xff\x00\n",
        "[" * LONGEST,
    ],
)
def test_what_is_no_progress_is_no_message(message: str) -> None:
    with pytest.raises(ValidationError):
        MESSAGE.validate_json(message.encode())


@pytest.mark.parametrize(
    ("message", "beginning"),
    [
        ("not JSON\n", r"b'not JSON\n'"),
        ("\xff\x00\n", r"b'\xc3\xbf\x00\n'"),
        ("[" * 100_000, "b'[[[["),
    ],
)
def test_what_is_no_progress_is_an_error_of_the_job(
    shared: Server, tmp_path: Path, message: str, beginning: str
) -> None:
    error = failure(shared, tmp_path, "write_progress", text=message)
    assert f"something in it wrote {beginning}" in error.splitlines()[0]


def test_a_job_has_its_own_session_and_the_threads_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("SOMETHING_OF_THE_USER", "kept")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    job = json.loads(start(tmp_path, "dump", threads=3).read_text())
    assert job["environment"]["OMP_NUM_THREADS"] == "3"
    assert job["environment"]["SOMETHING_OF_THE_USER"] == "kept"
    assert job["environment"]["PYTHONPATH"] == str(import_root())
    assert job["folder"] == str(import_root())
    assert job["session"] == job["process"], "Ctrl-C in the terminal reaches the parent alone"
    assert re.fullmatch(r"\d+", job["environment"]["QUANTGATE_PROGRESS_FD"])


def test_what_the_user_set_and_types_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job does not read from the terminal; without a number of threads the user's own setting stays."""
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/theirs")
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"typed")
    os.close(write_fd)
    terminal = os.dup(0)
    os.dup2(read_fd, 0)
    try:
        job = json.loads(start(tmp_path, "dump").read_text())
    finally:
        os.dup2(terminal, 0)
        os.close(terminal)
        os.close(read_fd)
    assert job["stdin"] == ""
    assert job["environment"]["OMP_NUM_THREADS"] == "5"
    path = job["environment"]["PYTHONPATH"].split(os.pathsep)
    assert path == [str(import_root()), "/somewhere/of/theirs"]
