"""What the sample can see: levels of a run, the smallest change a gate detects, tolerances that ask for more."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.judge import Subject, judge
from quantgate.judge.sensitivity import detectable, gate_level, too_narrow, with_sensitivity
from quantgate.records import Metric, Status

CELL = "m/llamacpp/Q4_0"
ALPHA = 5e-5


def perplexity(blocks: int = 32, **changes: Any) -> Metric:
    fields: dict[str, Any] = {
        "kind": "paired", "value": 20.0, "unit": "", "better": "lower", "link": "exp",
        "samples": [3.0] * blocks, "weights": [128.0] * blocks,
    }  # fmt: skip
    return Metric(**fields | changes)


def accuracy(items: int) -> Metric:
    return Metric(
        kind="paired",
        value=0.5,
        unit="fraction",
        better="higher",
        answers=True,
        samples=[1.0, 0.0] * (items // 2),
    )


def tolerances(*entries: Tolerance, run_alpha: float = 0.01) -> Tolerances:
    return Tolerances(run_alpha=run_alpha, tolerance=list(entries))


PERPLEXITY = Tolerance(metric="perplexity", relative=0.0025)
SAME = Tolerance(metric="perplexity/reproduction", absolute=0.002, here=0.0)
MEAN = Tolerance(metric="accuracy/mean/acc", absolute=0.3)
PEAK = Tolerance(metric="memory/peak", relative=0.15, noise=0.02)
EXACT = Tolerance(metric="memory/weight_bytes", relative=0.0)


def test_the_level_of_a_run_is_shared_by_the_gates_that_can_raise_a_false_alarm() -> None:
    exact = Metric(kind="exact", value=1.0, unit="bytes", better="lower")
    metrics = {
        "perplexity": perplexity(),
        "memory/weight_bytes": exact,
        "perplexity/bits_per_byte": perplexity(),
    }
    level = gate_level(tolerances(PERPLEXITY, EXACT), {"a/b/c": metrics, "a/b/d": metrics})
    assert level == 0.01 / 2, "one of each cell: the exact one and the one without a gate do not count"
    assert gate_level(tolerances(PERPLEXITY), {}) == 0.01


def test_the_detectable_change_is_found_by_the_judge_19_times_of_20() -> None:
    """Differences as large as the gate on reproduction lets pass, and a change of exactly the detectable size."""
    random, rules = np.random.default_rng(3), tolerances(PERPLEXITY, SAME)
    old = perplexity()
    change = detectable("perplexity", CELL, old, rules, ALPHA)
    assert change is not None
    narrow = PERPLEXITY.model_copy(update={"relative": 0.0})
    detected = 0
    for _ in range(1000):
        new = [3.0 + math.log1p(change) + d for d in random.normal(0, 0.002, 32)]
        detected += (
            judge(Subject(CELL, "perplexity"), perplexity(samples=new), old, narrow, ALPHA).status
            == Status.REGRESSION
        )
    assert detected / 1000 == pytest.approx(0.95, abs=0.03)


def test_what_has_no_gate_or_no_noise_detects_nothing_in_particular() -> None:
    rules = tolerances(PERPLEXITY, EXACT)
    exact = Metric(kind="exact", value=1.0, unit="bytes", better="lower")
    assert detectable("memory/weight_bytes", CELL, exact, rules, ALPHA) is None
    assert detectable("perplexity/bits_per_byte", CELL, perplexity(), rules, ALPHA) is None
    assert detectable("perplexity", CELL, perplexity(), rules, ALPHA) is None, "its noise is unknown"


def test_more_processes_detect_smaller_changes_of_a_peak() -> None:
    """Simulated: of equally many processes on both sides, by the judge. One alone never shows a loss."""

    def peak(values: list[float]) -> Metric:
        return Metric(kind="level", value=values[0], unit="bytes", better="lower", samples=values)

    one, few, more = (
        detectable("memory/peak", CELL, peak([1e8] * n), tolerances(PEAK), ALPHA) for n in (1, 4, 16)
    )
    assert one is None
    assert few is not None
    assert more is not None
    assert few > 2 * more
    random, none = np.random.default_rng(8), PEAK.model_copy(update={"relative": 0.0})
    detected = 0
    for _ in range(500):
        old, new = (
            (factor * np.exp(random.normal(0, 0.02, 4))).tolist() for factor in (1e8, 1e8 * (1 + few))
        )
        verdict = judge(Subject(CELL, "memory/peak"), peak(new), peak(old), none, ALPHA)
        detected += verdict.status == Status.REGRESSION
    assert detected / 500 > 0.95


def test_a_rate_cannot_lose_more_than_all() -> None:
    """Half of a rate is lost where a duration doubles: the same on the log scale, another share."""
    rules = tolerances(Tolerance(metric="m", relative=0.3, noise=0.1))

    def smallest(better: Literal["lower", "higher"], unit: str) -> float:
        metric = Metric(kind="level", value=1.0, unit=unit, better=better, samples=[1.0] * 3)
        return detectable("m", CELL, metric, rules, 0.001) or 0.0

    slower, fewer = smallest("lower", "s"), smallest("higher", "tokens/s")
    assert 1 - fewer == pytest.approx(1 / (1 + slower))


@pytest.mark.parametrize(("limit", "enough"), [(0.0025, True), (0.001, False)])
def test_a_tolerance_below_what_the_sample_shows_is_told_with_what_would_do(
    limit: float, enough: bool
) -> None:
    entry = PERPLEXITY.model_copy(update={"relative": limit})
    rules = tolerances(entry, SAME)
    seen, void, refused, _ = with_sensitivity(CELL, {"perplexity": perplexity()}, rules, ALPHA)
    assert not void, "a loss of 0.3 % is red all the same"
    assert seen["perplexity"].detectable == pytest.approx(0.00222, rel=0.02)
    assert bool(refused) != enough
    if not enough:
        assert "perplexity: the tolerance of 0.1 % is below 0.22" in refused[0]
        tokens = int(refused[0].split("; ")[1].split(" ")[0].replace(",", ""))
        more = perplexity(blocks=math.ceil(tokens / 128))
        assert not with_sensitivity(CELL, {"perplexity": more}, rules, ALPHA).narrow, "so many do"
        fewer = perplexity(blocks=math.floor(tokens / 128) - 1)
        assert with_sensitivity(CELL, {"perplexity": fewer}, rules, ALPHA).narrow


def test_a_sample_that_nobody_measures_is_not_advised() -> None:
    entry = PERPLEXITY.model_copy(update={"relative": 1e-7})
    (text,) = with_sensitivity(CELL, {"perplexity": perplexity()}, tolerances(entry, SAME), ALPHA).narrow
    assert text.endswith("% of the time: measure more in this tier, or widen the tolerance")


def test_windows_are_called_windows() -> None:
    """Each of them weighs one; blocks of text weigh their tokens."""
    entry = PERPLEXITY.model_copy(update={"relative": 0.0001})
    windows = perplexity().model_copy(update={"weights": [1.0] * len(perplexity().samples or ())})
    for metric, noun in [(windows, "windows"), (perplexity(), "scored tokens")]:
        assert f" {noun} detect" in too_narrow("x", metric, entry, 0.01, ALPHA)


def test_flips_are_told_with_the_number_of_items_that_would_do() -> None:
    entry = MEAN.model_copy(update={"absolute": 0.05})
    smallest = detectable(entry.metric, CELL, accuracy(80), tolerances(entry), ALPHA)
    text = too_narrow(entry.metric, accuracy(80), entry, smallest, ALPHA)
    assert (
        "the tolerance of 5 % is below 26 %, the smallest loss that 80 items detect 95 % of the time; 434 items"
        in text
    )
    assert not with_sensitivity(CELL, {entry.metric: accuracy(436)}, tolerances(entry), ALPHA).narrow
    two = entry.model_copy(update={"here": 0.01})
    assert "the tolerance of 5 % in another environment is" in too_narrow(
        "x", accuracy(80), two, smallest, ALPHA
    )


def test_a_relative_tolerance_on_answers_asks_for_the_items_of_its_share() -> None:
    entry = Tolerance(metric="accuracy/arc/acc", relative=0.1)
    smallest = detectable(entry.metric, CELL, accuracy(100), tolerances(entry), ALPHA)
    assert "434 items would do" in too_narrow(entry.metric, accuracy(100), entry, smallest, ALPHA), "5 points"


def test_a_tolerance_of_nothing_is_never_enough_and_says_no_number() -> None:
    none = PERPLEXITY.model_copy(update={"relative": 0.0})
    text = with_sensitivity(CELL, {"perplexity": perplexity()}, tolerances(none, SAME), ALPHA).narrow[0]
    assert "would do" not in text
    assert "widen the tolerance" in text


def few(name: str, value: float, samples: list[float], **more: Any) -> dict[str, Metric]:
    fields: dict[str, Any] = {"kind": "paired", "value": value, "unit": "nats", "better": "lower"}
    return {name: Metric(**{**fields, "samples": samples, **more})}


MARGIN = Tolerance(metric="margin", absolute=2.4)
HARMLESS = Tolerance(metric="margin/reproduction", absolute=1.2, here=0.0)
SHARE = {"unit": "fraction", "better": "higher", "answers": True}


@pytest.mark.parametrize(
    ("metrics", "entries", "outcome"),
    [
        # 15 flips are needed for this level: of 14 items no loss is ever proven, of 15 that of all.
        (few("accuracy/mean/acc", 1.0, [1.0] * 14, **SHARE), [MEAN], "void"),
        (few("accuracy/mean/acc", 0.4, [1.0, 0.0] * 10, **SHARE), [MEAN], "void"),  # 8 right ones to lose
        (few("accuracy/mean/acc", 0.5, [1.0, 0.0] * 40, **SHARE), [MEAN], "enough"),
        (
            few("margin", 0.3, [0.5, -0.1] * 8, better="higher"),
            [MARGIN, HARMLESS],
            "enough",
        ),  # all lost: 0.3 nats
        (few("margin", 4.0, [9.0, -1.0] * 4, better="higher"), [MARGIN, HARMLESS], "narrow"),
        ({"perplexity": perplexity(2)}, [PERPLEXITY, SAME], "void"),  # Student's t with 1 degree of freedom
        ({"perplexity": perplexity(8)}, [PERPLEXITY, SAME], "narrow"),
    ],
)
def test_a_gate_that_sees_no_loss_at_all_is_void(
    metrics: dict[str, Metric], entries: list[Tolerance], outcome: str
) -> None:
    sensitivity = with_sensitivity(CELL, metrics, tolerances(*entries), ALPHA)
    assert (bool(sensitivity.void), bool(sensitivity.narrow)) == (outcome == "void", outcome == "narrow")


@pytest.mark.parametrize(
    ("value", "unit", "better", "entry", "wide"),
    [
        (0.27, "fraction", "higher", {"absolute": 0.3}, True),
        (0.31, "fraction", "higher", {"absolute": 0.3}, False),
        (0.0, "fraction", "higher", {"absolute": 0.0}, False),  # nothing is quantized, and nothing has to be
        (0.75, "fraction", "lower", {"absolute": 0.3}, True),
        (40.0, "tokens/s", "higher", {"relative": 5.0}, True),  # five percent was meant
        (40.0, "tokens/s", "higher", {"relative": 0.6}, False),
        (0.4, "s", "lower", {"relative": 4.0}, False),
        (2.0, "nats", "higher", {"relative": 1.0}, False),  # a margin may become negative
        (0.2, "nats", "lower", {"absolute": 3.0}, False),
    ],
)
def test_a_tolerance_that_allows_to_lose_everything_is_told(
    value: float, unit: str, better: Literal["lower", "higher"], entry: dict[str, float], wide: bool
) -> None:
    metric = Metric(kind="exact", value=value, unit=unit, better=better)
    result = with_sensitivity(CELL, {"m": metric}, tolerances(Tolerance(metric="m", **entry)), ALPHA)
    assert (bool(result.never), result.void, result.narrow) == (wide, [], [])


def test_a_gate_of_a_single_process_can_never_fail_and_that_is_told() -> None:
    """Of a ratio of accuracies as of a peak."""
    entry = tolerances(Tolerance(metric="m", relative=0.1))
    for samples, single in (([1.0], True), (None, True), ([1.0, 1.1], False)):
        metric = Metric(kind="ratio", value=1.0, unit="x", better="higher", samples=samples)
        never = with_sensitivity(CELL, {"m": metric}, entry, ALPHA).never
        assert [text.partition(":")[0] for text in never] == ["m"] * single
        broken = metric.model_copy(update={"value": 0.01, "samples": samples and [0.01 * s for s in samples]})
        verdict = judge(Subject(CELL, "m"), broken, metric, entry.tolerance[0], 0.01)
        assert verdict.status == (Status.INCONCLUSIVE if single else Status.REGRESSION)


@pytest.mark.parametrize(
    ("metric", "remedy"),
    [
        (perplexity(conditions={"windows": 8}), r"\(windows = \d+ instead of 8, if the data suffices\)"),
        (
            accuracy(80).model_copy(update={"conditions": {"items": 80}}),
            r"\(items = 434 instead of 80, if the data suffices\)",
        ),
    ],
)
def test_what_would_do_is_named_as_the_option_of_the_tier(metric: Metric, remedy: str) -> None:
    name = "accuracy/mean/acc" if metric.answers else "perplexity"
    entry = MEAN.model_copy(update={"absolute": 0.05}) if metric.answers else PERPLEXITY
    entries = [entry if metric.answers else entry.model_copy(update={"relative": 0.001}), SAME]
    (text,) = with_sensitivity(CELL, {name: metric}, tolerances(*entries), ALPHA).narrow
    assert re.search(remedy, text), text


def test_of_a_handful_of_blocks_the_number_that_would_do_is_no_fancy() -> None:
    """With few degrees of freedom Student's t sees nothing; the error falls with the root of n on the log scale."""
    rules = tolerances(PERPLEXITY, SAME)
    (text,) = with_sensitivity(CELL, {"perplexity": perplexity(3)}, rules, ALPHA).narrow
    tokens = int(text.split("; ")[1].split(" ")[0].replace(",", ""))
    for blocks, enough in ((math.ceil(tokens / 128), True), (math.floor(tokens / 128) - 1, False)):
        assert bool(with_sensitivity(CELL, {"perplexity": perplexity(blocks)}, rules, ALPHA).narrow) != enough
    noisy = tolerances(PERPLEXITY, SAME.model_copy(update={"absolute": 0.2}))
    (text,) = with_sensitivity(CELL, {"perplexity": perplexity(2)}, noisy, ALPHA).void
    assert "would do" not in text, "a growth that no float holds"
