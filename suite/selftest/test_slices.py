"""Programs that take turns by signals."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from suite.peers.build import PRELOADED, command
from suite.peers.slices import SLICE, Ended, Program, take_turns
from suite.selftest.conftest import REPO

WORK = """
import sys, time
# Two clocks: one that stands still while the program is stopped, and one that goes on.
begin, seen = time.{own}(), []
while time.{own}() - begin < {seconds}:
    seen.append(time.clock_gettime(time.CLOCK_BOOTTIME))
    time.sleep(0.0005)
print(*seen)
sys.exit({status})
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("clock") / PRELOADED
    subprocess.run(command(["c++"], Path(), PRELOADED, [], library), check=True)
    return library


def program(
    folder: Path, name: str, seconds: float, status: int = 0, own: str = "monotonic", code: str = WORK
) -> Program:
    text = code.format(seconds=seconds, status=status, own=own)
    output = folder / name
    return Program([sys.executable, "-S", "-c", text], os.environ, output, output.with_suffix(".log"))


def slices(program: Program) -> list[tuple[float, float]]:
    """When the program ran, by the clock that goes on."""
    seen = [float(at) for at in program.output.read_text().split()]
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(seen)) if b - a > SLICE / 2), len(seen)]
    return [(seen[a], seen[b - 1]) for a, b in pairwise(cuts)]


@pytest.mark.parametrize("own", ["monotonic", "time", "perf_counter"])
def test_one_is_stopped_while_the_other_runs_and_its_clock_stands_still(
    tmp_path: Path, clock: Path, own: str
) -> None:
    programs = [program(tmp_path, name, 0.4, own=own) for name in ("one", "other")]
    ended = take_turns(programs, clock, timeout=60)
    assert [one.status for one in ended] == [0, 0]
    one, other = map(slices, programs)
    turns = sorted([(*turn, 0) for turn in one] + [(*turn, 1) for turn in other])
    assert len(turns) >= 6
    for (_, end, _), (begin, _, _) in pairwise(turns):
        assert end < begin, "both ran at the same time"
    for found, taken in zip((one, other), ended, strict=True):
        ran = sum(end - begin for begin, end in found)
        assert 0.3 < ran < 0.5, "the work takes as long as it would take alone"
        assert found[-1][1] - found[0][0] > 1.4 * ran
        assert ran < taken.seconds < ran + 0.5, "of the whole process, with its start"


@pytest.mark.parametrize("each", [SLICE * 2 / 3, SLICE * 3])
@pytest.mark.parametrize("wait", ["time.sleep({each})", "threading.Event().wait({each})"])
def test_what_a_program_waits_for_comes_by_its_own_clock(
    tmp_path: Path, clock: Path, wait: str, each: float
) -> None:
    """Also where it is stopped meanwhile."""
    count = round(0.4 / each)
    waits = f"""
import threading, time
begin = time.monotonic()
for _ in range({count}):
    {wait.format(each=each)}
print(time.monotonic() - begin)
"""
    programs = [program(tmp_path, name, 0.0, code=waits) for name in ("one", "other")]
    assert [one.status for one in take_turns(programs, clock, timeout=60)] == [0, 0]
    for one in programs:
        assert float(one.output.read_text()) >= count * each


def test_who_has_to_get_ready_runs_alone_until_it_is(tmp_path: Path, clock: Path) -> None:
    prepares = """
import os, time
begin = time.clock_gettime(time.CLOCK_BOOTTIME)
time.sleep(0.5)
os.write(int(os.environ["QUANTGATE_PROGRESS_FD"]), b"ready")
print(begin, time.clock_gettime(time.CLOCK_BOOTTIME))
"""
    second = program(tmp_path, "second", 0.2)
    with tempfile.TemporaryFile() as ready:
        first = replace(program(tmp_path, "first", 0.0, code=prepares), ready=ready.fileno())
        assert [one.status for one in take_turns([first, second], clock, timeout=60)] == [0, 0]
    (begin, end), *_ = slices(first)
    assert end - begin < 1.0
    assert slices(second)[0][0] > begin + 0.5


def test_who_is_left_goes_on_alone(tmp_path: Path, clock: Path) -> None:
    short, long = program(tmp_path, "short", 0.01), program(tmp_path, "long", 0.8)
    ended = take_turns([short, long], clock, timeout=60)
    assert ended[0].seconds < ended[1].seconds
    begin, end = slices(long)[-1]
    assert end - begin > 5 * SLICE


def test_how_each_ended_is_told_in_the_order_of_the_programs(tmp_path: Path, clock: Path) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    programs = [
        program(tmp_path, "one", 0.2, status=3),
        program(tmp_path, "other", 0.0, code=killed),
        program(tmp_path, "third", 0.1),
    ]
    assert [one.status for one in take_turns(programs, clock, timeout=60)] == [3, -9, 0]


def test_too_late_both_are_killed(tmp_path: Path, clock: Path) -> None:
    programs = [program(tmp_path, name, 60.0) for name in ("one", "other")]
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        take_turns(programs, clock, timeout=0.4)
    assert time.monotonic() - begin < 30
    assert not [p for p in psutil.Process().children() if str(60.0) in " ".join(p.cmdline())]


def test_when_who_lets_them_run_is_killed_they_are_gone(tmp_path: Path, clock: Path) -> None:
    sleep = "import time; time.sleep(600)"
    code = f"""
import pathlib, sys, suite.selftest.test_slices as t
programs = [t.program(pathlib.Path(sys.argv[1]), name, 0.0, code={sleep!r}) for name in "ab"]
t.take_turns(programs, pathlib.Path(sys.argv[2]), timeout=600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(clock)], cwd=REPO)
    started: list[psutil.Process] = []
    try:
        end = time.monotonic() + 30
        while len(started) < 2 and time.monotonic() < end:
            time.sleep(0.02)
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(parent.pid).children()
                started = [c for c in children if c.cmdline()[-1:] == [sleep]]
        assert len(started) == 2
        parent.kill()
        parent.wait()
        _, left = psutil.wait_procs(started, timeout=10)
        assert left == []
    finally:
        parent.kill()
        parent.wait()
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def test_the_time_of_a_process_is_that_from_start_to_end(tmp_path: Path, clock: Path) -> None:
    [ended] = take_turns([program(tmp_path, "one", 0.5)], clock, timeout=60)
    assert isinstance(ended, Ended)
    assert 0.5 < ended.seconds < 5
