"""Turns of two processes, here of two threads: strictly one after the other, as many on both sides."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import TypeVar

import pytest
from quantgate.measure.metrics import throughput
from quantgate.processes.turns import Turns, inherited

R = TypeVar("R")
Both = tuple[Turns, Turns]


@pytest.fixture
def both() -> Iterator[Both]:
    """Who begins the first turn, and who ends it."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield Turns(one, first=True), Turns(other, first=False)


def at_once(both: Both, work: Callable[[Turns, int], R]) -> list[R]:
    """What `work` gives on both sides, at the same time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, both, (0, 1)))


def test_turns_are_begun_by_one_and_the_other_alternately(both: Both) -> None:
    seen: list[tuple[int, int, str]] = []

    def side(turns: Turns, name: int) -> list[tuple[float, float]]:
        turns.meet()

        def work(number: int) -> float:
            seen.append((number, name, "begin"))
            time.sleep(0.001 * (1 + name))
            seen.append((number, name, "end"))
            return 10.0 * name + number

        return [turns.take(partial(work, number)) for number in range(20)]

    one, other = at_once(both, side)
    assert seen == [(n, (n + i) % 2, at) for n in range(20) for i in (0, 1) for at in ("begin", "end")]
    assert one == [(float(n), 10.0 + n) for n in range(20)]
    assert other == [(10.0 + n, float(n)) for n in range(20)]


def test_nobody_begins_before_both_are_there(both: Both) -> None:
    arrived: list[float] = []

    def side(turns: Turns, name: int) -> float:
        time.sleep(0.2 * name)
        arrived.append(time.monotonic())
        turns.meet()
        return time.monotonic()

    assert min(at_once(both, side)) >= max(arrived)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_waiting_is_counted(both: Both) -> None:
    def side(turns: Turns, name: int) -> float:
        turns.meet()
        waited = turns.waited
        turns.take(partial(sleep, 0.3 * (1 - name)))
        return turns.waited - waited

    assert at_once(both, side)[1] >= 0.3


def test_the_others_processor_time_is_known_when_its_turn_is_over(both: Both) -> None:
    def side(turns: Turns, name: int) -> float:
        turns.meet()
        before = turns.aside
        turns.take(lambda: _spin(0.2 * (1 - name)))
        return turns.aside - before

    assert at_once(both, side)[1] >= 0.15


def _spin(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def test_two_processes_of_different_speed_end_after_the_same_round(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = threading.local()  # as each process has its own
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def side(turns: Turns, name: int) -> list[float]:
        clock.now = 0.0

        def work(first: int, count: int) -> None:
            clock.now += (1.0, 3.0)[name] if count == 8 else 100.0

        kind = throughput.Kind(work, tokens=8, warm_up=1)
        options = throughput.Options(rounds=2, turns=9.0)
        return throughput._time(kind, options, turns, lambda share, whole: None)

    assert at_once(both, side) == [[1.0] * 5, [3.0] * 5], "2 s a round in the mean"


def test_of_a_generation_a_few_tokens_are_decoded_in_each_turn(both: Both) -> None:
    """It goes on where the last turn ended, and begins anew when it is whole."""

    def side(turns: Turns, name: int) -> list[tuple[int, int]]:
        done: list[tuple[int, int]] = []

        def work(first: int, count: int) -> None:
            done.append((first, count))
            time.sleep(0.01)

        prepare = partial(done.append, (-1, 0))
        kind = throughput.Kind(work, tokens=3, warm_up=1, prepare=prepare, whole=8)
        throughput._time(kind, throughput.Options(rounds=5, turns=0.04), turns, lambda share, whole: None)
        return done

    one, other = at_once(both, side)
    assert one == other
    assert one[:7] == [(-1, 0), (0, 1), (-1, 0), (0, 3), (3, 3), (-1, 0), (0, 3)]


@pytest.mark.parametrize("end", ["before", "between"])
def test_who_is_left_goes_on_alone(end: str) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        stays = Turns(here, first=True)
        if end == "between":
            at_once((stays, Turns(there, first=False)), lambda turns, name: turns.take(lambda: 1.0))
        assert stays.shared
        there.close()
        assert [stays.take(lambda: 2.0), stays.take(lambda: 3.0)] == [(2.0, 2.0), (3.0, 3.0)]
        assert not stays.shared


def test_alone_every_turn_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTGATE_TURNS_FD", raising=False)
    turns = inherited(first=False)
    turns.meet()
    assert turns.take(lambda: 2.0) == (2.0, 2.0)
    assert (turns.shared, turns.waited, turns.aside) == (False, 0.0, 0.0)
