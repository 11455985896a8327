"""The quotas of a container: how much of the processors it may use, how often it was paused for it, and how much of the
memory.

Version 2: `cpu.max` ("50000 100000": 50 ms of each 100 ms), `memory.max`. Version 1: `cpu.cfs_quota_us` (-1: none) and
`cpu.cfs_period_us`, `memory.limit_in_bytes`. A group is bound by the quotas of all groups above it as well.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Paused:
    """How often quotas have paused this process's groups since they were made, and for how many seconds of all
    threads."""

    times: int
    seconds: float


@functools.cache
def cores() -> float | None:
    """Return the processors' worth of time that this process may use; None: no quota."""
    return min(_quotas().values(), default=None)


def usable_cores(quota: float | None) -> int:
    """Return the threads to measure with: one for each processor that this process may run on, and no more than the
    quota pays for in full. One more would be paused in each period, which ruins every timing."""
    here = len(os.sched_getaffinity(0))
    return here if quota is None else max(1, min(here, math.floor(quota + 1e-6)))


def paused() -> Paused | None:
    """Return the pauses of all groups with a quota; None: no quota binds this process."""
    times, seconds, quotas = 0, 0.0, _quotas()
    for folder in quotas:
        stat = dict(line.split(" ", 1) for line in _read(folder / "cpu.stat").splitlines() if " " in line)
        times += int(stat.get("nr_throttled", 0))
        seconds += int(stat.get("throttled_usec", 0)) / 1e6 + int(stat.get("throttled_time", 0)) / 1e9
    return Paused(times, seconds) if quotas else None


def memory_bytes() -> int:
    """Return the memory that this process may use: that of the machine, or less of it."""
    limits: list[int] = [psutil.virtual_memory().total]
    for folder in _folders("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        limits += [int(limit)] if limit.isdecimal() else []
    return min(limits)


def _quotas() -> dict[Path, float]:
    """Return the groups with a quota that bind this process, and the processors' worth of time that each allows."""
    quotas = {}
    for folder in _folders("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        try:
            limit = int(quota) / int(period)
        except (ValueError, ZeroDivisionError):  # "max", or no such file
            continue
        if limit > 0:
            quotas[folder] = limit
    return quotas


def _folders(controller: str) -> Iterator[Path]:
    """Yield the groups of this process that may have a quota of this kind, and all groups above them."""
    for line in _read(MEMBERSHIP).splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            roots = [root for root in (GROUPS, GROUPS / "unified") if (root / "cgroup.controllers").exists()]
        else:
            names = (controllers, controller, "cpu,cpuacct", "cpuacct,cpu")
            has_it = controller in controllers.split(",")
            roots = [GROUPS / name for name in names if has_it and (GROUPS / name).is_dir()][:1]
        for root in roots:
            # In a container, the path may be that of the host, where only its own group is mounted.
            folder = root / group.lstrip("/")
            folder = folder if folder.is_dir() else root
            yield from [f for f in (folder, *folder.parents) if f.is_relative_to(root)]


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
