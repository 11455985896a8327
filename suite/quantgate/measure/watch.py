"""What happens while a block of work is measured: the memory that the process takes, and what else the machine does."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from quantgate.machine.quota import Paused, paused
from quantgate.records import Disturbance

SYS = Path("/sys")


@dataclass(frozen=True)
class Counters:
    """Processor seconds since boot, of all cores, as /proc/stat counts them, see proc(5); `process`: of this one."""

    total: float
    busy: float
    steal: float
    process: float
    load: float
    throttled: int | None
    paused: Paused | None = None

    @classmethod
    def now(cls, aside: float = 0.0) -> Self:
        """Read the counters. aside: processor seconds that count as this process's."""
        cpu, process = psutil.cpu_times(), psutil.Process().cpu_times()
        total = sum(cpu) - cpu.guest - cpu.guest_nice  # guest time is counted in user and nice already
        return cls(
            total=total,
            busy=total - cpu.idle - cpu.iowait - cpu.steal,
            steal=cpu.steal,
            process=process.user + process.system + process.children_user + process.children_system + aside,
            load=os.getloadavg()[0],
            throttled=_throttled(),
            paused=paused(),
        )


def disturbance(before: Counters, after: Counters, mhz: float | None) -> Disturbance:
    """Return what happened between two readings; the counters tick in hundredths of a second."""
    total = max(after.total - before.total, 0.01)
    others = (after.busy - before.busy) - (after.process - before.process)
    throttled, pauses, seconds = None, 0, 0.0
    if before.throttled is not None and after.throttled is not None:
        throttled = after.throttled - before.throttled
    if before.paused and after.paused:
        pauses = after.paused.times - before.paused.times
        seconds = round(after.paused.seconds - before.paused.seconds, 3)
    return Disturbance(
        others=_share(others / total),
        steal=_share((after.steal - before.steal) / total),
        load=round(before.load, 2),
        mhz=mhz,
        throttled=throttled,
        pauses=pauses,
        paused=seconds,
    )


@contextmanager
def watched(aside: Callable[[], float] = lambda: 0.0) -> Iterator[dict[str, Any]]:
    """Yield a metric's `raw`, which has what disturbed the block when it ends.

    aside: returns the processor seconds until now of another process that has its turns meanwhile and disturbs nothing.
    """
    before = Counters.now(aside())
    raw: dict[str, Any] = {}
    yield raw
    raw["disturbances"] = [disturbance(before, Counters.now(aside()), _mhz()).model_dump()]


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 3)


def _mhz() -> float | None:
    """Return the mean clock of the cores now; None where the kernel does not say."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None
    return round(frequency.current) if frequency and frequency.current else None


def _throttled() -> int | None:
    """Return the thermal events of all cores since boot; None: not readable."""
    files = SYS.glob("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    counts = [int(text) for file in files if (text := file.read_text().strip()).isdigit()]
    return sum(counts) if counts else None


@dataclass
class Peak:
    """Highest memory of a phase, in bytes. resident: the kernel's high-water mark; anonymous and file:
    sampled every few milliseconds; device: by kind, on an accelerator."""

    resident: int = 0
    anonymous: int = 0
    file: int = 0
    device: dict[str, int] = field(default_factory=dict)
    inherited: str = ""
    """Why it may be that of an earlier phase; empty: it is not."""

    def as_dict(self) -> dict[str, int]:
        return {"resident": self.resident, "anonymous": self.anonymous, "file": self.file, **self.device}


@contextmanager
def memory_peak() -> Iterator[Peak]:
    """Measure the process's memory while the block runs; the yielded Peak is filled when it ends."""
    peak = Peak()
    give_back_memory()
    # "5" resets the high-water mark of resident memory, see proc(5), /proc/pid/clear_refs.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        peak.inherited = f"{error.filename}: {error.strerror}"
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(peak, stop), daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
        peak.resident = _status()["VmHWM"]


def _sample(peak: Peak, stop: threading.Event) -> None:
    while True:
        status = _status()
        peak.anonymous = max(peak.anonymous, status["RssAnon"])
        peak.file = max(peak.file, status["RssFile"] + status["RssShmem"])
        if stop.wait(0.005):
            return


def give_back_memory() -> None:
    """Free what the allocator keeps: it is no memory of what comes next, nor room for that to grow in."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


class _Allocated(ctypes.Structure):
    """What glibc's allocator has, see mallinfo2(3)."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


@contextmanager
def held_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the bytes that this process holds now; collects garbage at each call.

    Bytes that the allocator gave out, and bytes mapped beside it: Python's small objects, 1 MB at a time, and libraries
    that map memory themselves. Not resident memory: that grows while free blocks of the allocator are filled again, by
    20 MB in 70 tokens of bitsandbytes/fp4, which holds not a byte more. Before glibc 2.33: anonymous resident memory.
    """
    information = getattr(ctypes.CDLL(None), "mallinfo2", None)

    def held() -> int:
        gc.collect()
        status = _status()
        if information is None:
            return status["RssAnon"]
        heap = information()
        return int(status["VmData"] - heap.arena + heap.uordblks)

    if information is not None:
        information.restype = _Allocated
    give_back_memory()
    gc.freeze()  # what is there already need not be looked through at each call
    try:
        yield held
    finally:
        gc.unfreeze()


def _status() -> dict[str, int]:
    """Return the memory lines of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {key: int(value.removesuffix(" kB")) * 1024 for key, value in pairs}
