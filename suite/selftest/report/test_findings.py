"""Problems are read once: common causes, and what belongs together without one."""

from __future__ import annotations

import json
import shlex

import pytest
from quantgate.records import Status
from quantgate.report.files import to_json
from quantgate.report.findings import findings
from quantgate.report.markdown import to_markdown
from quantgate.report.summary import outcome

from selftest.report.examples import INFO, cell, changed, rendered, slowed, verdict, widest


def test_one_cause_in_several_cells_is_one_finding() -> None:
    many = [
        v
        for n in range(9)
        for v in changed(cell(f"m/b/{n}", 9.0), "thr.*", Status.NOT_COMPARABLE, text="machine")
    ]
    assert [(len(f.cells), len(f.metrics)) for f in findings(many, {})] == [(9, 3)]
    assert "m/b/0, m/b/1, m/b/2, m/b/3 and 5 more cells" in rendered(many)


def test_cells_without_baseline_are_one_finding_whatever_their_text() -> None:
    new = [verdict(f"m/b/{n}", "perplexity", Status.NO_BASELINE, text=f"no file m/b/{n}") for n in range(3)]
    assert "○ no baseline  m/b/0, m/b/1, m/b/2  (3 metrics)" in rendered(new)


def test_another_checkpoint_that_is_worse_is_put_back_or_accepted() -> None:
    worse = {"change": 0.1, "environment": ["checkpoint 1 -> 2 (x.gguf)"]}
    text = " ".join(rendered([verdict("m/b/s", "perplexity", Status.REGRESSION, **worse)]).split())
    assert (
        "since the baseline: checkpoint 1 -> 2 (x.gguf) another checkpoint is under test: put the old one back, "
        "or accept this one by --update-baselines --accept-regressions --re-anchor --reason"
    ) in text
    worse["environment"] = ["torch 1 -> 2"]
    assert "under test" not in rendered([verdict("m/b/s", "perplexity", Status.REGRESSION, **worse)])


def test_of_a_long_error_the_remedy_is_left() -> None:
    text = f"m: missing: {', '.join(f'layer.{n}' for n in range(99))}: fetch it again"
    shown = " ".join(rendered([verdict("m/b/s", "perplexity", Status.ERROR, text=text)]).split())
    assert "m: missing: layer.0, " in shown
    assert "layer.98: fetch it again" in shown
    assert "layer.50," not in shown


def test_one_command_shows_all_that_failed_in_a_cell_again() -> None:
    metrics = ("perplexity", "perplexity/loss", "memory/peak_load", "accuracy/arc/acc")
    (finding,) = findings([verdict("m/b/s", metric, Status.REGRESSION, change=0.1) for metric in metrics], {})
    (command,) = finding.commands
    cases = [f"suite/test_{group}.py::test_{group}[m/b/s]" for group in ("perplexity", "memory", "accuracy")]
    assert shlex.split(command) == ["pytest", "--tier", "smoke", *cases]


def test_thirty_slow_cells_are_one_finding_that_leads_every_report() -> None:
    crashed = verdict("m/b/x", "memory", Status.ERROR, text="killed")
    verdicts = [*slowed(), crashed]
    assert [f.common is not None for f in findings(verdicts, {})] == [True, False]

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


def test_changes_that_only_some_cells_have_are_not_called_none() -> None:
    """Baselines of two days: nothing changed since both, but something since each."""
    lines = {"b": [f"lib-{n} 1 -> 2" for n in range(7)], "c": ["torch 2.12.0 -> 2.13.0"]}
    mixed = [v.model_copy(update={"environment": lines[v.cell.split("/")[1]]}) for v in slowed()]
    text = " ".join(rendered(mixed).split())
    assert "since the baseline, in some of them: lib-0 1 -> 2, lib-1 1 -> 2" in text
    assert "lib-5 1 -> 2 and 2 more" in text
    assert "has not changed" not in text


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
    assert [(f.status, f.cells, len(f.verdicts)) for f in findings(both, {})] == [
        (Status.REGRESSION, ["m/b/s"], 2),
        (Status.CHANGED, ["m/b/t"], 1),
    ]
    text = rendered(both)
    assert "the reference did not move (x)" in text
    assert "not the same computation" in text
    assert "≈ changed  m/b/t" in text
    assert outcome(both[-1:]) == "Changed: perplexity/reproduction of m/b/t by +10.0 %."
