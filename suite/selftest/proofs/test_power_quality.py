"""Replays of perplexity and accuracy: windows and items drawn, effects and noise added exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from quantgate.errors import InputError
from quantgate.proofs.power import noise, paired, quality
from quantgate.records import Metric

from selftest.proofs.power_records import BLOCKS, CELL, answers, item_metric, perplexity, random


def drawn(metric: Metric, effect: Any, harmless: Any, count: int = 50) -> list[paired.Pair]:
    parts = {"perplexity": paired.Part(metric, np.asarray(harmless), effect)}
    return [pairs["perplexity"] for pairs in paired.replays(parts, count, random())]


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
    recorded = noise.Noise(paired={CELL: noisy, "m/r/r": {"perplexity": [0.0] * 24}})
    for scenario in quality.perplexity({CELL: metrics}, recorded):
        for replay in scenario.replays(5, random()):
            (before, after), (lost, loses) = replay.pairs["perplexity"], replay.pairs["perplexity/loss"]
            assert (before.samples, after.samples) == (lost.samples, loses.samples)


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
    with pytest.raises(InputError, match=r"only 8 of 10 items are right: 90.0 % cannot be lost"):
        paired.shift_for(margins, 0.9)


def test_the_mean_of_all_tasks_is_of_the_answers_drawn() -> None:
    cells = {CELL: task_metrics("a", [1.0, -1.0, 2.0, 3.0]) | task_metrics("b", [2.0, 1.0])}
    cells[CELL]["accuracy/mean/acc"] = item_metric([1.0] * 6).model_copy(
        update={"weights": [1.0] * 4 + [2.0] * 2}
    )
    recorded = noise.Noise(paired={CELL: {f"accuracy/{t}/margin": [0.0, 0.0] for t in "ab"}})
    for replay in quality.accuracy(cells, recorded)[1].replays(20, random()):
        for side in (0, 1):
            a, b, mean = (replay.pairs[f"accuracy/{name}/acc"][side].value for name in ("a", "b", "mean"))
            assert mean == pytest.approx((a + b) / 2)


def task_metrics(task: str, margins: list[float]) -> dict[str, Metric]:
    result = answers(margins)
    return {f"accuracy/{task}/acc": result.acc, f"accuracy/{task}/margin": result.margin}
