"""The noise guard: what else the machine did while a block of work was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from quantgate.machine.quota import Paused, paused
from quantgate.records import Disturbance

SYS = Path("/sys")


@dataclass
class Watch:
    """What was found, one entry per watched block; `raw` is how a metric keeps it."""

    found: list[Disturbance] = field(default_factory=list)

    @property
    def raw(self) -> dict[str, Any]:
        return {"disturbances": [one.model_dump() for one in self.found]}


@dataclass(frozen=True)
class Counters:
    """Processor seconds since boot, of all cores, as /proc/stat counts them, see proc(5); the process's own."""

    total: float
    busy: float
    steal: float
    own: float
    load: float
    throttled: int | None
    paused: Paused | None = None

    @classmethod
    def now(cls, aside: float = 0.0) -> Self:
        """aside: processor seconds that count as the process's own."""
        cpu, own = psutil.cpu_times(), psutil.Process().cpu_times()
        steal = getattr(cpu, "steal", 0.0)
        # guest time is counted in user and nice already
        total = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)
        idle = cpu.idle + getattr(cpu, "iowait", 0.0)
        return cls(
            total=total,
            busy=total - idle - steal,
            steal=steal,
            own=own.user + own.system + own.children_user + own.children_system + aside,
            load=os.getloadavg()[0],
            throttled=_throttled(),
            paused=paused(),
        )


def disturbance(before: Counters, after: Counters, mhz: float | None) -> Disturbance:
    """What happened between two readings; the counters tick in hundredths of a second."""
    total = max(after.total - before.total, 0.01)
    others = (after.busy - before.busy) - (after.own - before.own)
    both = before.throttled is not None and after.throttled is not None
    pauses, seconds = 0, 0.0
    if before.paused and after.paused:
        pauses = after.paused.times - before.paused.times
        seconds = round(after.paused.seconds - before.paused.seconds, 3)
    return Disturbance(
        others=_share(others / total),
        steal=_share((after.steal - before.steal) / total),
        load=round(before.load, 2),
        mhz=mhz,
        throttled=(after.throttled or 0) - (before.throttled or 0) if both else None,
        pauses=pauses,
        paused=seconds,
    )


@contextmanager
def watched(watch: Watch, aside: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
    """Add to `watch` what disturbed the block.

    aside: processor seconds until now of another process, whose work meanwhile disturbed nothing: it has its turns.
    """
    before = Counters.now(aside())
    yield
    watch.found.append(disturbance(before, Counters.now(aside()), _mhz()))


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 3)


def _mhz() -> float | None:
    """Mean clock of the cores now; None where the kernel does not say."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None
    return round(frequency.current) if frequency and frequency.current else None


def _throttled() -> int | None:
    """Thermal events of all cores since boot; None: not readable."""
    thermal = SYS.glob("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    counts = [_number(file.read_text()) for file in thermal]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
