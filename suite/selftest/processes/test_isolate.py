"""One job in its own process: how it can end, what is said of it, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from quantgate.errors import ProcessError
from quantgate.jobs import Preparation
from quantgate.machine.environment import WORKER
from quantgate.paths import import_root
from quantgate.processes.ends import TAIL, explain
from quantgate.processes.isolate import Assignment, run_isolated, run_together, write_job
from quantgate.processes.progress import OnProgress, ignore_progress
from quantgate.processes.server import Server


def preparation(folder: Path, maker: str, **arguments: Any) -> Preparation:
    """A job for one of `selftest.makers`."""
    return Preparation(
        title="a test", maker=f"selftest.makers:{maker}", arguments=arguments, output=folder / "made"
    )


def start(
    folder: Path, maker: str, *, timeout: float = 600, on_progress: OnProgress = ignore_progress,
    threads: int | None = None, **arguments: Any,
) -> Path:  # fmt: skip
    """Run one of `selftest.makers` in a process; the path of what it makes."""
    job = preparation(folder, maker, **arguments)
    log = folder / "logs" / "a.log"
    run_isolated(
        write_job(job.model_dump_json(), log), log, command=WORKER, timeout=timeout,
        on_progress=on_progress, threads=threads,
    )  # fmt: skip
    return job.output


def run(
    server: Server, job: Preparation, log: Path, *, timeout: float,
    on_progress: OnProgress = ignore_progress, modules: Sequence[str] = (),
) -> None:  # fmt: skip
    """Run one job with a server to its end."""
    file = write_job(job.model_dump_json(), log)
    run_together([Assignment(server, file, log, on_progress, modules)], timeout=timeout)


def failure(folder: Path, maker: str, **arguments: Any) -> str:
    with pytest.raises(ProcessError) as caught:
        start(folder, maker, **arguments)
    return str(caught.value)


def gone(pid: int) -> bool:
    """Whether a process has ended; a dead one that nobody has waited for counts as ended."""
    end = time.monotonic() + 60
    while not gone_now(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone_now(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# --- ends -----------------------------------------------------------------------------------------


def test_a_job_that_ends_well_leaves_what_it_made_and_its_log(tmp_path: Path) -> None:
    assert start(tmp_path, "make_file", text="naïve").read_text() == "naïve"
    assert (tmp_path / "logs" / "a.log").read_text() == "writing naïve\n"
    job = json.loads((tmp_path / "logs" / "a~job.json").read_text())
    assert job["arguments"] == {"text": "naïve"}, "what was asked for can be looked up"


def test_what_a_job_promised_for_its_end_is_done(tmp_path: Path) -> None:
    """Temporary folders are removed then."""
    assert start(tmp_path, "promise").read_text() == "at the end"


def test_an_exit_status_is_told_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    said = failure(tmp_path, "say_and_exit", lines=30, status=7)
    assert said.splitlines() == [
        "ended with exit status 7",
        *(f"    | line {n}" for n in range(30 - TAIL, 30)),
        f"    full log: {tmp_path / 'logs' / 'a.log'}",
    ]


def test_a_silent_end_has_no_lines_but_names_the_log(tmp_path: Path) -> None:
    said = failure(tmp_path, "say_and_exit", lines=0, status=3)
    assert said == f"ended with exit status 3\n    full log: {tmp_path / 'logs' / 'a.log'}"


def test_an_error_of_the_suite_is_one_line_not_a_traceback(tmp_path: Path) -> None:
    said = failure(tmp_path, "refuse", error="AssetError", text="the file is cut off")
    assert said.startswith("the file is cut off (the process ended with exit status 1)\n    full log: ")


def test_any_other_error_is_one_line_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    said = failure(tmp_path, "refuse", error="ValueError", text="odd\nand even")
    assert said.startswith("ValueError: odd and even (the process ended with exit status 1)\n    full log: ")
    assert "Traceback (most recent call last)" in Path(said.rpartition("full log: ")[2]).read_text()


def test_running_out_of_memory_is_called_so(tmp_path: Path) -> None:
    said = failure(tmp_path, "refuse", error="MemoryError", text="")
    assert said.startswith("out of memory (the process ended with exit status 1)\n")


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
    said = explain(-signal.SIGABRT, log)
    words = line.removeprefix("/tmp/build/ggml/src/").strip()
    assert said == f"{words} (the process was killed by SIGABRT)\n    full log: {log}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SIGKILL", "was killed by SIGKILL: out of memory?"),
        ("SIGSEGV", "was killed by SIGSEGV"),
        ("35", "was killed by signal 35"),
        ("SIGILL", "was killed by SIGILL: a library built for another processor (reinstall llama-cpp-python"),
    ],
)
def test_a_signal_is_named_with_what_it_may_mean(tmp_path: Path, name: str, said: str) -> None:
    lines = failure(tmp_path, "kill_self", name=name).splitlines()
    assert lines[0].startswith(said)
    assert lines[0] == said or name == "SIGILL"
    assert f"    | sending {name}" in lines


def test_a_time_limit_kills_the_process_and_its_children(tmp_path: Path) -> None:
    said = failure(tmp_path, "sleep_forever", timeout=15)  # long enough to start on a busy machine
    assert said.splitlines()[0] == "took longer than its time limit of 15 s"
    assert "    | gone to sleep" in said
    process, child = map(int, (tmp_path / "made").read_text().split())
    assert gone(process)
    assert gone(child)


@pytest.mark.parametrize("maker", ["leave_child", "leave_fork", "leave_daemon"])
def test_what_a_job_leaves_running_is_ended_with_it(server: Server, tmp_path: Path, maker: str) -> None:
    """A forked copy holds the pipe open; it is not waited for either. A daemon has a session and no parent."""
    job = preparation(tmp_path, maker)
    run(server, job, tmp_path / "a.log", timeout=600)
    assert all(gone_now(int(process)) for process in job.output.read_text().split())
    ask(server, tmp_path / "next")


@pytest.mark.parametrize("maker", ["leave_child", "leave_fork", "leave_daemon"])
def test_what_a_job_leaves_running_ends_with_a_server_of_its_own(tmp_path: Path, maker: str) -> None:
    process, child = map(int, start(tmp_path, maker, timeout=600).read_text().split())
    assert gone(process)
    assert gone(child)


def test_ctrl_c_kills_the_process_and_its_children(tmp_path: Path) -> None:
    """The interrupt arrives wherever the parent is; it waits for progress most of the time."""

    def interrupt(phase: str, done: float, total: float) -> None:
        if phase == "sleeping":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, "sleep_forever", on_progress=interrupt)
    process, child = map(int, (tmp_path / "made").read_text().split())
    assert gone(process)
    assert gone(child)


def test_a_python_that_is_not_there_leaves_no_open_pipe(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(ProcessError, match=f"{tmp_path}/python: cannot be started: No such file"):
        run_isolated(
            write_job(preparation(tmp_path, "make_file").model_dump_json(), tmp_path / "a.log"),
            tmp_path / "a.log",
            timeout=6000,
            command=[str(tmp_path / "python")],
        )
    assert psutil.Process().num_fds() == before


def test_no_pipe_stays_open_however_it_ends(tmp_path: Path) -> None:
    before, handler = psutil.Process().num_fds(), signal.getsignal(signal.SIGINT)
    start(tmp_path, "make_file", text="x")
    failure(tmp_path, "say_and_exit", lines=1, status=1)
    assert psutil.Process().num_fds() == before
    assert signal.getsignal(signal.SIGINT) is handler


# --- progress and surroundings --------------------------------------------------------------------


def test_progress_arrives_in_order_while_the_job_runs(tmp_path: Path) -> None:
    events: list[tuple[str, float, float]] = []
    seen: list[float] = []

    def follow(phase: str, done: float, total: float) -> None:
        events.append((phase, done, total))
        seen.append(time.monotonic())

    start(tmp_path, "count", on_progress=follow, steps=4)
    assert events == [("a test", 0, 1), *(("counting", n, 4) for n in range(4)), ("last", 0, 1)]
    assert seen[-1] - seen[1] > 0.3, "not all at the end"


def test_a_job_has_its_own_session_and_the_threads_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("SOMETHING_OF_THE_USER", "kept")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = json.loads(start(tmp_path, "dump", threads=3).read_text())
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    assert found["environment"]["SOMETHING_OF_THE_USER"] == "kept"
    assert found["environment"]["PYTHONPATH"] == str(import_root())
    assert found["folder"] == str(import_root())
    assert found["session"] == found["process"], "Ctrl-C in the terminal reaches the parent alone"
    assert re.fullmatch(r"\d+", found["environment"]["QUANTGATE_PROGRESS_FD"])


def test_a_job_does_not_read_what_the_user_types(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"typed")
    os.close(write_fd)
    own = os.dup(0)
    os.dup2(read_fd, 0)
    try:
        found = json.loads(start(tmp_path, "dump").read_text())
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(read_fd)
    assert found["stdin"] == ""


def test_without_a_number_of_threads_the_users_own_setting_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert json.loads(start(tmp_path, "dump").read_text())["environment"]["OMP_NUM_THREADS"] == "5"


def test_a_killed_parent_takes_the_process_with_it(tmp_path: Path) -> None:
    code = "import sys, pathlib, selftest.processes.test_isolate as t; "
    code += "t.start(pathlib.Path(sys.argv[1]), 'sleep_forever')"
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=import_root())
    made = tmp_path / "made"
    end = time.monotonic() + 600
    while not (made.exists() and len(made.read_text().split()) == 2) and time.monotonic() < end:
        time.sleep(0.02)
    worker, child = map(int, made.read_text().split())
    server = psutil.Process(worker).ppid()
    warden = psutil.Process(server).ppid()
    parent.kill()
    parent.wait()
    assert all(gone(process) for process in (warden, server, worker, child))


def test_the_users_own_pythonpath_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/theirs")
    path = start(tmp_path, "write_pythonpath").read_text().split(os.pathsep)
    assert path == [str(import_root()), "/somewhere/of/theirs"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("not JSON\n", "b'not JSON'"),
        ("\n", "b''"),
        ('{"phase": 1, "done": 0, "total": 1}\n', 'b\'{"phase": 1'),
        ('{"phase": "a", "done": NaN, "total": 1}\n', 'b\'{"phase": "a", "done": NaN'),
        ('{"phase": "a"}\n', 'b\'{"phase": "a"}\''),
        ("[" * 100_000 + "\n", "b'[[[["),
        ("\xff\x00\n", "b'\\xc3\\xbf\\x00'"),
        ("x" * 300_000, "b'xxxx"),
    ],
)
def test_what_is_no_line_of_progress_is_an_error_of_the_job(tmp_path: Path, line: str, shown: str) -> None:
    said = failure(tmp_path, "write_progress", text=line)
    assert f"something in it wrote {shown}" in said.splitlines()[0]


def test_endless_progress_does_not_outlast_the_time_limit(tmp_path: Path) -> None:
    line = '{"phase": "a", "done": 0, "total": 1}\n'
    said = failure(tmp_path, "write_progress", timeout=2, text=line, times=10**9)
    assert said.splitlines()[0] == "took longer than its time limit of 2 s"


# --- the server --------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(WORKER) as made:
        yield made


def ask(
    server: Server, folder: Path, maker: str = "dump", modules: Sequence[str] = (), **arguments: Any
) -> Any:
    """Have a job done by `server`; what the job wrote down."""
    folder.mkdir(parents=True, exist_ok=True)
    job = preparation(folder, maker, **arguments)
    run(server, job, folder / "a.log", timeout=600, modules=modules)
    return json.loads(job.output.read_text())


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Writes a module that a server can import, its code given; what to pass as `modules`."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(code: str) -> list[str]:
        (tmp_path / "imported_first.py").write_text(code)
        return ["imported_first"]

    return write


def test_each_job_has_a_process_of_its_own_forked_by_one_server(server: Server, tmp_path: Path) -> None:
    found = [ask(server, tmp_path / str(number)) for number in range(3)]
    assert len({one["process"] for one in found}) == 3
    assert len({one["parent"] for one in found}) == 1
    assert found[0]["parent"] not in (os.getpid(), found[0]["process"])
    assert all(gone(one["process"]) for one in found)
    assert not gone_now(found[0]["parent"])
    server.close()
    assert gone(found[0]["parent"])


def test_modules_are_imported_once_and_with_the_threads_that_count(
    tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    code = "import os; print('imported with', os.environ['OMP_NUM_THREADS'], 'threads by', os.getpid())"
    with Server(WORKER, threads=3) as server:
        found = [ask(server, tmp_path / str(number), modules=module(code)) for number in range(2)]
        logs = [(tmp_path / str(number) / "a.log").read_text() for number in range(2)]
    assert logs == [f"imported with 3 threads by {found[0]['parent']}\n", ""]
    assert [one["environment"]["OMP_NUM_THREADS"] for one in found] == ["3", "3"]


def test_a_server_goes_on_with_further_modules_and_has_never_imported_others(
    server: Server, tmp_path: Path
) -> None:
    """What a process holds in memory depends on what it was asked for alone, and not on what ran before it."""
    wanted = [["wave"], ["wave", "colorsys"], ["wave", "colorsys"], ["colorsys"], []]
    found = [ask(server, tmp_path / str(n), modules=modules) for n, modules in enumerate(wanted)]
    assert [sorted({"wave", "colorsys"} & set(one["modules"])) for one in found] == [
        sorted(m) for m in wanted
    ]
    servers = [one["parent"] for one in found]
    assert servers[0] == servers[1] == servers[2]
    assert len(set(servers)) == 3


def test_what_a_job_changes_the_next_one_does_not_see(server: Server, tmp_path: Path) -> None:
    makers = ["selftest.makers"]
    found = [ask(server, tmp_path / str(n), "count_calls", makers) for n in range(2)]
    assert [one["calls"] for one in found] == [1, 1]


def test_a_module_that_cannot_be_imported_fails_each_job_with_the_same_error(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    for folder in (tmp_path / "1", tmp_path / "2"):
        with pytest.raises(ProcessError) as caught:
            ask(server, folder, modules=module("import not_installed_anywhere"))
        said = str(caught.value).splitlines()
        assert said == [
            "ModuleNotFoundError: No module named 'not_installed_anywhere' (the process ended with exit status 1)",
            f"    full log: {folder / 'a.log'}",
        ]


def test_servers_import_side_by_side_before_there_is_a_job(
    tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    """Each waits for the other's import to begin: one after the other would never end."""
    modules = module(
        "import os, pathlib, time\n"
        "here = pathlib.Path(__file__).with_name(f'begun-{os.getpid()}')\n"
        "here.touch()\n"
        "while len(list(here.parent.glob('begun-*'))) < 2: time.sleep(0.01)\n"
    )
    with Server(WORKER) as one, Server(WORKER) as other:
        for number, server in enumerate((one, other)):
            server.load(modules, tmp_path / f"{number}.log")
        for server in (one, other):
            server.wait(600)
        begun = {int(file.name.removeprefix("begun-")) for file in tmp_path.glob("begun-*")}
        found = [ask(server, tmp_path / f"of-{n}", modules=modules) for n, server in enumerate((one, other))]
    assert {job["parent"] for job in found} == begun, "what was loaded is what does the jobs"
    assert len(begun) == 2


def test_a_server_that_could_not_load_says_so_when_there_is_a_job(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    modules = module("import not_installed_anywhere")
    server.load(modules, tmp_path / "a.log")
    server.wait(600)
    with pytest.raises(ProcessError, match="No module named 'not_installed_anywhere'"):
        ask(server, tmp_path, modules=modules)


def test_a_server_that_loads_for_too_long_is_ended(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    before = psutil.Process().children()
    server.load(module("import time; time.sleep(600)"), tmp_path / "a.log")
    (started,) = (child for child in psutil.Process().children() if child not in before)
    server.wait(0.1)
    assert gone(started.pid)


def test_an_import_that_kills_is_called_by_the_name_of_its_signal(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    with pytest.raises(ProcessError, match="was killed by SIGILL: a library built for another processor"):
        ask(server, tmp_path, modules=module(code))


@pytest.mark.parametrize(
    ("maker", "arguments", "said"),
    [
        ("kill_self", {"name": "SIGKILL"}, "was killed by SIGKILL: out of memory?"),
        ("say_and_exit", {"lines": 1, "status": 7}, "ended with exit status 7"),
        ("refuse", {"error": "MemoryError", "text": ""}, "out of memory"),
    ],
)
def test_the_end_of_a_job_does_not_end_the_server(
    server: Server, tmp_path: Path, maker: str, arguments: dict[str, Any], said: str
) -> None:
    before = ask(server, tmp_path / "before")
    with pytest.raises(ProcessError, match=re.escape(said)):
        ask(server, tmp_path / "failing", maker, **arguments)
    assert ask(server, tmp_path / "after")["parent"] == before["parent"]


def test_a_server_that_has_ended_is_replaced(server: Server, tmp_path: Path) -> None:
    first = ask(server, tmp_path / "1")["parent"]
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert ask(server, tmp_path / "2")["parent"] != first


def test_a_server_that_is_killed_takes_its_process_with_it(server: Server, tmp_path: Path) -> None:
    events: list[str] = []

    def kill(phase: str, done: float, total: float) -> None:
        events.append(phase)
        if phase == "sleeping":
            worker, _ = map(int, (tmp_path / "made").read_text().split())
            psutil.Process(worker).parent().send_signal(signal.SIGKILL)

    with pytest.raises(ProcessError, match="was killed by SIGKILL"):
        run(server, preparation(tmp_path, "sleep_forever"), tmp_path / "a.log", timeout=600, on_progress=kill)
    assert all(gone(int(process)) for process in (tmp_path / "made").read_text().split())
    assert ask(server, tmp_path / "next")["process"]


@pytest.mark.parametrize("end", ["time limit", "Ctrl-C"])
def test_a_job_that_is_given_up_ends_with_its_server_and_the_next_one_is_done(
    server: Server, tmp_path: Path, end: str
) -> None:
    before = ask(server, tmp_path / "before")["parent"]

    def interrupt(phase: str, done: float, total: float) -> None:
        if phase == "sleeping" and end == "Ctrl-C":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt if end == "Ctrl-C" else ProcessError):
        run(
            server,
            preparation(tmp_path, "sleep_forever"),
            tmp_path / "a.log",
            timeout=5,
            on_progress=interrupt,
        )
    assert all(gone(int(process)) for process in (before, *(tmp_path / "made").read_text().split()))
    assert ask(server, tmp_path / "after")["parent"] != before


def test_a_time_limit_counts_while_modules_are_imported(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    code = "import os, time; print('importing', os.getpid(), flush=True); time.sleep(600)"
    ask(server, tmp_path / "before")  # it has started
    job, log = preparation(tmp_path, "dump"), tmp_path / "a.log"
    with pytest.raises(ProcessError, match="time limit of 3 s") as caught:
        run(server, job, log, timeout=3, modules=module(code))
    found = re.search(r"importing (\d+)", str(caught.value))
    assert found is not None
    assert gone(int(found[1]))


def test_two_servers_work_at_once(tmp_path: Path) -> None:
    """As two runs do: each is told of its own job alone."""

    def side(name: str) -> tuple[list[str], float, float]:
        phases: list[str] = []
        folder = tmp_path / name
        with Server(WORKER) as server:
            ask(server, folder)
            begin = time.monotonic()
            job = preparation(folder, "count", steps=10)
            run(
                server, job, folder / "a.log", timeout=600, on_progress=lambda phase, *_: phases.append(phase)
            )
            return phases, begin, time.monotonic()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(side, ("one", "other"))
    assert one[0] == other[0] == ["a test", *["counting"] * 10, "last"]
    assert max(one[1], other[1]) < min(one[2], other[2]), "they overlap"


def test_another_interpreter_can_serve(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nOTHER=1 exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    with Server([str(other), *WORKER[1:]]) as server:
        found = [ask(server, tmp_path / str(number)) for number in range(2)]
    assert [one["environment"]["OTHER"] for one in found] == ["1", "1"]
    assert found[0]["parent"] == found[1]["parent"]


def test_a_server_keeps_nothing_of_its_jobs_open(server: Server, tmp_path: Path) -> None:
    own, theirs = [], []
    for number in range(3):
        found = ask(server, tmp_path / str(number))
        own.append(psutil.Process().num_fds())
        theirs.append(psutil.Process(found["parent"]).num_fds())
    assert own[0] == own[2]
    assert theirs[0] == theirs[2]


# --- two in turns ------------------------------------------------------------------------------------


def in_turns(
    folder: Path, ends: dict[str, str], *, timeout: float = 600, on_progress: OnProgress = ignore_progress
) -> None:
    """Two processes, `old` and `new`, write into one book in turns; `ends`: how a side ends in its third turn."""
    with Server(WORKER) as one, Server(WORKER) as other:
        assignments = []
        for server, name, first in ((one, "old", True), (other, "new", False)):
            job = preparation(
                folder / name, "alternate", name=name, first=first, book=str(folder / "book"), turns=6,
                end=ends.get(name, ""),
            )  # fmt: skip
            log = folder / name / "a.log"
            file = write_job(job.model_dump_json(), log)
            assignments.append(Assignment(server, file, log, on_progress, place=f"{name}: "))
        run_together(assignments, timeout=timeout)


def test_two_processes_work_turn_by_turn(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    in_turns(tmp_path, {})
    orders = [("old", "new"), ("new", "old")]
    book = [f"{name}{number}" for number in range(6) for name in orders[number % 2]]
    assert (tmp_path / "book").read_text().split() == book
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize(("end", "said"), [("error", "ValueError: "), ("signal", "was killed by SIGSEGV\n")])
def test_when_one_of_two_fails_its_error_is_told_and_the_other_is_ended(
    tmp_path: Path, side: str, end: str, said: str
) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(ProcessError) as caught:
        in_turns(tmp_path, {side: end})
    assert str(caught.value).startswith(f"{side}: {said}")
    assert f"full log: {tmp_path / side / 'a.log'}" in str(caught.value)
    assert all(gone(int((tmp_path / name / "made").read_text())) for name in ("old", "new"))
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("end", ["time limit", "Ctrl-C"])
def test_two_that_are_given_up_leave_no_process(tmp_path: Path, end: str) -> None:
    """One hangs, the other waits for its turn."""
    before = psutil.Process().num_fds()

    def interrupt(phase: str, done: float, total: float) -> None:
        if phase == "new 2" and end == "Ctrl-C":
            raise KeyboardInterrupt

    limit = 30 if end == "time limit" else 600
    with pytest.raises(KeyboardInterrupt if end == "Ctrl-C" else ProcessError):
        in_turns(tmp_path, {"new": "hang"}, timeout=limit, on_progress=interrupt)
    assert all(gone(int((tmp_path / name / "made").read_text())) for name in ("old", "new"))
    assert psutil.Process().num_fds() == before


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["transformers", "bitsandbytes", "llamacpp"])
def test_what_backends_import_can_be_forked(tmp_path: Path, backend: str) -> None:
    """Threads are not forked, and a library that had begun some would wait for them: products of matrices, which BLAS
    and OpenMP compute in threads, come out right all the same."""
    with Server(WORKER, threads=2) as server:
        for number in range(2):
            found = ask(server, tmp_path / str(number), "multiply", [f"quantgate.backends.runtime.{backend}"])
            assert found["wrong"] == [0, 0, 0, 0]
            assert found["threads"] >= 2
