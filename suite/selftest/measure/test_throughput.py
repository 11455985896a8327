"""Timings of a model that takes as long as a clock says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.machine.environment import machine
from quantgate.measure.metrics import throughput
from quantgate.processes.turns import Turns
from quantgate.records import Disturbance

from selftest.measure.fakes import Bigrams, Here

if TYPE_CHECKING:
    from collections.abc import Sequence


class Clock:
    """Time passes when work is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "made"),
    [(1.0, 7), (3.0, 4), (4.0, 3), (100.0, 1), (2.0, 5)],
)
def test_rounds_stop_by_number_or_time_but_there_is_one(clock: Clock, seconds: float, made: int) -> None:
    shares: list[float] = []
    done: list[Any] = []

    def prepare() -> None:
        done.append("prepare")
        clock.now += 1000

    def work(first: int, tokens: int) -> None:
        done.append(tokens)
        clock.now += seconds if tokens == 8 else 50

    kind = throughput.Kind(work, tokens=8, warm_up=1, prepare=prepare)
    rounds = throughput._time(
        kind, throughput.Options(rounds=7, seconds=10.0), Turns(), lambda share, whole: shares.append(share)
    )
    assert rounds == [seconds] * made, "neither the warm-up nor the preparation is timed"
    assert done == ["prepare", 1, *["prepare", 8] * made]
    assert shares == [(n + 1) / 7 for n in range(made)]


@pytest.mark.parametrize(("seconds", "made"), [(0.0625, 8), (0.125, 4), (0.25, 3), (4.0, 2)])
def test_short_rounds_go_on_until_they_have_taken_long_enough(
    clock: Clock, seconds: float, made: int
) -> None:
    def work(first: int, tokens: int) -> None:
        clock.now += seconds

    kind = throughput.Kind(work, tokens=8, warm_up=1)
    shares: list[float] = []
    rounds = throughput._time(
        kind,
        throughput.Options(rounds=3, least=0.5, seconds=5.0),
        Turns(),
        lambda share, whole: shares.append(share),
    )
    assert len(rounds) == made
    assert shares[-1] <= 1.0


class Timed(Bigrams):
    """Takes a second for a prompt and, for each token decoded, a quarter."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def prefill(self, ids: Sequence[int]) -> None:
        self._clock.now += len(ids) / 64
        super().prefill(ids)

    def decode(self, ids: Sequence[int]) -> None:
        self._clock.now += len(ids) / 4
        super().decode(ids)


OPTIONS: dict[str, Any] = {"prompt": 64, "decode": 8, "first_token": 16, "rounds": 3}


def test_throughput_is_tokens_by_the_median_round(clock: Clock, tmp_path: Path) -> None:
    here = Here(tmp_path, Timed(clock))
    metrics = here.measure(throughput, **OPTIONS)
    assert {name: m.value for name, m in metrics.items() if "load" not in name} == {
        "throughput/prefill": 64.0, "throughput/decode": 4.0, "throughput/time_to_first_token": 0.25,
    }  # fmt: skip
    units = {name.partition("/")[2]: (m.unit, m.better, m.samples) for name, m in metrics.items()}
    assert units["prefill"] == ("tokens/s", "higher", [1.0] * 3)
    assert units["decode"] == ("tokens/s", "higher", [2.0] * 3)
    assert units["time_to_first_token"] == ("s", "lower", [0.25] * 3)
    assert units["load"][:2] == ("s", "lower")
    assert len(units["load"][2] or []) == 1
    warm_ups = {
        f"throughput/{name}": tokens
        for name, tokens in {"prefill": 64, "decode": 1, "time_to_first_token": 16, "load": 0}.items()
    }  # as llama-bench: a whole prompt, one decoded token
    for name, metric in metrics.items():
        assert metric.kind == "rounds"
        governor = machine()["governor"]  # None where the kernel does not say
        assert metric.conditions == {
            "source": "w1", "threads": 2, **({"governor": governor} if governor else {}), "kernels": "by hand",
            "settings": "by heart", "prompt": 64, "decode": 8, "first_token": 16, "warm-up tokens": warm_ups[name],
        }  # fmt: skip
        assert metric.processes == [len(metric.samples or ())]
        (seen,) = metric.raw["disturbances"]
        assert 0 <= Disturbance.model_validate(seen).others <= 1


def test_one_slow_round_does_not_move_the_value(clock: Clock, tmp_path: Path) -> None:
    class Stumbles(Timed):
        def prefill(self, ids: Sequence[int]) -> None:
            clock.now += 30 if len(self.calls) == 2 else 0
            super().prefill(ids)

    metric = Here(tmp_path, Stumbles(clock)).measure(throughput, "prefill", **OPTIONS, seconds=100.0)[
        "throughput/prefill"
    ]
    assert sorted(metric.samples or []) == [1.0, 1.0, 31.0]
    assert metric.value == 64.0


def test_decoding_starts_from_one_token_of_context(here: Here) -> None:
    here.measure(throughput, "decode", **OPTIONS)
    assert here.backend.calls[0] == ("reserve", 64, 1)
    warm_up = [("prefill", 1), ("decode", 1)]
    assert here.backend.calls[1:] == [*warm_up, *[("prefill", 1), ("decode", 8)] * 3]


class Generating(Timed):
    """Its library takes a second longer than a loop over `decode`."""

    def loop(self, ids: Sequence[int], count: int) -> None:
        self.calls.append(("loop", len(ids), count))
        self._clock.now += 1 + count / 4


def test_the_librarys_own_loop_is_a_timing_of_its_own(clock: Clock, tmp_path: Path) -> None:
    here = Here(tmp_path, Generating(clock))
    assert "throughput/decode/generate" not in here.measure(throughput, **OPTIONS), (
        "where the tier asks for it"
    )
    here.backend.calls.clear()
    metrics = here.measure(throughput, "decode", **OPTIONS, generate=True, seconds=100.0)
    assert {name: m.value for name, m in metrics.items()} == {
        "throughput/decode": 4.0, "throughput/decode/generate": 8 / 3,
    }  # fmt: skip
    loops = [call for call in here.backend.calls if call[0] == "loop"]
    assert loops == [("loop", 1, 1), *[("loop", 1, 8)] * 3]
    assert "throughput/decode/generate" not in here.measure(throughput, "prefill", **OPTIONS, generate=True)
    here.backend = Timed(clock)
    assert "throughput/decode/generate" not in here.measure(throughput, **OPTIONS, generate=True), (
        "it has none"
    )


def test_a_prompt_of_one_token_is_enough(here: Here) -> None:
    assert set(here.measure(throughput, prompt=1, decode=1, first_token=1)) == {
        f"throughput/{name}" for name in ("prefill", "decode", "time_to_first_token", "load")
    }


@pytest.mark.parametrize("part", ["prefill", "decode", "time_to_first_token", "load"])
def test_only_the_timings_that_cases_need_are_made(here: Here, part: str) -> None:
    assert list(here.measure(throughput, part, **OPTIONS)) == [f"throughput/{part}"]
    works = {call[0] for call in here.backend.calls} - {"reserve"}
    assert works == {"load": set(), "decode": {"prefill", "decode"}}.get(part, {"prefill"})
