"""Accuracy and margins: exact values from a model of bigrams."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.base import Sizes
from quantgate.errors import MeasurementError
from quantgate.items import Choice, Item
from quantgate.measure.metrics import accuracy

from selftest.measure.fakes import CONTEXTS, Here, choice_task, greedy_task, task

if TYPE_CHECKING:
    pass


def test_multiple_choice_takes_the_likeliest_choice_and_the_likeliest_by_length(here: Here) -> None:
    continuations, gold = choice_task(here)
    metrics = here.measure(accuracy, tasks=["choose"], items=4)
    totals = [
        [here.backend.total([*c, *k], len(c)) for k in options]
        for c, options in zip(CONTEXTS, continuations, strict=True)
    ]
    plain = [float(int(np.argmax(t)) in g) for t, g in zip(totals, gold, strict=True)]
    normed = [
        float(int(np.argmax(np.array(t) / [1, 10, 19])) in g) for t, g in zip(totals, gold, strict=True)
    ]
    assert plain != normed, "or the test could not tell them apart"
    assert set(metrics) == {
        f"accuracy/{n}"
        for n in ("choose/acc", "choose/acc_norm", "choose/margin", "choose/margin_norm", "mean/acc")
    }
    for name, expected in (("acc", plain), ("acc_norm", normed)):
        metric = metrics[f"accuracy/choose/{name}"]
        assert metric.samples == expected
        assert metric.value == pytest.approx(np.mean(expected))
        assert metric.stderr == pytest.approx(np.std(expected, ddof=1) / 2)
        assert (metric.kind, metric.better, metric.unit, metric.weights) == (
            "paired",
            "higher",
            "fraction",
            None,
        )
        assert metric.conditions == {
            "source": "w1", "task": "choose", "task version": "1.0", "items": 4,
            "data": "d", "prompts": "p", "tokens": "k", "budget": 512, "scoring": "shared",
        }  # fmt: skip
    raw = metrics["accuracy/choose/acc"].raw["loglikelihoods"]
    assert [x for row in raw for x in row] == pytest.approx([x for row in totals for x in row], abs=1e-5)


def test_a_loglikelihood_task_asks_for_the_greedy_continuation_whole(here: Here) -> None:
    greedy_task(here)
    metrics = here.measure(accuracy, tasks=["last"], items=2)
    assert set(metrics) == {"accuracy/last/acc", "accuracy/last/margin", "accuracy/mean/acc"}
    assert metrics["accuracy/last/acc"].samples == [1.0, 0.0]
    assert metrics["accuracy/last/acc"].value == 0.5


def test_scoring_is_timed_by_task(here: Here) -> None:
    choice_task(here)
    greedy_task(here)
    here.options = {"accuracy": {"tasks": ["choose", "last"], "items": 2}}
    session = here.session()
    begin = time.perf_counter()
    accuracy.measure(session, [])
    assert session.scoring.keys() == {"choose", "last"}
    assert min(session.scoring.values()) > 0
    assert sum(session.scoring.values()) <= time.perf_counter() - begin


def test_items_longer_than_the_positions_lose_their_beginning(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    continuations, _ = choice_task(here)
    whole = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/acc"]
    longest = max(len(c) + len(k) for c, ks in zip(CONTEXTS, continuations, strict=True) for k in ks)
    sizes = Sizes(vocabulary=len(here.backend.table), positions=longest - 2)
    monkeypatch.setattr(here.backend, "sizes", lambda: sizes)
    here.options = {"accuracy": {"tasks": ["choose"], "items": 4}}
    session = here.session()
    acc = accuracy.measure(session, [])["accuracy/choose/acc"]
    cut = acc.conditions["cut items"]
    assert cut in (1, 2, 3)
    note = f"positions, so their beginnings are left out, as lm-evaluation-harness does: {cut} of 4 items of choose"
    assert note in session.notes["positions"]
    assert acc.raw["loglikelihoods"] == whole.raw["loglikelihoods"], "bigrams see one token before each"
    assert max(max(tree.positions) for tree in here.backend.trees[-4:]) == longest - 3
    monkeypatch.setattr(here.backend, "sizes", lambda: Sizes(vocabulary=7, positions=1))
    with pytest.raises(
        MeasurementError, match=r"an answer has \d tokens, the model 1 positions: leave this task out"
    ):
        accuracy.measure(here.session(), [])


def test_only_the_tasks_that_cases_need_are_done(here: Here) -> None:
    greedy_task(here)
    options: dict[str, Any] = {"tasks": ["choose", "last", "other"], "items": 2}
    assert set(here.measure(accuracy, "last", **options)) == {"accuracy/last/acc", "accuracy/last/margin"}
    choice_task(here)
    greedy_task(here, "other")
    every = here.measure(accuracy, **options)
    assert {name.split("/")[1] for name in every} == {"choose", "last", "other", "mean"}
    assert set(here.measure(accuracy, "last", "mean", **options)) == set(every), "the mean needs them all"


def test_the_margin_is_what_the_right_choice_leads_by(here: Here) -> None:
    continuations, gold = choice_task(here)
    metric = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/margin"]
    expected = []
    for context, options, right in zip(CONTEXTS, continuations, gold, strict=True):
        totals = [here.backend.total([*context, *k], len(context)) for k in options]
        wrong = [t for n, t in enumerate(totals) if n not in right]
        expected.append(max(totals[n] for n in right) - max(wrong))
    assert metric.samples == pytest.approx(expected, abs=1e-5)
    assert metric.value == pytest.approx(np.mean(expected), abs=1e-5)
    assert (metric.kind, metric.better, metric.unit, metric.link) == ("paired", "higher", "nats", "identity")
    answers = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/acc"].samples
    assert [m > 0 for m in expected] == [bool(x) for x in answers or []], "positive where the answer is right"


def test_the_normalized_margin_is_by_character(here: Here) -> None:
    continuations, gold = choice_task(here)
    metric = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/margin_norm"]
    expected = []
    for context, options, right in zip(CONTEXTS, continuations, gold, strict=True):
        scores = [
            here.backend.total([*context, *k], len(context)) / (1 + 9 * n) for n, k in enumerate(options)
        ]
        expected.append(
            max(scores[n] for n in right) - max(t for n, t in enumerate(scores) if n not in right)
        )
    assert metric.samples == pytest.approx(expected, abs=1e-5)
    assert metric.unit == "nats/character"


def test_the_margin_of_a_single_continuation_is_its_loglikelihood(here: Here) -> None:
    greedy_task(here)
    metrics = here.measure(accuracy, tasks=["last"], items=2)
    totals = [row[0] for row in metrics["accuracy/last/acc"].raw["loglikelihoods"]]
    assert metrics["accuracy/last/margin"].samples == totals


def test_in_the_mean_each_task_counts_the_same(here: Here) -> None:
    choice_task(here)
    greedy_task(here)
    metrics = here.measure(accuracy, tasks=["choose", "last"], items=4)
    parts = [metrics[f"accuracy/{name}/acc"] for name in ("choose", "last")]
    mean = metrics["accuracy/mean/acc"]
    assert mean.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    assert mean.samples == [*(parts[0].samples or []), *(parts[1].samples or [])]
    assert mean.weights == [1.0] * 4 + [2.0] * 2
    assert mean.stderr == pytest.approx(math.hypot(*(p.stderr or 0.0 for p in parts)) / 2)
    assert set(mean.conditions) == {"choose", "last"}
    greedy_task(here, "choose")
    again = here.measure(accuracy, tasks=["choose", "last"], items=4)["accuracy/mean/acc"]
    assert again.conditions["last"] == mean.conditions["last"]
    assert again.conditions["choose"] != mean.conditions["choose"], "other items are not comparable"


def pair_task(here: Here, name: str) -> None:
    """Two items of two sentences each."""
    items = [
        Item(choices=[Choice(context=c, continuation=[n, 3], characters=9) for n in (1, 2)], gold=[0])
        for c in CONTEXTS[:2]
    ]
    pairs = task(name, "multiple_choice", ["pct_stereotype", "likelihood_diff"], items)
    here.write(f"task-{name}.json", pairs.model_copy(update={"results": "pair"}).model_dump_json())


def test_tasks_about_bias_are_better_low_and_part_of_no_mean(here: Here) -> None:
    greedy_task(here)
    pair_task(here, "pairs")
    metrics = here.measure(accuracy, tasks=["pairs", "last"], items=2)
    preferred, apart = (metrics[f"accuracy/pairs/{m}"] for m in ("pct_stereotype", "likelihood_diff"))
    totals = [[here.backend.total([*c, n, 3], len(c)) for n in (1, 2)] for c in CONTEXTS[:2]]
    assert preferred.samples == [float(more > less) for more, less in totals]
    assert apart.samples == pytest.approx([abs(more - less) for more, less in totals], abs=1e-5)
    assert (preferred.better, apart.better, apart.unit) == ("lower", "lower", "nats")
    assert "loglikelihoods" in preferred.raw
    assert metrics["accuracy/mean/acc"].samples == metrics["accuracy/last/acc"].samples
    assert not any("pairs/margin" in name for name in metrics)
    with pytest.raises(MeasurementError, match="none of the tasks has an accuracy"):
        here.measure(accuracy, tasks=["pairs"], items=2)
    assert here.measure(accuracy, "pairs", tasks=["pairs"], items=2).keys() == {
        "accuracy/pairs/pct_stereotype",
        "accuracy/pairs/likelihood_diff",
    }


def test_progress_of_accuracy_runs_over_all_tasks(here: Here) -> None:
    choice_task(here)
    greedy_task(here)
    here.measure(accuracy, tasks=["choose", "last"], items=2, budget=16)
    assert {phase for phase, _, _ in here.progress} == {"accuracy"}
    shares = [done / total for _, done, total in here.progress]
    assert shares == sorted(shares)
    assert 0.5 in shares
    assert shares[-1] == 1.0


def test_the_number_of_examples_is_a_condition(here: Here) -> None:
    greedy_task(here)
    plain = here.measure(accuracy, tasks=["last"], items=2)["accuracy/last/acc"].conditions
    file = here.folder / "task-last.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fewshot": 5}))
    with_examples = here.measure(accuracy, tasks=["last"], items=2)["accuracy/last/acc"].conditions
    assert with_examples == {**plain, "fewshot": 5}
