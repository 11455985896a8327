"""The processor quota of control groups, of both versions."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from quantgate.judge import nested
from quantgate.machine import quota
from quantgate.machine.quota import Paused, cores, memory_bytes, paused, usable_cores
from quantgate.measure.watch import Counters, disturbance
from quantgate.records import Disturbance, Metric


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(quota, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(quota, "MEMBERSHIP", tmp_path / "membership")
    cores.cache_clear()
    yield tmp_path / "groups"
    cores.cache_clear()


def member(groups: Path, lines: str) -> None:
    groups.with_name("membership").write_text(lines)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def version_2(folder: Path, limit: str, times: int = 0, microseconds: int = 0) -> None:
    stat = f"usage_usec 5\nnr_periods 9\nnr_throttled {times}\nthrottled_usec {microseconds}\nnr_bursts 0"
    write(folder, cpu__max=limit, cpu__stat=stat)


def version_1(folder: Path, microseconds: int, times: int = 0, nanoseconds: int = 0) -> None:
    stat = f"nr_periods 9\nnr_throttled {times}\nthrottled_time {nanoseconds}"
    write(folder, cpu__cfs_quota_us=str(microseconds), cpu__cfs_period_us="100000", cpu__stat=stat)


def test_version_2_is_bound_by_the_groups_above_as_well(groups: Path) -> None:
    member(groups, "0::/user/job\n")
    write(groups, cgroup__controllers="cpu memory")  # the root has no cpu.max
    version_2(groups / "user", "150000 100000", 3, 2_000_000)
    version_2(groups / "user/job", "max 100000", 8, 9_000_000)
    assert cores() == 1.5
    assert paused() == Paused(3, 2.0)


def test_version_1(groups: Path) -> None:
    member(groups, "9:name=systemd:/\n3:cpuset:/\n2:cpu,cpuacct:/job\n0::/\n")
    version_1(groups / "cpu,cpuacct", -1)
    version_1(groups / "cpu,cpuacct/job", 50_000, 84, 3_100_000_000)
    assert cores() == 0.5
    assert paused() == Paused(84, 3.1)


def test_in_a_container_the_path_is_that_of_the_host(groups: Path) -> None:
    member(groups, "4:cpu:/docker/abc\n")
    version_1(groups / "cpu", 200_000)
    assert cores() == 2.0


def test_a_limit_of_memory_counts_in_both_versions(groups: Path) -> None:
    machine = psutil.virtual_memory().total
    member(groups, "0::/user/job\n")
    write(groups, cgroup__controllers="cpu memory")
    assert memory_bytes() == machine
    write(groups / "user/job", memory__max="max")
    assert memory_bytes() == machine
    write(groups / "user", memory__max=str(2**28))
    assert memory_bytes() == 2**28
    member(groups, "5:memory:/docker/abc\n")
    write(groups / "memory", memory__limit_in_bytes="9223372036854771712")
    assert memory_bytes() == machine
    write(groups / "memory/docker/abc", memory__limit_in_bytes=str(2**27))
    assert memory_bytes() == 2**27


@pytest.mark.parametrize("lines", ["", "0::/\n", "1:cpu:/job\n", "2:memory:/job\n"])
def test_without_a_quota_there_is_none(groups: Path, lines: str) -> None:
    member(groups, lines)
    assert cores() is None
    assert paused() is None


@pytest.mark.parametrize(("limit", "threads"), [(None, 4), (8.0, 4), (2.5, 2), (2.0, 2), (0.5, 1)])
def test_threads_are_what_the_quota_pays_for_in_full(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert usable_cores(limit) == threads


def counters(pauses: Paused | None) -> Counters:
    return Counters(total=100, busy=40, steal=0, process=7, load=1, throttled=None, paused=pauses)


def test_pauses_are_those_of_the_block() -> None:
    seen = disturbance(counters(Paused(3, 1.0)), counters(Paused(10, 2.5)), None)
    assert (seen.pauses, seen.paused) == (7, 1.5)
    assert disturbance(counters(None), counters(None), None).pauses == 0


def test_the_quota_is_named_and_not_the_work_of_others() -> None:
    one = Disturbance(others=0.31, steal=0.0, load=2.0, pauses=42, paused=1.55)
    raw = {"disturbances": [one.model_dump()] * 2}
    timing = Metric(kind="ratio", value=1.0, unit="x", better="higher", samples=[0.9, 1.4], raw=raw)
    (line,) = nested.disturbed(timing)
    assert line == "the control group's processor quota paused it 84 times (3.1 s of all threads)"
    free = timing.model_copy(
        update={"raw": {"disturbances": [one.model_copy(update={"pauses": 0}).model_dump()]}}
    )
    assert nested.disturbed(free) == ["other work took up to 31 % of the processor"]


@pytest.mark.skipif(not os.access("/sys/fs/cgroup/cpu", os.W_OK), reason="no group can be made here")
def test_a_real_group_pauses_a_real_process() -> None:
    """A twentieth of a processor, version 1: less than it gets on a busy machine anyway."""
    group = Path("/sys/fs/cgroup/cpu/quantgate-selftest")
    group.mkdir()
    child = 0
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("5000")
        child = os.fork()
        if child == 0:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            cores.cache_clear()
            before, end = paused(), os.times().user + 0.05
            while os.times().user < end:
                math.sqrt(2)
            after = paused()
            good = cores() == 0.05 and usable_cores(cores()) == 1 and before and after
            os._exit(0 if good and before and after and after.times > before.times else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        group.rmdir()
