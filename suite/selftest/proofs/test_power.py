"""Operating characteristics: effects added exactly, rates equal to theory where there is one, an honest table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.errors import InputError
from quantgate.judge.compare import Rules
from quantgate.proofs.power import figure, nested, noise, paired, quality, report, resources, study
from quantgate.proofs.power.__main__ import load_cells, main
from quantgate.proofs.power.rates import Rate
from quantgate.proofs.power.study import ANY, Replay, Row, Scenario
from quantgate.records import Measurement, Metric, Status, Verdict
from quantgate.run.against import alternation
from quantgate.run.merge import merge
from scipy import stats

from selftest.conftest import REPO

CELL = "m/llamacpp/Q4_K_M"


def random(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def perplexity(values: Any, windows: int) -> Metric:
    samples = np.asarray(values, dtype=float).ravel()
    return Metric(
        kind="paired",
        value=math.exp(samples.mean()),
        unit="",
        better="lower",
        link="exp",
        samples=samples.tolist(),
        weights=[128.0] * len(samples),
        conditions={"windows": windows},
    )


def item_metric(values: list[float], unit: str = "fraction") -> Metric:
    value = float(np.mean(values))
    return Metric(kind="paired", value=value, unit=unit, better="higher", samples=values)


def answers(margins: list[float], right: list[float] | None = None) -> paired.Answers:
    acc = [float(m > 0) for m in margins] if right is None else right
    return paired.Answers("t", item_metric(acc), item_metric(margins, "nats"), np.zeros(3))


def exact(value: float) -> Metric:
    return Metric(kind="exact", value=value, unit="bytes", better="lower")


def timings(seconds: list[list[float]], name: str = "decode", tokens: int = 16) -> Measurement:
    """A cell's record of one kind of rounds, by process."""
    middle = float(np.median([np.median(process) for process in seconds]))
    metric = Metric(
        kind="rounds",
        value=tokens / middle,
        unit="tokens/s",
        better="higher",
        samples=[s for process in seconds for s in process],
        processes=[len(process) for process in seconds],
        raw={
            "tokens": tokens,
            "disturbances": [{"others": 0.0, "steal": 0.0, "load": i} for i in range(len(seconds))],
        },
    )
    return record({f"throughput/{name}": metric})


def record(metrics: Mapping[str, Metric], cell: str = CELL) -> Measurement:
    return Measurement(
        cell=cell, tier="smoke", fingerprint="f", created="now", metrics=dict(metrics), complete=True
    )


def rules(*tolerances: Tolerance, alpha: float = 0.05) -> Rules:
    return Rules(Tolerances(run_alpha=0.01, tolerance=list(tolerances)), alpha)


def of(replay: Iterator[Replay], effect: float = 0.0, **more: Any) -> Scenario:
    """A scenario of replays made beforehand."""
    return Scenario("memory", effect, "made", "nowhere", 1, lambda count, random: replay, **more)


# --- rates and the two other rules ----------------------------------------------------------------


@pytest.mark.parametrize(("hits", "total"), [(0, 50), (1, 50), (49, 50), (50, 50), (7, 13)])
def test_intervals_are_those_of_the_exact_binomial_test(hits: int, total: int) -> None:
    known = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    assert Rate(hits, total).interval() == pytest.approx((known.low, known.high))


def test_eight_per_cent_of_the_mean_in_the_direction_of_a_loss() -> None:
    old = perplexity([3.0] * 4, 4)
    for change, red in [(0.079, False), (0.081, True), (-0.5, False)]:
        new = old.model_copy(update={"value": old.value * (1 + change)})
        assert study.beyond_share(new, old) == red
    score = item_metric([1.0, 0.0, 1.0, 1.0])
    assert study.beyond_share(score.model_copy(update={"value": 0.68}), score), "-9 %"
    assert not study.beyond_share(score.model_copy(update={"value": 0.70}), score), "-7 %"
    assert not study.beyond_share(score.model_copy(update={"value": 1.0}), score)


def test_perplexity_above_twenty_whatever_the_baseline() -> None:
    assert study.beyond_limit(perplexity([math.log(20.1)] * 2, 2))
    assert not study.beyond_limit(perplexity([math.log(19.9)] * 2, 2))


# --- perplexity: windows, effects, noise ----------------------------------------------------------


def drawn(metric: Metric, effect: Any, harmless: Any, count: int = 50) -> list[paired.Pair]:
    parts = {"perplexity": paired.Part(metric, np.asarray(harmless), effect)}
    return [pairs["perplexity"] for pairs in paired.replays(parts, count, random())]


BLOCKS = np.arange(24.0).reshape(6, 4) / 10
"""Six windows of four blocks, each block another value."""


def test_windows_stay_whole() -> None:
    metric = perplexity(BLOCKS, 6)
    pairs = drawn(metric, paired.uniform(metric, 0.0), np.zeros((1, 4)))
    rows = {tuple(row) for row in BLOCKS.tolist()}
    picked = [tuple(row) for old, _ in pairs for row in paired.by_cluster(old).tolist()]
    assert set(picked) == rows
    assert any(len({tuple(row) for row in paired.by_cluster(old).tolist()}) < 6 for old, _ in pairs)
    assert all(old.samples == new.samples and old.value == new.value for old, new in pairs)


@pytest.mark.parametrize("effect", [0.002, 0.005, 0.02])
def test_a_uniform_effect_is_exact_in_every_replay(effect: float) -> None:
    metric = perplexity(BLOCKS, 6)
    for old, new in drawn(metric, paired.uniform(metric, math.log1p(effect)), np.zeros((1, 4))):
        assert new.value / old.value == pytest.approx(1 + effect, rel=1e-12)
        assert new.value == pytest.approx(math.exp(np.average(new.samples or [], weights=new.weights)))


def test_a_real_loss_is_scaled_to_the_effect_and_keeps_its_spread() -> None:
    loss = random(3).normal(0.03, 0.02, (6, 4))
    better = perplexity(BLOCKS, 6)
    worse = perplexity(BLOCKS + loss, 6)
    effect = paired.as_between(worse, better, 0.005)
    assert effect.mean() == pytest.approx(0.005)
    wide = math.sqrt(6 / 5)
    assert effect.std() / effect.mean() == pytest.approx(wide * loss.std() / loss.mean())
    assert np.corrcoef(effect.ravel(), loss.ravel())[0, 1] == pytest.approx(1)


def test_what_is_no_loss_cannot_be_scaled_to_one() -> None:
    old, new = perplexity(BLOCKS, 6), perplexity(BLOCKS - 0.01, 6)
    with pytest.raises(InputError, match=r"differ by -0.01 on average: no loss to scale to \+0.005"):
        paired.as_between(new, old, 0.005)
    with pytest.raises(InputError, match="same tokens"):
        paired.as_between(new.model_copy(update={"conditions": {"windows": 3}}), old, 0.005)
    with pytest.raises(InputError, match="24 samples do not divide into 7 windows"):
        paired.clusters(perplexity(BLOCKS, 7))


def test_noise_comes_in_whole_windows_and_in_one_replay_with_one_sign() -> None:
    metric = perplexity(np.zeros((6, 4)), 6)
    harmless = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]) / 1000
    signs = set()
    for _, new in drawn(metric, paired.uniform(metric, 0.0), harmless):
        rows = paired.by_cluster(new)
        (sign,) = set(np.sign(rows).ravel())
        assert {tuple(row) for row in abs(rows).tolist()} <= {tuple(row) for row in harmless.tolist()}
        signs.add(sign)
    assert signs == {-1.0, 1.0}


def test_drawing_from_stretched_values_has_the_variance_that_they_show() -> None:
    values = random(5).normal(size=(5, 1))
    picks = paired.stretched(values)[random().integers(5, size=20_000)]
    assert picks.mean() == pytest.approx(values.mean(), abs=0.03)
    assert picks.var() == pytest.approx(values.var(ddof=1), rel=0.05)


def test_the_loss_to_the_reference_is_drawn_with_the_value_it_is_made_of() -> None:
    old = perplexity(BLOCKS, 6)
    metrics = {
        "perplexity": old,
        "perplexity/loss": old.model_copy(update={"conditions": {**old.conditions, "relative to": "m/r/r"}}),
    }
    noisy = {"perplexity": (random(4).normal(0, 1e-3, 24)).tolist()}
    known = noise.Noise(paired={CELL: noisy, "m/r/r": {"perplexity": [0.0] * 24}})
    for scenario in quality.perplexity({CELL: metrics}, known):
        for replay in scenario.replays(5, random()):
            (before, after), (lost, loses) = replay.pairs["perplexity"], replay.pairs["perplexity/loss"]
            assert (before.samples, after.samples) == (lost.samples, loses.samples)


def normal_noise(effect: float, sd: float) -> Scenario:
    """Windows of one block whose differences are as good as normal."""
    metric = perplexity(np.full((8, 1), 3.0), 8)
    harmless = random(11).normal(0, sd, (20_000, 1))

    def run(count: int, random: np.random.Generator) -> Iterator[Replay]:
        parts = {"perplexity": paired.Part(metric, harmless, paired.uniform(metric, effect))}
        for pairs in paired.replays(parts, count, random):
            yield Replay(CELL, pairs)

    return Scenario("perplexity", effect, "uniform", "made", 1, run)


@pytest.mark.parametrize("effect", [0.0, 0.001, 0.002])
def test_rates_are_those_of_the_t_test(effect: float) -> None:
    """A tolerance of 0 leaves the paired t-test; its power is a tail of the noncentral t distribution."""
    sd, alpha, count = 0.002, 0.05, 800
    (row,) = study.study(
        normal_noise(effect, sd), rules(Tolerance(metric="perplexity", relative=0), alpha=alpha), count
    )
    expected = stats.nct.sf(stats.t.isf(alpha, 7), 7, effect * math.sqrt(8) / sd)
    assert row.red.total == count
    assert abs(row.red.share - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_a_judge_that_always_passes_detects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = rules(Tolerance(metric="perplexity", relative=0.0025))
    scenario = normal_noise(0.02, 0.0001)
    (row,) = study.study(scenario, gate, 20)
    assert (row.red, row.share, row.limit) == (Rate(20, 20), Rate(0, 20), Rate(20, 20))
    passing = Verdict(cell=CELL, metric="perplexity", status=Status.PASS, tolerance=0.0025)
    monkeypatch.setattr(study, "verdicts", lambda *_: [passing])
    (row,) = study.study(scenario, gate, 20)
    assert row.red == Rate(0, 20)


def test_what_no_gate_can_tell_is_inconclusive_in_the_row_of_all() -> None:
    gate = rules(
        Tolerance(metric="perplexity", relative=0.01),
        Tolerance(metric="perplexity/reproduction", absolute=1.0, here=1.0),
    )
    rows = {row.gate: row for row in study.study(normal_noise(0.0, 0.05), gate, 20)}
    assert rows["perplexity"].inconclusive.hits > 10
    assert rows["perplexity/reproduction"].inconclusive == Rate(0, 20)
    assert rows[ANY].inconclusive == rows["perplexity"].inconclusive


def test_a_changed_computation_is_red_at_its_own_gate() -> None:
    gate = rules(
        Tolerance(metric="perplexity", relative=0.5),
        Tolerance(metric="perplexity/reproduction", absolute=0.001, here=0.001),
    )
    rows = {row.gate: row for row in study.study(normal_noise(0.01, 0.0001), gate, 10)}
    assert rows["perplexity"].red == Rate(0, 10)
    assert rows["perplexity/reproduction"].red == Rate(10, 10)
    assert rows[ANY].red == Rate(10, 10)


# --- accuracy -------------------------------------------------------------------------------------


def test_flips_take_the_share_of_all_items_and_turn_the_margin() -> None:
    task = answers([1.0, 2.0, -1.0, 3.0] * 25)
    lost = []
    for pairs in paired.answer_replays(task, 0.05, 0.0, 400, random()):
        acc, margin = pairs["accuracy/t/acc"], pairs["accuracy/t/margin"]
        lost.append(acc[0].value - acc[1].value)
        for old, new, before, after in zip(*(m.samples or () for m in (*acc, *margin)), strict=True):
            assert (new, after) in ((old, before), (0.0, -before) if old else (old, before))
    assert np.mean(lost) == pytest.approx(0.05, abs=0.004)


def test_answers_follow_sinking_margins_and_not_where_the_margin_decides_nothing() -> None:
    decided, greedy = answers([1.0, 2.0, -1.0, 3.0]), answers([-1.0, -2.0, -1.5, -3.0], [1.0, 0.0, 1.0, 0.0])
    assert decided.margin_decides
    assert not greedy.margin_decides
    for pairs in paired.answer_replays(decided, 0.5, 1.5, 30, random()):
        margin = pairs["accuracy/t/margin"]
        assert margin[1].value == pytest.approx(margin[0].value - 1.5)
        assert pairs["accuracy/t/acc"][1].samples == [float(m > 0) for m in margin[1].samples or ()]
    changes = [
        pairs["accuracy/t/acc"][0].value - pairs["accuracy/t/acc"][1].value
        for pairs in paired.answer_replays(greedy, 0.25, 1.5, 400, random())
    ]
    assert np.mean(changes) == pytest.approx(0.25, abs=0.03)


def test_the_shift_that_loses_a_share_of_the_answers() -> None:
    margins = np.array([0.1, 0.2, 0.4, 0.8, -1.0, -2.0, 5.0, 6.0, 7.0, 8.0])
    assert paired.shift_for(margins, 0.2) == pytest.approx(0.2)
    assert paired.shift_for(margins, 0.25) == pytest.approx(0.3)
    with pytest.raises(InputError, match=r"only 8 of 10 items are right: 90.0% cannot be lost"):
        paired.shift_for(margins, 0.9)


def test_the_mean_of_all_tasks_is_of_the_answers_drawn() -> None:
    cells = {CELL: task_metrics("a", [1.0, -1.0, 2.0, 3.0]) | task_metrics("b", [2.0, 1.0])}
    cells[CELL]["accuracy/mean/acc"] = item_metric([1.0] * 6).model_copy(
        update={"weights": [1.0] * 4 + [2.0] * 2}
    )
    known = noise.Noise(paired={CELL: {f"accuracy/{t}/margin": [0.0, 0.0] for t in "ab"}})
    for replay in quality.accuracy(cells, known)[1].replays(20, random()):
        for side in (0, 1):
            a, b, mean = (replay.pairs[f"accuracy/{name}/acc"][side].value for name in ("a", "b", "mean"))
            assert mean == pytest.approx((a + b) / 2)


def task_metrics(task: str, margins: list[float]) -> dict[str, Metric]:
    found = answers(margins)
    return {f"accuracy/{task}/acc": found.acc, f"accuracy/{task}/margin": found.margin}


# --- timings and peaks ----------------------------------------------------------------------------

SECONDS = [[0.10, 0.12, 0.11], [0.20, 0.21, 0.22], [0.15, 0.14, 0.16], [0.12, 0.11, 0.13]]


def test_splitting_and_merging_give_the_record_back() -> None:
    found = timings(SECONDS)
    parts = nested.split(found, "throughput")
    assert [p.metrics["throughput/decode"].samples for p in parts] == SECONDS
    assert [p.metrics["throughput/decode"].value for p in parts] == pytest.approx(
        [16 / np.median(s) for s in SECONDS]
    )
    again, metric = merge(parts).metrics["throughput/decode"], found.metrics["throughput/decode"]
    assert again.model_copy(update={"value": metric.value}) == metric
    assert again.value == pytest.approx(metric.value)
    assert nested.split(found, "memory") == []


@pytest.mark.parametrize("slower", [0.03, 0.05, 0.2])
def test_a_slowdown_is_exact(slower: float) -> None:
    found = timings(SECONDS)
    metric = nested.times(found, 1 / (1 - slower)).metrics["throughput/decode"]
    assert metric.value == pytest.approx(found.metrics["throughput/decode"].value * (1 - slower))
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
    found = timings(SECONDS)
    shared = {n: m.model_copy(update={"in_turns": True}) for n, m in found.metrics.items()}
    run = nested.split(found.model_copy(update={"metrics": shared}), "throughput")
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
    known = {cell.id: cell for cell in fake_cells(*cells)}
    gate = rules(
        *(Tolerance(metric=f"throughput/decode{s}", relative=t) for s, t in (("", 0.1), ("_ratio", 0.4)))
    )
    scenarios = resources.tokens_per_second(noise.Noise(sittings=runs), known, 3)
    ways = {scenario.spread for scenario in scenarios}
    assert len(ways) == 2 + len(resources.PAIRS)
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

    known = {cell.id.split("/", 1)[1]: cell for cell in load_matrix().cells("smoke")}
    return [
        known[name.split("/", 1)[1]].model_copy(update={"model": "m", "reference": "m/llamacpp/F16"})
        for name in names
    ]


# --- whole runs -----------------------------------------------------------------------------------


A, B = "m/llamacpp/A", "m/llamacpp/B"


def sizes(*values: tuple[str, float]) -> Iterator[Replay]:
    """Replays of a cell whose weights were 100 bytes."""
    return iter([Replay(cell, {"memory/weight_bytes": (exact(100), exact(value))}) for cell, value in values])


def test_a_run_with_several_red_cases_is_one_alarm() -> None:
    gate = rules(Tolerance(metric="memory/*", relative=0))
    one = of(sizes((A, 100), (A, 101), (A, 100), (B, 100), (B, 101), (B, 100)))
    other = of(sizes((A, 100), (A, 100), (A, 102)))
    ignored = [of(sizes((A, 200)), effect=0.1), of(sizes((A, 200)), everywhere=False)]
    alarms = study.run_alarms([one, *ignored, other], gate, 3)
    assert (alarms.rate, alarms.gates) == (Rate(2, 3), 3)
    assert alarms.red == {f"memory/weight_bytes of {A}": 2, f"memory/weight_bytes of {B}": 1}


def test_an_ab_of_one_cell_is_judged_at_the_level_of_its_own_gates() -> None:
    gate = rules(alpha=0.2)
    assert normal_noise(0.0, 0.1).rules(gate).alpha == 0.2
    assert replace(normal_noise(0.0, 0.1), gates=4).rules(gate).alpha == 0.0025


@pytest.mark.parametrize(("place", "alarm"), [(study.HERE, True), (study.ELSEWHERE, False)])
def test_what_is_allowed_elsewhere_only_is_an_alarm_in_the_baselines_environment(
    place: str, alarm: bool
) -> None:
    gate = rules(Tolerance(metric="perplexity", relative=0.05, here=0.001))
    scenario = replace(normal_noise(0.01, 0.0001), place=place)
    (row,) = study.study(scenario, gate, 10)
    assert row.red == Rate(10 if alarm else 0, 10)
    null = replace(scenario, effect=0.0)  # as if the noise itself were as large
    assert study.run_alarms([null], gate, 5, place)[0] == Rate(5 if alarm else 0, 5)
    other = study.ELSEWHERE if alarm else study.HERE
    assert study.run_alarms([null], gate, 5, other)[0] == Rate(0, 5)


def test_at_rest_nothing_differs() -> None:
    still = noise.Noise(paired={CELL: {"perplexity": [0.1, -0.2]}}).still()
    assert (still.paired, still.place) == ({CELL: {"perplexity": [0.0, 0.0]}}, study.HERE)


# --- the record of noise --------------------------------------------------------------------------


def results(folder: Path, cell: str, *metrics: tuple[str, Metric]) -> Path:
    file = folder / f"{cell}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(record(dict(metrics), cell).model_dump_json())
    file.with_name(f"{file.stem}~job.json").write_text("{}")
    return folder


def test_noise_is_recorded_and_read_back(tmp_path: Path) -> None:
    old, new = perplexity(BLOCKS, 6), perplexity(BLOCKS + 0.5, 6)
    decode = timings(SECONDS).metrics["throughput/decode"]
    first = results(tmp_path / "first", CELL, ("perplexity", old), ("throughput/decode", decode))
    other = results(tmp_path / "other", CELL, ("perplexity", new), ("gone", new))
    written = noise.record(
        [first, first], [other, other], {CELL: {"perplexity": old}}, tmp_path / "noise.json"
    )
    read = noise.load_noise({CELL: {"perplexity": old}}, tmp_path / "noise.json")
    assert read == written
    assert read.differences(CELL, "perplexity") == pytest.approx([0.5] * 48)
    assert paired.by_cluster(old, read.differences(CELL, "perplexity")).shape == (12, 4)
    assert [list(sitting.cells[CELL].metrics) for sitting in read.sittings] == [["throughput/decode"]] * 2


def test_without_a_record_of_its_own_a_cell_gets_the_difference_of_the_references(tmp_path: Path) -> None:
    (tmp_path / "noise.json").write_text("{}")
    metrics = {"transformers/fp32": 0.0, "llamacpp/F16": 0.25, "llamacpp/Q4_0": 1.0}
    cells = {f"m/{name}": {"perplexity": perplexity(BLOCKS + by, 6)} for name, by in metrics.items()}
    found = noise.load_noise(cells, tmp_path / "noise.json")
    assert found.differences("m/llamacpp/Q4_0", "perplexity") == pytest.approx([0.25] * 24)
    with pytest.raises(
        InputError, match="no harmless differences of accuracy of m/llamacpp/Q4_0; --record them"
    ):
        found.differences("m/llamacpp/Q4_0", "accuracy")


@pytest.mark.parametrize("run", ["1", "2", "3", "4"])  # both orders are among them
def test_both_sides_of_an_ab_are_one_run_in_the_order_they_ran(tmp_path: Path, run: str) -> None:
    file = tmp_path / f"{CELL}.json"
    for name, seconds in (("Q4_K_M~old.json", SECONDS[2:]), ("Q4_K_M.json", SECONDS[:2])):
        metric = timings(seconds).metrics["throughput/decode"].model_copy(update={"beside": run})
        results(tmp_path, CELL, ("throughput/decode", metric))
        file.rename(file.with_name(name))
    metric = noise.read_results(tmp_path)[CELL].metrics["throughput/decode"]
    sides = {"old": SECONDS[2:], "new": SECONDS[:2]}
    order = [sides[s][number] for number, pair in enumerate(alternation(2, f"{run} {CELL}")) for s in pair]
    assert metric.samples == [s for process in order for s in process]
    assert metric.beside is None


def test_the_other_side_of_an_earlier_ab_is_not_that_of_a_plain_run(tmp_path: Path) -> None:
    file = tmp_path / f"{CELL}.json"
    file.parent.mkdir(parents=True)
    for name, seconds in (("Q4_K_M~old.json", SECONDS[2:]), ("Q4_K_M.json", SECONDS[:2])):
        found = timings(seconds).model_copy(update={"run": name})
        file.with_name(name).write_text(found.model_dump_json())
    assert noise.read_results(tmp_path)[CELL] == found


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), ('{"x": 1}', "not what --record writes")]
)
def test_a_missing_or_foreign_record_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "noise.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        noise.load_noise({}, path)
    with pytest.raises(InputError, match="no measurements"):
        noise.read_results(tmp_path)


# --- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0"), (1.0, "100"), (0.9999, "99.99"), (0.0004, "0.04"), (0.5, "50.0")]
)
def test_nought_and_hundred_are_shown_only_where_they_are_exact(share: float, text: str) -> None:
    assert report.percent(share) == text


def rows() -> list[Row]:
    def row(effect: float, spread: str, hits: int, gate: str = "perplexity") -> Row:
        scenario = Scenario("perplexity", effect, spread, "baselines", 1, lambda count, random: iter(()))
        return Row(scenario, gate, Rate(hits, 50), Rate(5, 50), Rate(1, 50), Rate(50, 50))

    return [row(0, "none", 0), row(0.005, "uniform", 50), row(0.02, "uniform", 25)]


def test_a_line_begins_with_the_replays_without_effect() -> None:
    (section,) = report.sections(rows())
    assert section.columns == ["judged by", "effect", "none", "+0.5 %", "+2 %", "replays"]
    gate, share, limit = section.rows
    assert gate[:2] == ["perplexity", "uniform"]
    assert gate[2] == "0 (0 to 7.1), 10.0 inconclusive"
    assert gate[3].startswith("100 (92.9 to 100)")
    assert gate[4].startswith("50.0 (")
    assert (share[0], limit[0]) == ("rule: 8 % of the mean", "rule: perplexity above 20")
    assert limit[4] == "100 (92.9 to 100)"
    assert section.notes == ["none: baselines", "uniform: baselines"]


def test_markdown_has_a_whole_table_for_each_section() -> None:
    found = rows()
    found[0].gate = found[1].gate = found[2].gate = "accuracy/*/acc"
    text = report.to_markdown(report.sections(found), ["judged well"])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("- judged well\n")
    assert len({line.count("|") for line in lines}) == 1
    assert "accuracy/\\*/acc" in lines[2]


def test_the_figure_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        figure.draw(rows(), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert text.count("rule: perplexity above 20") == 1


def test_the_command_prints_and_writes_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the committed baselines, with a replay of each cell."""
    file = tmp_path / "power.md"
    assert main(["--replays", "3", "--markdown", str(file)]) == 0
    printed, written = capsys.readouterr().out, file.read_text()
    for text in (printed, written):
        assert "perplexity" in text
        for place in (study.HERE, study.ELSEWHERE):
            assert f"whole runs without any change {place} that had a red case" in text
    for heading in (f"perplexity, {study.HERE}", f"perplexity, {study.ELSEWHERE}", "memory"):
        assert f"### {heading}: red" in written
    assert main(["--baselines", str(tmp_path), "--record", str(tmp_path)]) == 4
    assert "no measurements" in capsys.readouterr().out


def test_the_committed_record_is_small_and_of_the_committed_cells() -> None:
    found = json.loads(noise.NOISE.read_bytes())
    assert noise.NOISE.stat().st_size < 400_000
    assert {cell for sitting in found.get("sittings", []) for cell in sitting["cells"]} <= set(
        load_cells(REPO / "baselines", "smoke")
    )
