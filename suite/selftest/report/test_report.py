"""The reports: what a reader has to find in them, at every width, and nothing that breaks a terminal."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import quantgate.report
from quantgate.errors import InputError
from quantgate.records import Status, Verdict
from quantgate.report import JOB_SUMMARY_LIMIT, RunInfo, append_job_summary, write_report
from quantgate.report.as_json import from_json, to_json
from quantgate.report.findings import findings
from quantgate.report.markdown import to_markdown
from quantgate.report.sentences import outcome, update_command
from quantgate.report.summary import COLUMNS, counts, rows
from quantgate.report.terminal import render_summary
from quantgate.words import clean, difference, duration
from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path

INFO = RunInfo(
    tier="smoke",
    seconds=580,
    machine="2 x Some CPU",
    environment={"torch": "2.13.0"},
    exit_status="1 (regression)",
    skipped=[("m/cuda/fp16", "needs CUDA")],
    commit="1a2b3c4",
)
CHANGED = ["llama_cpp_python 0.3.36 -> 0.3.37", "torch 2.12.0 -> 2.13.0"]
TAIL = [*(f"line {n}" for n in range(30)), "\x1b[31mlast\x1b[0m [bold]x[/bold]"]
LOG = "ended with signal 11" + "".join(f"\n    | {line}" for line in TAIL)


def verdict(cell: str, metric: str, status: Status = Status.PASS, **values: Any) -> Verdict:
    if "measured" in values and status == Status.PASS:
        values = {"baseline": values["measured"], "change": 0.0, "tolerance": 0.005} | values
    group = metric.partition("/")[0]
    command = f"pytest --tier smoke 'suite/test_{group}.py::test_{group}[{cell}]'"
    return Verdict(**{"cell": cell, "metric": metric, "status": status, "reproduce": command} | values)


def cell(name: str, perplexity: float) -> list[Verdict]:
    """A cell in which everything passes."""
    recorded: dict[str, Any] = {"baseline": None, "change": None, "tolerance": None}
    return [
        verdict(name, "perplexity", measured=perplexity),
        verdict(name, "perplexity/bits_per_byte", measured=perplexity / 28, unit="bits/byte"),
        verdict(name, "accuracy/arc/acc", measured=0.30, unit="fraction"),
        verdict(name, "accuracy/arc/acc_norm", measured=0.40, unit="fraction"),
        verdict(name, "accuracy/lambada/acc", measured=0.45, unit="fraction"),
        verdict(name, "memory/bits_per_weight", measured=6.21, unit="bits"),
        verdict(name, "memory/weight_bytes", measured=105_512_345, unit="bytes"),
        verdict(name, "memory/peak_resident", measured=290e6, unit="bytes"),
        verdict(name, "memory/peak_decode_anonymous", measured=200e6, unit="bytes"),
        verdict(name, "throughput/prefill", measured=232.4, unit="tokens/s", **recorded),
        verdict(name, "throughput/prefill_ratio", measured=1.1, unit="x"),
        verdict(name, "throughput/decode", measured=99.44, unit="tokens/s", **recorded),
        verdict(name, "divergence/kl_mean", measured=0.0123, unit="nats"),
    ]


def changed(verdicts: list[Verdict], metric: str, status: Status, **values: Any) -> list[Verdict]:
    return [
        v.model_copy(update={"status": status, **values}) if re.fullmatch(metric, v.metric) else v
        for v in verdicts
    ]


def example() -> list[Verdict]:
    """A run with one of each."""
    worse = {"change_low": 0.0891, "change_high": 0.0965, "environment": CHANGED, "text": "all 16 windows"}
    values = {"baseline": 24.81, "measured": 27.112, "change": 0.0928, **worse}
    regression = changed(
        cell("smollm2-135m/llamacpp/Q4_K_M", 24.81), "perplexity", Status.REGRESSION, **values
    )
    regression = changed(
        regression,
        "throughput/prefill_ratio",
        Status.REGRESSION,
        measured=0.31,
        change=-0.71,
        text="slower",
        confirmed="measured again: 0.32",
    )
    error = {"measured": None, "change": None, "text": LOG}
    better = {"baseline": 29.594, "measured": 28.1, "change": -0.0505}
    return [
        *cell("smollm2-135m/transformers/fp32", 23.762),
        *regression,
        *changed(cell("smollm2-135m/bitsandbytes/nf4-dq", 32.0), ".*", Status.ERROR, **error),
        *changed(cell("smollm2-135m/llamacpp/Q4_0", 28.1), "perplexity", Status.IMPROVEMENT, **better),
        *changed(cell("gemma/llamacpp/Q2_K", 31.0), "perplexity|memory.*", Status.NO_BASELINE, baseline=None),
        *changed(
            cell("gemma/llamacpp/F16", 21.0),
            "throughput/prefill",
            Status.NOT_COMPARABLE,
            text="machine a, not b",
        ),
        *changed(
            cell("gemma/llamacpp/Q8_0", 21.1),
            "throughput/decode",
            Status.INCONCLUSIVE,
            change=-0.2,
            text="too noisy",
        ),
    ]


def rendered(verdicts: list[Verdict], width: int = 140, info: RunInfo = INFO, **options: Any) -> str:
    file = io.StringIO()
    render_summary(verdicts, info, Console(file=file, width=width, **options))
    return file.getvalue()


def line_with(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if word in line)


# --- rows and counts ------------------------------------------------------------------------------


def entry(verdicts: list[Verdict], title: str) -> tuple[str, str, str]:
    number = [column.title for column in COLUMNS].index(title)
    found = rows(verdicts)[0].entries[number]
    return found.value, found.change, found.mark


def test_accuracy_is_the_mean_of_tasks_with_acc_norm_where_there_is_one() -> None:
    assert entry(cell("m/b/s", 20.0), "accuracy") == ("42.5 %", "", "")


def test_accuracy_changes_in_percentage_points() -> None:
    worse = changed(cell("m/b/s", 20.0), "accuracy/lambada/acc", Status.REGRESSION, measured=0.41)
    assert entry(worse, "accuracy") == ("40.5 %", "-2.0 pp", "✗")


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


# --- terminal -------------------------------------------------------------------------------------


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
    told = text[text.index("✗ regression  smollm2-135m/llamacpp/Q4_K_M") : text.index("! error")]
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
        assert part in told


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


def test_one_cause_in_several_cells_is_one_finding() -> None:
    many = [
        v
        for n in range(9)
        for v in changed(cell(f"m/b/{n}", 9.0), "thr.*", Status.NOT_COMPARABLE, text="machine")
    ]
    found = findings(many)
    assert [(len(f.cells), len(f.metrics)) for f in found] == [(9, 3)]
    assert "m/b/0, m/b/1, m/b/2, m/b/3 and 5 more cells" in rendered(many)


def test_cells_without_baseline_are_one_finding_whatever_their_text() -> None:
    new = [verdict(f"m/b/{n}", "perplexity", Status.NO_BASELINE, text=f"no file m/b/{n}") for n in range(3)]
    assert "○ no baseline  m/b/0, m/b/1, m/b/2  (3 metrics)" in rendered(new)


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


def widest(text: str) -> int:
    """Length of the longest line that is no command: those are left to the terminal."""
    return max(len(line) for line in text.splitlines() if not line.startswith("    pytest "))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert widest(rendered(example(), width)) <= width


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (140, [column.title for column in COLUMNS], []),
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


def test_nothing_judged() -> None:
    assert rendered([]).splitlines()[-1] == "nothing was judged"


# --- Markdown -------------------------------------------------------------------------------------


def test_markdown_begins_with_the_outcome_and_has_everything() -> None:
    text = to_markdown(example(), INFO)
    lines = text.splitlines()
    assert lines[0].startswith("## quantgate smoke: 2 regressions, 7 errors")
    assert "perplexity of smollm2-135m/llamacpp/Q4_K_M by +9.28 %, and 1 further metric." in lines[2]
    assert "| cell | bpw | perplexity | KL nats | accuracy mean |" in text
    assert "**27.112 +9.3 % ✗**" in line_with(text, "Q4_K_M` | 6.21")
    assert "| `perplexity` | 24.810 | 27.112 | +9.28 % (+8.91 % to +9.65 %) | 0.5 % | regression |" in text
    assert "`divergence/kl_mean`" in text
    assert (
        "pytest --tier smoke 'suite/test_perplexity.py::test_perplexity[smollm2-135m/llamacpp/Q4_K_M]'"
        in text
    )
    assert "pytest --update-baselines --reason" in text
    assert "- `m/cuda/fp16`: needs CUDA" in text
    assert "| `torch` | 2.13.0 |" in text
    assert text.count("<details>") == text.count("</details>") == 10


def test_markdown_escapes_what_would_be_markup() -> None:
    odd = verdict(
        "m/b|c/s", "perplexity", Status.REGRESSION, measured=2.0, baseline=1.0, text="a|b <b> *c* x_y ```"
    )
    text = to_markdown([odd], INFO)
    assert "`m/b\\|c/s`" in line_with(text, "**✗ regression**")
    assert r"- a\|b \<b> \*c\* x_y \`\`\`" in text
    fenced = to_markdown([verdict("m/b/s", "perplexity", Status.ERROR, text="why\n```\n</details>")], INFO)
    assert "````\n```\n</details>\n````" in fenced


def test_long_lists_are_folded_in_markdown() -> None:
    better = {"baseline": 2.0, "measured": 1.0, "change": -0.5}
    others = [v for n in range(6) for v in cell(f"o/b/{n}", 20.0)]  # or the better ones were one finding
    few = [verdict(f"m{n}/b{n}/{'x' * n}", "perplexity", Status.IMPROVEMENT, **better) for n in range(5)]
    assert "x improvement</summary>" not in to_markdown([*few, *others], INFO)
    many = [*few, verdict("m/b/s", "perplexity", Status.IMPROVEMENT, **better), *others]
    assert "<summary>6 x improvement</summary>" in to_markdown(many, INFO)


def test_markdown_stays_below_the_limit_and_says_what_is_missing() -> None:
    many = [v for n in range(1000) for v in cell(f"model/backend/{n}", 20.0)]
    text = to_markdown([*example(), *many], INFO)
    assert 0.9 * JOB_SUMMARY_LIMIT < len(text.encode()) <= JOB_SUMMARY_LIMIT
    assert text.count("<details>") == text.count("</details>")
    assert "Cut here" in text.splitlines()[-1]
    assert "Cut here" not in to_markdown(example(), INFO)


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
    assert update_command(new, INFO.model_copy(update={"bits": tier})).endswith('-m "m and b and s"')
    alone = {"bits": tier, "skipped": [("m/b/t", "no GPU")]}
    assert " -m " not in update_command(new, INFO.model_copy(update=alone))


def test_nothing_of_a_failed_cell_is_offered_for_the_baseline() -> None:
    better = verdict("m/b/s", "memory/weight_bytes", Status.IMPROVEMENT, measured=1.0)
    assert update_command([better], INFO)
    assert update_command([better, verdict("m/b/s", "perplexity", Status.REGRESSION)], INFO) == ""
    assert update_command([better, verdict("m/b/t", "perplexity", Status.REGRESSION)], INFO).endswith(
        '-m "m and b and s"'
    )


def test_one_command_shows_all_that_failed_in_a_cell_again() -> None:
    metrics = ("perplexity", "perplexity/loss", "memory/peak_load", "accuracy/arc/acc")
    (finding,) = findings([verdict("m/b/s", metric, Status.REGRESSION, change=0.1) for metric in metrics])
    (command,) = finding.commands
    cases = [f"suite/test_{group}.py::test_{group}[m/b/s]" for group in ("perplexity", "memory", "accuracy")]
    assert shlex.split(command) == ["pytest", "--tier", "smoke", *cases]


@pytest.mark.parametrize(("high", "words"), [(9.5, "+950.0 %"), (1.5e7, "more than +1000 %")])
def test_an_interval_that_says_nothing_has_no_figures(high: float, words: str) -> None:
    one = verdict("m/b/s", "throughput/load_ratio", change=0.05, change_low=-1.0, change_high=high)
    assert difference(one) == f"+5.00 % (-100.0 % to {words})"


def test_what_does_not_repeat_itself_is_a_line_of_every_report() -> None:
    kinds: dict[str, Any] = {"unequal": True, "measured": 1.5e-5, "unit": "nats"}
    unequal = [
        verdict("m/b/s", f"{name}/reproduction", **kinds) for name in ("perplexity", "divergence/kl_mean")
    ]
    said = (
        "2 metrics of 1 cell are not equal to the last digit although nothing has changed since the baseline"
    )
    assert said in rendered([*example(), *unequal], width=400)
    assert said in to_markdown([*example(), *unequal], INFO)
    assert json.loads(to_json([*example(), *unequal], INFO))["unequal"].startswith(said)
    for text in (rendered(example()), to_markdown(example(), INFO)):
        assert "not equal to the last digit" not in text
    assert json.loads(to_json(example(), INFO))["unequal"] == ""


# --- JSON and files -------------------------------------------------------------------------------


def test_json_comes_back_as_it_was() -> None:
    text = to_json(example(), INFO)
    assert from_json(text) == (example(), INFO)
    data = json.loads(text)
    assert data["format"] == 1
    assert data["counts"]["regression"] == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2, "counts": {}, "info": {"tier": "x"}, "verdicts": []}']
)
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a quantgate report of format 1"):
        from_json(text)


def test_the_report_folder_is_made_and_filled(tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        files = write_report(tmp_path / "a" / "b", example(), INFO)
    assert [file.name for file in files] == ["report.md", "report.json"]
    assert files[0].read_text(encoding="utf-8") == to_markdown(example(), INFO)
    assert from_json(files[1].read_text(encoding="utf-8")) == (example(), INFO)
    assert sorted((tmp_path / "a" / "b").iterdir()) == sorted(files)  # no temporary files


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=rf"{tmp_path}/file: .*--quantgate-report DIR"):
        write_report(tmp_path / "file", [], INFO)


def test_the_job_summary_is_appended_to_and_never_too_large(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    append_job_summary(path, "one\n")
    append_job_summary(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
    append_job_summary(path, "x" * JOB_SUMMARY_LIMIT)
    assert "does not fit" in path.read_text()
    assert path.stat().st_size < 1000
    with pytest.raises(InputError, match="GITHUB_STEP_SUMMARY"):
        append_job_summary(tmp_path / "none" / "summary", "x")


# --- words and imports ----------------------------------------------------------------------------


def test_text_from_a_log_is_made_harmless() -> None:
    log = "\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07ok\r\n10%\r100%\r\n\ttab\x00"
    assert clean(log) == "red ok\n100%\n    tab"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.7, "1 min 00 s"), (580, "9 min 40 s"), (3900, "1 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_collecting_does_not_import_rich() -> None:
    code = "import sys, quantgate.report.progress, quantgate.report.markdown; print('rich' in sys.modules)"
    folder = quantgate.report.__path__[0] + "/../.."
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


# --- one cause ------------------------------------------------------------------------------------


def slowed(by: float = -0.12) -> list[Verdict]:
    """Thirty cells on a machine that has become slow; one crashed."""
    slow = {
        "baseline": 100.0,
        "measured": 100.0 * (1 + by),
        "change": by,
        "tolerance": 0.1,
        "text": "worse by more than the tolerance (p = 1e-9)",
        "environment": ["governor performance -> powersave"],
    }
    cells = [f"m/{backend}/Q{n}_0" for backend in ("b", "c") for n in range(15)]
    found = [verdict(name, "throughput/decode", Status.REGRESSION, **slow) for name in cells]
    return [*found, *(v for name in cells for v in cell(name, 20.0) if v.metric == "perplexity")]


def test_thirty_slow_cells_are_one_finding_that_leads_every_report() -> None:
    crashed = verdict("m/b/x", "memory", Status.ERROR, text="killed")
    verdicts = [*slowed(), crashed]
    assert [f.common is not None for f in findings(verdicts)] == [True, False]

    text = rendered(verdicts)
    head = "✗ regression  one cause in all 30 cells: throughput/decode -12.0 %"
    assert text.splitlines()[2] == head
    assert text.index(head) < text.index("─") < text.index("! error")
    assert text.count("since the baseline, in all of them: governor performance -> powersave") == 1
    assert "    m/b/Q0_0  throughput/decode -12.0 %\n" in text
    assert "and 18 more (all are in the table)" in text
    assert text.count("reproduce:") == 2
    assert "worse by more than the tolerance" not in text

    markdown = to_markdown(verdicts, INFO)
    assert markdown.splitlines()[2].startswith(
        "**One cause in all 30 cells: throughput/decode -12.0 %; and 1 further"
    )
    assert markdown.index("### ✗ regression, one cause in all 30 cells") < markdown.index("| cell |")
    assert "<summary>The 30 cells</summary>" in markdown

    data = json.loads(to_json(verdicts, INFO))
    assert data["outcome"] == outcome(verdicts)
    assert [(f["status"], f["one_cause"], len(f["cells"])) for f in data["findings"]] == [
        ("regression", True, 30),
        ("error", False, 1),
    ]
    assert data["findings"][0]["environment"] == ["governor performance -> powersave"]


def test_nominal_bits_tell_what_cells_have_in_common() -> None:
    worse = {"change": 0.03, "tolerance": 0.01}
    four, eight = [f"m{n}/b{n}/four" for n in range(4)], [f"m{n}/b{n}/eight" for n in range(4)]
    verdicts = [verdict(name, "perplexity", Status.REGRESSION, **worse) for name in four]
    verdicts += [v for name in eight for v in cell(name, 20.0)]
    info = INFO.model_copy(update={"bits": dict.fromkeys(four, 4.0) | dict.fromkeys(eight, 8.0)})
    assert "one cause in all 4 4-bit cells: perplexity +3.00 %" in rendered(verdicts, info=info)


def test_without_a_change_of_the_environment_the_machine_is_named() -> None:
    unchanged = [v.model_copy(update={"environment": []}) for v in slowed()]
    assert "the recorded environment has not changed since the baseline" in rendered(unchanged)


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_of_a_common_cause_is_wider_than_the_terminal(width: int) -> None:
    assert widest(rendered(slowed(), width)) <= width


def test_regression_and_changed_computation_of_a_cell_are_one_finding() -> None:
    both = changed(
        cell("m/b/s", 20.0), "perplexity", Status.REGRESSION, reference="the reference did not move (x)"
    )
    both += [
        verdict(
            "m/b/s", "perplexity/reproduction", Status.CHANGED, change=0.1, text="not the same computation"
        ),
        verdict("m/b/s", "perplexity/loss", Status.INCONCLUSIVE, change=0.1, text="noisy"),
        verdict("m/b/t", "perplexity/reproduction", Status.CHANGED, change=0.1),
    ]
    assert [(f.status, f.cells, len(f.verdicts)) for f in findings(both)] == [
        (Status.REGRESSION, ["m/b/s"], 2),
        (Status.CHANGED, ["m/b/t"], 1),
    ]
    text = rendered(both)
    assert "the reference did not move (x)" in text
    assert "not the same computation" in text
    assert "≈ changed  m/b/t" in text
    assert outcome(both[-1:]) == "Changed: perplexity/reproduction of m/b/t by +10.0 %."


def test_flips_of_a_recorded_recovery_are_shown() -> None:
    text = "2 lost, 1 gained of 16 items against m/b/full"
    flips = verdict(
        "m/b/s", "accuracy/arc/recovery", measured=0.9, unit="fraction", tolerance=None, text=text
    )
    assert text in line_with(to_markdown([flips], INFO), "accuracy/arc/recovery")
