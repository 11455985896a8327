"""Steps and ramps of noisy series: what is seen, when, and that later nights change nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.history.levels import Levels
from quantgate.history.noisy import Shift, packed, shifts

Floats = NDArray[np.float64]
LEVELS = Levels.of(100)
SPREAD = 0.01


def noise(rows: int = 20, nights: int = 200, seed: int = 0) -> Floats:
    return SPREAD * np.random.default_rng(seed).standard_normal((rows, nights))


def seen(values: Floats) -> dict[int, list[Shift]]:
    by_row: dict[int, list[Shift]] = {}
    for shift in shifts(values, LEVELS, 0.005):
        by_row.setdefault(shift.series, []).append(shift)
    return by_row


def test_noise_alone_is_nothing() -> None:
    assert seen(noise(200, 365)) == {}


@pytest.mark.parametrize(("size", "latest"), [(1, 60), (2, 16), (4, 6), (20, 4)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_step_is_seen_and_its_night_is_known(size: float, latest: int, sign: int) -> None:
    values = noise(40)
    values[:, 100:] += sign * size * SPREAD
    by_row = seen(values)
    assert len(by_row) >= (32 if size == 1 else 40)
    delays = [of_row[0].seen - 100 + 1 for of_row in by_row.values()]
    assert 3 <= np.median(delays) <= latest
    for first, *_ in by_row.values():
        assert np.sign(first.after - first.before) == sign
        assert first.first <= first.onset <= first.last <= first.seen
    covered = np.mean([of_row[0].first - 1 <= 100 <= of_row[0].last + 1 for of_row in by_row.values()])
    assert covered >= 0.8
    assert (
        abs(
            np.mean([of_row[-1].after - of_row[0].before for of_row in by_row.values()])
            - sign * size * SPREAD
        )
        < 0.4 * SPREAD
    )


def test_a_ramp_is_seen() -> None:
    values = noise(40, 300)
    values += SPREAD * np.clip((np.arange(300) - 100) / 60, 0, 1) * 2
    assert len(seen(values)) == 40


def test_a_bad_night_or_two_are_no_step() -> None:
    values = noise(100)
    values[:, 100] += 20 * SPREAD
    values[:, 150:152] -= 20 * SPREAD
    assert seen(values) == {}


def test_a_level_that_returns_is_back() -> None:
    values = noise(40)
    values[:, 100:130] += 4 * SPREAD
    by_row = seen(values)
    assert sorted(by_row) == list(range(40))
    assert all(len(of_row) == 1 for of_row in by_row.values()), "the way back is no event of its own"
    assert all(130 <= (of_row[0].back or 0) <= 136 for of_row in by_row.values())


def test_a_level_that_returns_in_two_steps_is_back() -> None:
    values = noise(40)
    values[:, 60:110] += 0.4
    values[:, 110:150] += 0.25
    by_row = seen(values)
    assert sorted(by_row) == list(range(40))
    for up, down in by_row.values():
        assert (up.after > up.before, down.after < down.before) == (True, True)
        assert up.back == down.back
        assert 150 <= (up.back or 0) <= 160


def test_what_was_seen_does_not_depend_on_later_nights() -> None:
    values = noise(30, 300)
    values[:, 80:] += 2 * SPREAD
    values[:10, 200:] += 3 * SPREAD
    whole = shifts(values, LEVELS, 0.005)
    assert len(whole) >= 35
    for night in (90, 120, 205, 260):
        until = shifts(values[:, :night], LEVELS, 0.005)
        facts = [(s.series, s.onset, s.first, s.last, s.seen, s.before) for s in until]
        assert facts == [
            (s.series, s.onset, s.first, s.last, s.seen, s.before) for s in whole if s.seen < night
        ]


def test_series_of_different_lengths_do_not_meet() -> None:
    values = noise(2, 200)
    values[0, 100:] += 5 * SPREAD
    alone = shifts(values[:1], LEVELS, 0.005)
    beside = shifts(packed([values[0], values[1, :20]]), LEVELS, 0.005)
    assert beside == alone
    assert len(alone) == 1


def test_a_constant_series_and_a_short_one_are_nothing() -> None:
    assert shifts(np.ones((3, 100)), LEVELS, 0.005) == []
    assert shifts(noise(3, 12), LEVELS, 0.005) == []
    assert shifts(packed([]), LEVELS, 0.005) == []


def test_a_small_step_that_is_certain_is_not_told() -> None:
    values = 0.0001 * np.random.default_rng(0).standard_normal((5, 200))
    values[:, 100:] += 0.002
    assert seen(values) == {}


@pytest.mark.parametrize("spread", [0.0, 1e-5, 0.0005, 0.001], ids=str)
@pytest.mark.parametrize("step", [-0.4, 0.02], ids=str)
def test_a_step_of_a_series_that_hardly_varies_is_seen(spread: float, step: float) -> None:
    """Peaks of memory repeat nearly to the byte."""
    values = spread / SPREAD * noise(20)
    values[:, ::7] += 2 * spread  # most of the first nights are equal where nothing else varies
    values[:, 100:] += step
    by_row = seen(values)
    assert sorted(by_row) == list(range(20))
    for first, *more in by_row.values():
        assert (first.seen - 100, first.after - first.before) == pytest.approx((4, step), abs=4, rel=0.3)
        assert not more


def test_a_bad_night_or_two_of_a_series_that_hardly_varies_are_no_step() -> None:
    values = 0.01 * noise(20)
    values[:, 60] += 0.4
    values[:, 90:92] -= 0.4
    assert seen(values) == {}


def test_more_series_need_more_evidence() -> None:
    levels = [Levels.of(count) for count in (1, 10, 100, 1000, 100_000)]
    assert [one.steps for one in levels] == sorted(one.steps for one in levels)
    assert [one.sums for one in levels] == sorted(one.sums for one in levels)
    assert levels[0].step(12) > levels[0].step(300) > levels[0].steps
