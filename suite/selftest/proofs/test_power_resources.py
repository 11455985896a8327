"""Replays of timings and peaks: processes drawn, effects multiplied in, a second look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.errors import InputError
from quantgate.proofs.power import nested, noise, paired, resources, study
from quantgate.proofs.power.study import Replay
from quantgate.records import Status
from quantgate.run.merge import merge

from selftest.proofs.power_records import CELL, SECONDS, random, rules, timings


def test_splitting_and_merging_give_the_record_back() -> None:
    result = timings(SECONDS)
    parts = nested.split(result, "throughput")
    assert [p.metrics["throughput/decode"].samples for p in parts] == SECONDS
    assert [p.metrics["throughput/decode"].value for p in parts] == pytest.approx(
        [16 / np.median(s) for s in SECONDS]
    )
    again, metric = merge(parts).metrics["throughput/decode"], result.metrics["throughput/decode"]
    assert again.model_copy(update={"value": metric.value}) == metric
    assert again.value == pytest.approx(metric.value)
    assert nested.split(result, "memory") == []


@pytest.mark.parametrize("slower", [0.03, 0.05, 0.2])
def test_a_slowdown_is_exact(slower: float) -> None:
    result = timings(SECONDS)
    metric = nested.times(result, 1 / (1 - slower)).metrics["throughput/decode"]
    assert metric.value == pytest.approx(result.metrics["throughput/decode"].value * (1 - slower))
    assert metric.samples == pytest.approx([s / (1 - slower) for process in SECONDS for s in process])


def test_processes_are_spread_out_about_their_geometric_mean() -> None:
    def logs(run: nested.Run) -> Any:
        return np.log([part.metrics["throughput/decode"].medians[0] for part in run])

    run = nested.split(timings(SECONDS), "throughput")
    wide = nested.spread_out(run)
    assert logs(wide).mean() == pytest.approx(logs(run).mean())
    assert logs(wide).var() == pytest.approx(logs(run).var(ddof=1))
    alone = nested.spread_out(run[:1])
    assert alone[0].metrics["throughput/decode"].samples == SECONDS[0]


def test_the_sides_of_an_ab_are_neighbours_in_either_order() -> None:
    run = nested.split(timings(SECONDS), "throughput")
    place = {id(part): number for number, part in enumerate(run)}
    one, other = nested.neighbours(run, 200, random())
    steps = {place[id(b)] - place[id(a)] for a, b in zip(one, other, strict=True)}
    assert steps == {-1, 1}
    assert {place[id(a)] for a in one} == {0, 1, 2, 3}
    with pytest.raises(InputError, match="four recorded processes or more, not from 3"):
        nested.neighbours(run[:3], 5, random())


def test_the_sides_of_an_ab_in_turns_are_those_that_shared_them() -> None:
    result = timings(SECONDS)
    shared = {n: m.model_copy(update={"in_turns": True}) for n, m in result.metrics.items()}
    run = nested.split(result.model_copy(update={"metrics": shared}), "throughput")
    place = {id(part): number for number, part in enumerate(run)}
    one, other = nested.neighbours(run, 200, random())
    assert {(place[id(a)], place[id(b)]) for a, b in zip(one, other, strict=True)} == {
        (0, 1),
        (1, 0),
        (2, 3),
        (3, 2),
    }
    first, again = (merge(side).metrics["throughput/decode"] for side in (one, other))
    assert first.in_turns
    assert again.in_turns


def test_baseline_and_measurement_are_of_different_runs_where_there_are_two() -> None:
    assert {str(nested.two_sides(2, random(seed))) for seed in range(20)} == {"([0], [1])", "([1], [0])"}
    assert nested.two_sides(1, random()) == ([0], [0])
    old, new = nested.two_sides(4, random())
    assert sorted(old + new) == [0, 1, 2, 3]


def test_no_process_is_drawn_twice_and_the_nearest_run_gives_first() -> None:
    run = nested.split(timings(SECONDS), "throughput")
    drawn = nested.draw([run[:2], run[2:]], 3, random())
    assert {id(part) for part in drawn[:2]} == {id(part) for part in run[:2]}
    assert drawn[2] in run[2:]
    with pytest.raises(InputError, match="4 recorded processes are too few to draw 5 different ones"):
        nested.draw([run[:2], run[2:]], 5, random())


def slow(seconds: float) -> paired.Pair:
    """Three steady processes, against processes of this round time."""
    sides = [timings([[s, s * 1.001], [s, s * 1.002], [s * 1.001, s]]) for s in (0.1, seconds)]
    one, other = (side.metrics["throughput/decode"] for side in sides)
    return one, other


@pytest.mark.parametrize(
    ("first", "second", "fresh", "status"),
    [
        (0.15, 0.15, 0.15, Status.REGRESSION),
        (0.15, 0.15, 0.10, Status.INCONCLUSIVE),
        (0.15, 0.10, 0.15, Status.PASS),
        (0.15, 0.15, None, Status.REGRESSION),
        (0.15, 0.10, None, Status.PASS),
        (0.10, 0.15, 0.15, Status.PASS),
    ],
)
def test_a_second_look_has_the_last_word_on_what_seems_worse(
    first: float, second: float, fresh: float | None, status: Status
) -> None:
    """Without `fresh`: an A/B, whose second look is of fresh processes only."""
    name = "throughput/decode"
    replay = Replay(CELL, {name: slow(first)}, lambda: {name: slow(second)}, against=fresh is None)
    if fresh is not None:
        replay = replay._replace(fresh=lambda: {name: slow(fresh)})
    assert study.judged(replay, rules(Tolerance(metric=name, relative=0.1))) == {name: status}


def test_every_way_to_time_a_cell_finds_half_the_speed_and_nothing_without_effect() -> None:
    """Quiet processes in two runs; the ratio's tolerance of 40 % lets half the speed through no more."""
    cells = {cell: cell for cell in ("m/llamacpp/F16", CELL)}
    runs = [
        noise.Sitting(
            cells={
                cell: timings((0.1 * (1 + random(seed).normal(0, 0.001, (6, 2)))).tolist()).model_copy(
                    update={"cell": cell}
                )
                for seed, cell in enumerate(cells, start)
            }
        )
        for start in (1, 7)
    ]
    by_id = {cell.id: cell for cell in fake_cells(*cells)}
    gate = rules(
        *(Tolerance(metric=f"throughput/decode{s}", relative=t) for s, t in (("", 0.1), ("_ratio", 0.4)))
    )
    scenarios = resources.tokens_per_second(noise.Noise(sittings=runs), by_id, 3)
    ways = {scenario.spread for scenario in scenarios}
    assert len(ways) == 2 + len(resources.PAIRS)
    alone = resources.tokens_per_second(noise.Noise(sittings=runs), {CELL: by_id[CELL]}, 3)
    assert {scenario.spread for scenario in alone} == ways - {resources.RATIO}, (
        "another tier, without the reference"
    )
    for scenario in scenarios:
        halved = study.study(scenario, gate, 12)
        limit = 0.4 if scenario.spread == resources.RATIO else 0.1
        (row,) = halved
        if scenario.effect == 0:
            assert row.red.hits == 0
        if scenario.effect == 0.2:
            assert row.red.hits == (row.red.total if limit == 0.1 else 0)


def fake_cells(*names: str) -> list[Any]:
    from quantgate.run.inputs import load_matrix

    smoke = {cell.id.split("/", 1)[1]: cell for cell in load_matrix().cells("smoke")}
    return [
        smoke[name.split("/", 1)[1]].model_copy(update={"model": "m", "reference": "m/llamacpp/F16"})
        for name in names
    ]
