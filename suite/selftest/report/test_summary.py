"""Rows, counts and sentences that every report has."""

from __future__ import annotations

import math
import shlex

import pytest
from quantgate.records import Status, Verdict
from quantgate.report.summary import COLUMNS, counts, outcome, rows, update_command
from quantgate.words import clean, comparison, difference, duration, quantity

from selftest.report.examples import INFO, cell, changed, example, verdict


def entry(verdicts: list[Verdict], title: str) -> tuple[str, str, str]:
    number = [column.title for column in COLUMNS].index(title)
    chosen = rows(verdicts)[0].entries[number]
    return chosen.value, chosen.change, chosen.mark


def test_accuracy_is_the_mean_of_tasks_with_acc_norm_where_there_is_one() -> None:
    assert entry(cell("m/b/s", 20.0), "accuracy") == ("42.5 %", "", "")
    mean = verdict("m/b/s", "accuracy/mean/acc", measured=0.375, unit="fraction")
    assert entry([*cell("m/b/s", 20.0), mean], "accuracy") == ("42.5 %", "", ""), (
        "the mean of `acc` is no task"
    )
    lost = mean.model_copy(update={"status": Status.REGRESSION})
    assert entry([*cell("m/b/s", 20.0), lost], "accuracy") == ("42.5 %", "", "✗")
    assert entry([mean], "accuracy") == ("37.5 %", "", ""), "the one case of `-k mean`"


def test_accuracy_changes_in_percentage_points() -> None:
    worse = changed(cell("m/b/s", 20.0), "accuracy/lambada/acc", Status.REGRESSION, measured=0.41)
    assert entry(worse, "accuracy") == ("40.5 %", "-2.0 pp", "✗")


def test_the_numbers_of_a_broken_model_leave_room_for_its_name() -> None:
    """Of 100 nats per token the perplexity has 44 digits."""
    broken = changed(cell("m/b/s", 20.0), "perplexity", Status.REGRESSION, measured=math.exp(100))
    assert entry(broken, "perplexity") == ("2.6881e+43", "+1.34e+44 %", "✗")
    assert [quantity(math.exp(100), unit) for unit in ("", "x")] == ["2.6881e+43", "2.6881e+43 x"]
    (one,) = (v for v in broken if v.metric == "perplexity")
    assert difference(one.model_copy(update={"change": math.exp(97)})) == "+1.34e+44 %"


def test_large_numbers_are_whole_and_no_powers_of_ten() -> None:
    grown = verdict(
        "m/b/s", "decoding/growth", measured=35855.3, baseline=288.0, change=35567.3, change_low=4736.2,
        change_unit="absolute", change_high=123456.7, tolerance=1000.0, unit="bytes/token",
    )  # fmt: skip
    assert [phrase.removesuffix(" bytes/token") for phrase in comparison(grown)] == [
        "baseline 288",
        "measured 35,855",
        "+35,567 bytes/token (+4,736 bytes/token to +123,457 bytes/token)",
        "tolerance 1,000",
    ]


def test_a_mean_without_one_of_its_tasks_is_not_shown() -> None:
    assert entry(
        changed(cell("m/b/s", 20.0), "accuracy/lambada/acc", Status.ERROR, measured=None), "accuracy"
    ) == (
        "-",
        "",
        "!",
    )


def test_a_lost_kernel_marks_the_speed_whose_ratio_is_gated() -> None:
    lost = changed(cell("m/b/s", 20.0), "throughput/prefill_ratio", Status.REGRESSION)
    assert entry(lost, "prefill") == ("232", "", "✗")
    assert entry(lost, "decode") == ("99.4", "", "")


def test_what_may_not_be_compared_shows_no_change() -> None:
    other = changed(cell("m/b/s", 20.0), "perplexity", Status.NOT_COMPARABLE, baseline=10.0)
    assert entry(other, "perplexity") == ("20.000", "", "≠")


def test_rows_are_grouped_by_model_in_first_seen_order_with_their_worst_verdict() -> None:
    mixed = [v for name in ("b/x/1", "a/x/1", "b/x/0") for v in cell(name, 20.0)]
    mixed = [v.model_copy(update={"status": Status.ERROR}) if v == mixed[0] else v for v in mixed]
    assert [(row.cell, row.status) for row in rows(mixed)] == [
        ("b/x/1", Status.ERROR),
        ("b/x/0", Status.PASS),
        ("a/x/1", Status.PASS),
    ]


def test_counts_are_over_cases_and_a_case_takes_its_worst_metric() -> None:
    assert counts(cell("m/b/s", 20.0)) == {Status.PASS: 7}  # accuracy by task, speed by kind
    two = changed(
        cell("m/b/s", 20.0), "perplexity/bits_per_byte|accuracy/.*|memory/peak_.*", Status.REGRESSION
    )
    assert counts(two) == {Status.REGRESSION: 4, Status.PASS: 3}
    assert counts(changed(cell("m/b/s", 20.0), "throughput/prefill.*", Status.ERROR))[Status.ERROR] == 1
    failed = [
        "perplexity",
        "accuracy/arc",
        "accuracy/lambada",
        "memory",
        "throughput/prefill",
        "throughput/decode",
    ]
    assert counts([verdict("m/b/s", request, Status.ERROR) for request in failed]) == {Status.ERROR: 6}
    assert list(counts(example()))[:2] == [Status.REGRESSION, Status.ERROR]
    parts = [f"{group}/{part}" for group in ("code", "outliers") for part in ("a/x", "a/y", "b/x")]
    assert counts([verdict("m/b/s", part, Status.PASS) for part in parts]) == {Status.PASS: 4}


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        ([], "Nothing was judged."),
        ([Status.PASS] * 3, "No regression: 3 cases within tolerance of the baseline."),
        (
            [Status.PASS, Status.IMPROVEMENT],
            "No regression: 2 cases within tolerance of the baseline, 1 better.",
        ),
        (
            [Status.PASS, Status.ERROR],
            "No regression in what could be judged, but of 2 cases: 1 failed to measure.",
        ),
        ([Status.ERROR, Status.REGRESSION], "Worse than the baseline: perplexity of m/b/1."),
    ],
)
def test_the_outcome_in_one_sentence(statuses: list[Status], sentence: str) -> None:
    assert (
        outcome([verdict(f"m/b/{n}", "perplexity", status) for n, status in enumerate(statuses)]) == sentence
    )


def test_the_update_command_takes_in_the_named_cells_only() -> None:
    assert update_command(cell("m/b/s", 20.0), INFO) == ""
    command = update_command(example(), INFO.model_copy(update={"options": ["--matrix", "my matrix.toml"]}))
    assert "--reuse" in shlex.split(command), "what the report shows is accepted"
    assert shlex.split(command)[-4:] == [
        "--matrix",
        "my matrix.toml",
        "-m",
        "(smollm2-135m and llamacpp and Q4_0) or (gemma and llamacpp and Q2_K)",
    ]


def test_the_update_command_leaves_out_a_choice_only_for_the_whole_tier() -> None:
    """Of one cell that was run: the others may have drifted within their tolerance."""
    new = [verdict("m/b/s", "memory/weight_bytes", Status.NO_BASELINE, measured=1.0)]
    tier = {"m/b/s": 4.0, "m/b/t": 4.0}
    several = [one.model_copy(update={"cell": f"m/b/s{n}"}) for one in new for n in range(5)]
    chosen = " or ".join(f"(m and b and s{n})" for n in range(5))
    assert update_command(several, INFO.model_copy(update={"bits": tier})).endswith(f'-m "{chosen}"'), (
        "as it is"
    )
    assert update_command(new, INFO.model_copy(update={"bits": tier})).endswith('-m "m and b and s"')
    alone = {"bits": tier, "skipped": [("m/b/t", "no GPU")]}
    assert " -m " not in update_command(new, INFO.model_copy(update=alone))


def test_nothing_of_a_failed_cell_is_offered_for_the_baseline() -> None:
    better = verdict("m/b/s", "memory/weight_bytes", Status.IMPROVEMENT, measured=1.0)
    assert update_command([better], INFO)
    for status in (Status.REGRESSION, Status.NOT_COMPARABLE):
        assert update_command([better, verdict("m/b/s", "perplexity", status)], INFO) == ""
    elsewhere = verdict("m/b/s", "memory/peak_resident", Status.NOT_COMPARABLE, by_machine=True)
    assert update_command([better, elsewhere], INFO)
    assert update_command([better, verdict("m/b/t", "perplexity", Status.REGRESSION)], INFO).endswith(
        '-m "m and b and s"'
    )


@pytest.mark.parametrize(("high", "words"), [(9.5, "+950.0 %"), (1.5e7, "more than +1000 %")])
def test_an_interval_that_says_nothing_has_no_figures(high: float, words: str) -> None:
    one = verdict("m/b/s", "throughput/load_ratio", change=0.05, change_low=-1.0, change_high=high)
    assert difference(one) == f"+5.00 % (-100.0 % to {words})"


def test_text_from_a_log_is_made_harmless() -> None:
    log = "\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07ok\r\n10%\r100%\r\n\ttab\x00"
    assert clean(log) == "red ok\n100%\n    tab"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.7, "1 min 00 s"), (580, "9 min 40 s"), (3900, "1 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
