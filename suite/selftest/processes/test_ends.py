"""How a job can end, and what its error says."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from quantgate.errors import ProcessError
from quantgate.processes.ends import TAIL, explain
from quantgate.processes.server import Server

from selftest.processes.jobs import facts, failure, run, start


def test_a_job_that_ends_well_leaves_what_it_made_and_its_log(tmp_path: Path) -> None:
    assert start(tmp_path, "make_file", text="naïve").read_text() == "naïve"
    assert (tmp_path / "logs" / "a.log").read_text() == "writing naïve\n"
    job = json.loads((tmp_path / "logs" / "a~job.json").read_text())
    assert job["arguments"] == {"text": "naïve"}, "the job can be looked up"


def test_what_a_job_leaves_to_its_end_is_done(shared: Server, tmp_path: Path) -> None:
    """Temporary folders are removed then."""
    assert run(shared, tmp_path, "promise").read_text() == "at the end"


def test_an_exit_status_comes_with_the_last_lines_of_the_log(shared: Server, tmp_path: Path) -> None:
    error = failure(shared, tmp_path, "say_and_exit", lines=30, status=7)
    assert error.splitlines() == [
        "ended with exit status 7",
        *(f"    | line {n}" for n in range(30 - TAIL, 30)),
        f"    full log: {tmp_path / 'a.log'}",
    ]


def test_a_silent_end_has_no_lines_but_names_the_log(shared: Server, tmp_path: Path) -> None:
    error = failure(shared, tmp_path, "say_and_exit", lines=0, status=3)
    assert error == f"ended with exit status 3\n    full log: {tmp_path / 'a.log'}"


def test_a_crash_in_kernels_that_a_compiler_builds_wrongly_names_the_remedy(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("load_tensors:          AMX model buffer size =   152.30 MiB\n" + "more\n" * 2 * TAIL)
    assert "reinstall llama-cpp-python" in explain(-signal.SIGSEGV, log)
    assert "reinstall" not in explain(-signal.SIGKILL, log)
    log.write_text("load_tensors:          CPU model buffer size =   152.30 MiB\n")
    assert "reinstall" not in explain(-signal.SIGSEGV, log)


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = explain(1, tmp_path / "no.log")
    assert (
        error
        == f"ended with exit status 1\n    its log {tmp_path}/no.log cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("error", "text", "message"),
    [
        ("MeasurementError", "no kernel", "no kernel"),
        ("ValueError", "odd\nand even", "ValueError in makers.py:50: odd and even"),
        ("MemoryError", "", "out of memory"),
    ],
)
def test_an_exception_is_one_line_and_an_unforeseen_one_leaves_its_traceback_in_the_log(
    shared: Server, tmp_path: Path, error: str, text: str, message: str
) -> None:
    lines = failure(shared, tmp_path, "refuse", error=error, text=text).splitlines()
    log = tmp_path / "a.log"
    assert lines == [message, f"    full log: {log}"]
    assert ("Traceback (most recent call last)" in log.read_text()) == (error != "MeasurementError")


@pytest.mark.parametrize("error", ["AssetError", "InputError"])
def test_what_is_wrong_with_the_input_is_one_sentence(shared: Server, tmp_path: Path, error: str) -> None:
    assert failure(shared, tmp_path, "refuse", error=error, text="x.gguf: is cut off") == "x.gguf: is cut off"


@pytest.mark.parametrize(
    "line",
    [
        "/tmp/build/ggml/src/ggml.c:5515: GGML_ASSERT(ggml_can_mul_mat(k, q)) failed",
        "python: src/list.c:12: insert: Assertion `size > 0' failed.",
        "  what():  vector::_M_range_check",
    ],
)
def test_an_assertion_that_failed_is_the_error(tmp_path: Path, line: str) -> None:
    log = tmp_path / "a.log"
    log.write_text("loading\n" + line + "\n" + "a frame\n" * 40)
    cause = line.removeprefix("/tmp/build/ggml/src/").strip()
    assert (
        explain(-signal.SIGABRT, log) == f"{cause} (the process was killed by SIGABRT)\n    full log: {log}"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SIGKILL", "was killed by SIGKILL: out of memory?"),
        ("SIGSEGV", "was killed by SIGSEGV"),
        ("35", "was killed by signal 35"),
        ("SIGILL", "was killed by SIGILL: a library built for another processor (reinstall llama-cpp-python"),
    ],
)
def test_a_signal_is_named_with_what_it_may_mean(
    shared: Server, tmp_path: Path, name: str, message: str
) -> None:
    lines = failure(shared, tmp_path, "kill_self", name=name).splitlines()
    assert lines[0].startswith(message)
    assert lines[0] == message or name == "SIGILL"
    assert f"    | sending {name}" in lines


@pytest.mark.parametrize(
    ("maker", "arguments", "message"),
    [
        ("kill_self", {"name": "SIGKILL"}, "was killed by SIGKILL: out of memory?"),
        ("say_and_exit", {"lines": 1, "status": 7}, "ended with exit status 7"),
        ("refuse", {"error": "MemoryError", "text": ""}, "out of memory"),
    ],
)
def test_the_end_of_a_job_does_not_end_the_server(
    shared: Server, tmp_path: Path, maker: str, arguments: dict[str, Any], message: str
) -> None:
    before = facts(shared, tmp_path / "before")
    with pytest.raises(ProcessError, match=re.escape(message)):
        run(shared, tmp_path / "failing", maker, **arguments)
    assert facts(shared, tmp_path / "after")["parent"] == before["parent"]


def test_a_python_that_is_not_there_leaves_no_open_pipe(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with (
        pytest.raises(ProcessError, match=f"{tmp_path}/python: cannot be started: No such file"),
        Server([str(tmp_path / "python")]) as server,
    ):
        run(server, tmp_path, "make_file", text="x")
    assert psutil.Process().num_fds() == before


def test_nothing_stays_open_however_a_job_ends(shared: Server, tmp_path: Path) -> None:
    run(shared, tmp_path, "make_file", text="x")
    before, handler = psutil.Process().num_fds(), signal.getsignal(signal.SIGINT)
    run(shared, tmp_path, "make_file", text="x")
    failure(shared, tmp_path, "say_and_exit", lines=1, status=1)
    assert psutil.Process().num_fds() == before
    assert signal.getsignal(signal.SIGINT) is handler
