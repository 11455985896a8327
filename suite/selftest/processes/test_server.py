"""A server imports once and forks for each job."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import psutil
import pytest
from quantgate.errors import ProcessError
from quantgate.machine.environment import WORKER
from quantgate.paths import import_root
from quantgate.processes.server import Server, environment

from selftest.processes.jobs import ends, facts, has_ended, run


def test_each_job_has_a_process_of_its_own_forked_by_one_server(server: Server, tmp_path: Path) -> None:
    jobs = [facts(server, tmp_path / str(number)) for number in range(3)]
    assert len({job["process"] for job in jobs}) == 3
    assert len({job["parent"] for job in jobs}) == 1
    parent = jobs[0]["parent"]
    assert parent not in (os.getpid(), jobs[0]["process"])
    assert all(ends(job["process"]) for job in jobs)
    assert not has_ended(parent)
    server.close()
    assert ends(parent)


def test_modules_are_imported_once_and_with_the_threads_that_count(
    tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    code = "import os; print('imported with', os.environ['OMP_NUM_THREADS'], 'threads by', os.getpid())"
    with Server(WORKER, threads=3) as server:
        jobs = [facts(server, tmp_path / str(number), modules=module(code)) for number in range(2)]
        logs = [(tmp_path / str(number) / "a.log").read_text() for number in range(2)]
    assert logs == [f"imported with 3 threads by {jobs[0]['parent']}\n", ""]
    assert [job["environment"]["OMP_NUM_THREADS"] for job in jobs] == ["3", "3"]


def test_what_is_set_for_tests_does_not_reach_a_measuring_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coverage would trace it, warnings that are errors would end its imports. A PYTHONPATH that is relative to where
    pytest was started names the same folder in the process, which is started elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"mine{os.pathsep}{os.pathsep}/theirs/")
    for name in ("PYTHONWARNINGS", "PYTHONDEVMODE", "COV_CORE_SOURCE", "COVERAGE_PROCESS_START"):
        monkeypatch.setenv(name, "error")
    variables = environment(2)
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(import_root()), f"{tmp_path}/mine", "/theirs"]
    assert "error" not in variables.values()


def test_a_server_goes_on_with_further_modules_and_has_never_imported_others(
    server: Server, tmp_path: Path
) -> None:
    """What a process holds in memory depends on its own modules alone, and not on what ran before it."""
    needed = [["wave"], ["wave", "colorsys"], ["wave", "colorsys"], ["colorsys"], []]
    jobs = [facts(server, tmp_path / str(n), modules=modules) for n, modules in enumerate(needed)]
    imported = [sorted({"wave", "colorsys"} & set(job["modules"])) for job in jobs]
    assert imported == [sorted(modules) for modules in needed]
    servers = [job["parent"] for job in jobs]
    assert servers[0] == servers[1] == servers[2]
    assert len(set(servers)) == 3


def test_what_a_job_changes_the_next_one_does_not_see(server: Server, tmp_path: Path) -> None:
    makers = ["selftest.makers"]
    jobs = [facts(server, tmp_path / str(n), "count_calls", makers) for n in range(2)]
    assert [job["calls"] for job in jobs] == [1, 1]


def test_a_module_that_cannot_be_imported_fails_each_job_with_the_same_error(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    for folder in (tmp_path / "1", tmp_path / "2"):
        with pytest.raises(ProcessError) as caught:
            facts(server, folder, modules=module("import not_installed_anywhere"))
        why, log = str(caught.value).splitlines()
        assert re.fullmatch(
            r"ModuleNotFoundError in \S+\.py:1: No module named 'not_installed_anywhere'", why
        )
        assert log == f"    full log: {folder / 'a.log'}"


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
        jobs = [facts(server, tmp_path / f"of-{n}", modules=modules) for n, server in enumerate((one, other))]
    assert {job["parent"] for job in jobs} == begun, "what was loaded is what does the jobs"
    assert len(begun) == 2


def test_an_import_that_failed_before_there_was_a_job_is_the_error_of_the_job(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    modules = module("import not_installed_anywhere")
    server.load(modules, tmp_path / "a.log")
    server.wait(600)
    with pytest.raises(ProcessError, match="No module named 'not_installed_anywhere'"):
        facts(server, tmp_path, modules=modules)


def test_a_server_that_loads_for_too_long_is_ended(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    before = psutil.Process().children()
    server.load(module("import time; time.sleep(600)"), tmp_path / "a.log")
    (started,) = (child for child in psutil.Process().children() if child not in before)
    server.wait(0.1)
    assert ends(started.pid)


def test_an_import_that_kills_is_called_by_the_name_of_its_signal(
    server: Server, tmp_path: Path, module: Callable[[str], list[str]]
) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    with pytest.raises(ProcessError, match="was killed by SIGILL: a library built for another processor"):
        facts(server, tmp_path, modules=module(code))


def test_two_servers_work_at_once(shared: Server, server: Server, tmp_path: Path) -> None:
    """As two runs do: each hears of its own job alone, and waits for the other's in the middle of it."""
    both = Barrier(2, timeout=600)

    def side(name: str, at: Server) -> list[str]:
        phases: list[str] = []

        def follow(phase: str, done: float, total: float) -> None:
            phases.append(phase)
            if phase == "a test":
                both.wait()

        run(at, tmp_path / name, "count", on_progress=follow, steps=4)
        return phases

    with ThreadPoolExecutor(2) as pool:
        phases = list(pool.map(side, ("one", "other"), (shared, server)))
    assert phases == [["a test", *["counting"] * 4, "last"]] * 2


def test_another_interpreter_can_serve(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nOTHER=1 exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    with Server([str(other), *WORKER[1:]]) as server:
        jobs = [facts(server, tmp_path / str(number)) for number in range(2)]
    assert [job["environment"]["OTHER"] for job in jobs] == ["1", "1"]
    assert jobs[0]["parent"] == jobs[1]["parent"]


def test_a_server_keeps_nothing_of_its_jobs_open(shared: Server, tmp_path: Path) -> None:
    here, there = [], []
    for number in range(3):
        job = facts(shared, tmp_path / str(number))
        here.append(psutil.Process().num_fds())
        there.append(psutil.Process(job["parent"]).num_fds())
    assert here[0] == here[2]
    assert there[0] == there[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backends", "computing"), [(["transformers", "bitsandbytes"], ["torch"]), (["llamacpp"], [])]
)
def test_what_backends_import_can_be_forked(
    tmp_path: Path, backends: list[str], computing: list[str]
) -> None:
    """Threads are not forked, and a library that had begun some would wait for them: products of matrices, which BLAS
    and OpenMP compute in threads, come out right all the same."""
    with Server(WORKER, threads=2) as server:
        modules: list[str] = []
        for backend in backends:
            modules.append(f"quantgate.backends.runtime.{backend}")  # the server goes on
            products = facts(server, tmp_path / backend, "multiply", modules)
            assert products["wrong"] == dict.fromkeys(["numpy", "scipy", *computing, "solve"], 0)
            assert products["threads"] >= 2
