"""The summary on a terminal: what a reader has to find in it, at every width, and nothing that breaks a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from quantgate.records import Status
from quantgate.report.summary import COLUMNS
from quantgate.report.terminal import render_summary
from rich.console import Console

from selftest.report.examples import (
    CHANGED,
    INFO,
    cell,
    changed,
    example,
    line_with,
    rendered,
    verdict,
    widest,
)


def test_the_table_has_the_numbers_of_a_cell_with_change_mark_and_verdict() -> None:
    line = line_with(rendered(example()), "llamacpp/Q4_K_M")
    assert re.split(r"\s{2,}", line.strip()) == [
        "llamacpp/Q4_K_M",
        "6.21",
        "27.112 +9.3 % ✗",
        "0.0123",
        "42.5 %",
        "105.5",
        "290",
        "232 ✗",
        "99.4",
        "regression",
    ]
    line = line_with(rendered(example()), "transformers/fp32")
    assert "23.762" in line
    assert "+0" not in line  # a change that is none is not shown
    assert line.rstrip().endswith("pass")


def test_an_error_row_is_dashes() -> None:
    assert re.split(r"\s+", line_with(rendered(example()), "nf4-dq").strip())[1:] == ["-"] * 8 + ["error"]


def test_a_regression_is_told_in_full() -> None:
    text = rendered(example())
    block = text[text.index("✗ regression  smollm2-135m/llamacpp/Q4_K_M") : text.index("! error")]
    for part in (
        "baseline 24.810, measured 27.112, +9.28 % (+8.91 % to +9.65 %), tolerance 0.5 %",
        "all 16 windows",
        "baseline 1.100 x, measured 0.310 x, -71.0 %",
        "measured again: 0.32",
        f"since the baseline: {', '.join(CHANGED)}",
        "    pytest --tier smoke",
        "'suite/test_perplexity.py::test_perplexity[smollm2-135m/llamacpp/Q4_K_M]'",
        "'suite/test_throughput.py::test_throughput[smollm2-135m/llamacpp/Q4_K_M]'",
    ):
        assert part in block


def test_an_error_is_told_once_with_its_metrics_and_the_end_of_its_log() -> None:
    text = rendered(example())
    assert text.count("ended with signal 11") == 1
    assert "metrics: perplexity, perplexity/bits_per_byte, accuracy/arc/acc, " in text
    assert "memory/* (4)" in text
    assert "\n    | line 29\n" in text
    assert "line 5\n" not in text
    assert "last [bold]x[/bold]" in text  # neither escape sequences nor rich's markup
    assert text.count("nf4-dq]") == 1  # any case of the cell shows it


def test_a_cell_that_failed_as_a_whole_is_a_row_of_dashes() -> None:
    """Its verdicts carry the requests: no metric has come of them."""
    requests = ["perplexity", "accuracy/arc", "memory", "throughput/prefill"]
    failed = [verdict("m/b/bad", request, Status.ERROR, text="killed") for request in requests]
    text = rendered([*failed, *cell("m/b/good", 20.0)])
    assert line_with(text, "b/bad").split()[1:] == ["-"] * 8 + ["error"]
    assert "metrics: perplexity, accuracy/arc, memory, throughput/prefill" in text


def test_what_two_metrics_say_alike_is_said_once() -> None:
    both = changed(
        cell("m/b/s", 20.0), "perplexity|perplexity/bits_per_byte", Status.REGRESSION, text="all 16 windows"
    )
    assert rendered(both).count("all 16 windows") == 1


def test_a_log_line_of_any_length_is_cut() -> None:
    text = rendered([verdict("m/b/s", "perplexity", Status.ERROR, text="why\n" + "x" * 100_000)])
    assert 300 < text.count("x") < 600


def test_numbers_are_not_parted_from_their_units() -> None:
    lines = [line.strip() for width in range(60, 100) for line in rendered(example(), width).splitlines()]
    assert [line for line in lines if re.match(r"%|pp[ ,)](?!and )|to [+-]", line)] == []


def test_no_word_is_cut_where_a_figure_is_wider_than_the_terminal() -> None:
    figures: dict[str, Any] = {
        "measured": -0.137,
        "baseline": -0.12,
        "change": -0.01717,
        "unit": "nats/character",
    }
    interval = {"change_low": -0.06369, "change_high": 0.02935, "change_unit": "absolute"}
    unsure = verdict("my/llamacpp/F16", "accuracy/a/margin_norm", Status.INCONCLUSIVE, **figures, **interval)
    assert rendered([unsure], width=70).count("nats/character") == 3


def test_a_tiny_change_is_not_called_zero() -> None:
    grown = {"baseline": 1e8, "measured": 1e8 + 512, "change": 5.12e-6, "tolerance": 0.0, "unit": "bytes"}
    text = rendered([verdict("m/b/s", "memory/file_bytes", Status.REGRESSION, **grown)])
    assert "baseline 100,000,000 bytes, measured 100,000,512 bytes, +0.0005 %, tolerance 0 %" in text


def test_an_absolute_change_is_in_the_metrics_unit() -> None:
    more = {
        "baseline": 0.0,
        "measured": 3.0,
        "change": 3.0,
        "tolerance": 0.0,
        "unit": "lines",
        "change_unit": "absolute",
    }
    text = rendered([verdict("m/b/s", "tokenizer/mismatches", Status.REGRESSION, **more)])
    assert "baseline 0 lines, measured 3 lines, +3 lines, tolerance 0 lines" in text


def test_each_model_heads_its_cells() -> None:
    lines = [line.split() for line in rendered(example()).splitlines()]
    assert lines.index(["smollm2-135m"]) < lines.index(["gemma"])
    assert lines.count(["gemma"]) == 1


def test_the_other_verdicts_are_short() -> None:
    text = rendered(example())
    assert "≠ not comparable  gemma/llamacpp/F16\n  machine a, not b" in text
    assert "? inconclusive  gemma/llamacpp/Q8_0  throughput/decode -20.0 %: too noisy" in text
    last_digit = verdict("m/b/s", "same_top", Status.REGRESSION, change=3e-18, unit="fraction")
    assert "e-" not in rendered([last_digit])
    gate = verdict("m/b/s", "perplexity", Status.INCONCLUSIVE, change=0.02, tolerance=0.01, text="noise")
    assert "? inconclusive  m/b/s  perplexity +2.00 %, tolerance 1 %: noise" in rendered([gate])
    assert "○ no baseline  gemma/llamacpp/Q2_K  (5 metrics)" in text
    assert "↑ improvement  smollm2-135m/llamacpp/Q4_0  perplexity 29.594 -> 28.100 (-5.05 %)" in text
    assert "pytest --update-baselines --reason" in text
    assert "skipped: m/cuda/fp16: needs CUDA" in text


def test_counts_come_last() -> None:
    *_, run, last = rendered(example()).splitlines()
    assert run == "49 cases in 7 cells, 1 cell skipped, 9 min 40 s, exit status 1 (regression)"
    assert (
        last
        == "2 regressions, 7 errors, 1 not comparable, 2 no baseline, 1 inconclusive, 1 improvement, 35 pass"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert widest(rendered(example(), width)) <= width


WRITTEN = {"solved", "agreement"}
"""Columns of groups that the example does not have."""


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (140, [column.title for column in COLUMNS if column.title not in WRITTEN], []),
        (80, ["perplexity", "accuracy", "decode"], ["peak", "weights"]),
    ],
)
def test_narrow_terminals_lose_the_least_important_columns(
    width: int, there: list[str], gone: list[str]
) -> None:
    text = rendered(example(), width)
    header = text.splitlines()[1]
    assert [title for title in there if title not in header] == []
    for title in gone:
        assert title not in header
        assert title in line_with(text, "too narrow for")
    assert ("too narrow" in text) == bool(gone)


def test_columns_without_any_value_are_left_out() -> None:
    only = [v for v in example() if v.metric == "perplexity"]
    assert "accuracy" not in rendered(only).splitlines()[1]


@pytest.mark.parametrize("width", [50, 100])
def test_a_command_stands_in_one_line_to_be_copied(width: int) -> None:
    node = "suite/test_throughput.py::test_time_to_first_token[smollm2-135m/bitsandbytes/nf4-dq/x]"
    command = f"pytest --tier smoke '{node}' --machine here"
    text = rendered([verdict("m/b/s", "perplexity", Status.ERROR, reproduce=command)], width)
    assert f"\n    {command}\n" in text


def test_colour_on_a_terminal_only_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal: dict[str, Any] = {"force_terminal": True, "color_system": "standard"}
    assert "\x1b[1;31mregression" in rendered(example(), **terminal)
    plain = rendered(example())
    assert "\x1b" not in plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert rendered(example(), **terminal) == plain


def test_a_terminal_without_unicode_gets_ascii() -> None:
    binary = io.BytesIO()
    file = io.TextIOWrapper(binary, encoding="ascii")
    render_summary([*example(), *cell("modèle/b/s", 20.0)], INFO, Console(file=file, width=100))
    file.flush()
    assert b"x regression  smollm2-135m/llamacpp/Q4_K_M" in binary.getvalue()


def test_an_interrupted_run_says_how_to_go_on() -> None:
    interrupted = INFO.model_copy(update={"exit_status": "2"})
    text = rendered(cell("m/b/s", 20.0), info=interrupted)
    assert "The run was interrupted: the same command with --reuse goes on from here" in text
    ab = rendered(cell("m/b/s", 20.0), info=interrupted.model_copy(update={"against": "/other/python"}))
    assert "interrupted" in ab
    assert "--reuse" not in ab
    assert "interrupted" not in rendered(cell("m/b/s", 20.0))


def test_nothing_judged() -> None:
    assert rendered([]).splitlines()[-1] == "nothing was judged"
