"""Disturbances: what is read, and that work of others is seen."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from quantgate.measure import watch
from quantgate.measure.watch import Counters, disturbance, watched


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
