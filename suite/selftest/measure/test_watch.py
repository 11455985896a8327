"""Disturbances: what is read, and that work of others is seen."""

from __future__ import annotations

import mmap
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from quantgate.measure import watch
from quantgate.measure.watch import Counters, disturbance, held_memory, watched


def counters(
    total: float, busy: float, steal: float, process: float, throttled: int | None = None
) -> Counters:
    return Counters(total=total, busy=busy, steal=steal, process=process, load=1.234, throttled=throttled)


def test_shares_are_of_the_processor_time_of_all_cores() -> None:
    seen = disturbance(counters(100, 40, 3, 7, 1), counters(120, 56, 4, 17, 5), 2400.0)
    assert (seen.others, seen.steal, seen.load, seen.mhz, seen.throttled) == (0.3, 0.05, 1.23, 2400.0, 4)


def test_counters_that_tick_coarsely_give_no_impossible_share() -> None:
    still = counters(100, 40, 0, 7.004)
    assert disturbance(still, counters(100, 40, 0, 7.009), None).others == 0
    assert disturbance(still, counters(100.02, 40.05, 0, 7.004), None).others == 1
    assert disturbance(still, still, None).throttled is None


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_work_of_another_process_is_seen() -> None:
    with watched() as alone:
        _spin(0.4)
    other = multiprocessing.get_context("spawn").Process(target=_spin, args=(0.8,))
    other.start()
    time.sleep(0.3)
    with watched() as beside:
        time.sleep(0.3)
    other.join()
    assert beside["disturbances"][0]["others"] > 0.05, "at least a part of one core, on a machine of up to 16"
    assert [set(one) for one in alone["disturbances"]] == [
        {"others", "steal", "load", "mhz", "throttled", "pauses", "paused"}
    ]


def test_what_the_kernel_does_not_say_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SYS", tmp_path)
    assert watch._throttled() is None
    for core in (0, 1):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text("2\n")
    assert watch._throttled() == 4


def test_blocks_that_the_allocator_fills_again_are_not_held() -> None:
    with held_memory() as held:
        before = held()
        kept = np.ones(8_000_000, np.uint8)
        kilobytes = [bytearray(1000) for _ in range(2000)]
        assert 10_000_000 < held() - before < 10_300_000
        del kept, kilobytes[::2]  # every other one: no page of these is given back
        rest = held() - before
        assert 1_000_000 < rest < 1_200_000
        kilobytes += [bytearray(1000) for _ in range(1000)]
        assert 900_000 < held() - before - rest < 1_100_000, "in blocks that were there already"


def test_memory_that_is_mapped_beside_the_allocator_is_held() -> None:
    with held_memory() as held:
        before = held()
        with mmap.mmap(-1, 1_000_000, mmap.MAP_PRIVATE):
            assert 900_000 < held() - before < 1_100_000
        assert held() - before < 100_000


def test_garbage_is_not_held() -> None:
    class Circle:
        def __init__(self) -> None:
            self.content, self.me = bytearray(100_000), self

    with held_memory() as held:
        before = held()
        for _ in range(20):
            Circle()
        assert held() - before < 100_000
