"""Reports in files: Markdown, JSON, GitHub's job summary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import quantgate.report
from quantgate.errors import InputError
from quantgate.records import Status, Verdict
from quantgate.report import RunInfo
from quantgate.report.comment import to_comment
from quantgate.report.files import append_job_summary, to_json, write_report
from quantgate.report.markdown import JOB_SUMMARY_LIMIT, to_markdown
from quantgate.report.page.figures import to_html

from selftest.report.examples import INFO, cell, example, line_with, rendered, verdict


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


def test_what_does_not_repeat_itself_is_a_line_of_every_report() -> None:
    kinds: dict[str, Any] = {"unequal": True, "measured": 1.5e-5, "unit": "nats"}
    unequal = [
        verdict("m/b/s", f"{name}/reproduction", **kinds) for name in ("perplexity", "divergence/kl_mean")
    ]
    sentence = (
        "2 metrics of 1 cell are not equal to the last digit although nothing has changed since the baseline"
    )
    assert sentence in rendered([*example(), *unequal], width=400)
    assert sentence in to_markdown([*example(), *unequal], INFO)
    assert json.loads(to_json([*example(), *unequal], INFO))["unequal"].startswith(sentence)
    for text in (rendered(example()), to_markdown(example(), INFO)):
        assert "not equal to the last digit" not in text
    assert json.loads(to_json(example(), INFO))["unequal"] == ""


def test_flips_of_a_recorded_recovery_are_shown() -> None:
    text = "2 lost, 1 gained of 16 items against m/b/full"
    flips = verdict(
        "m/b/s", "accuracy/arc/recovery", measured=0.9, unit="fraction", tolerance=None, text=text
    )
    assert text in line_with(to_markdown([flips], INFO), "accuracy/arc/recovery")


def test_json_has_verdicts_run_and_counts() -> None:
    data = json.loads(to_json(example(), INFO))
    assert [Verdict.model_validate(one) for one in data["verdicts"]] == example()
    assert RunInfo.model_validate(data["info"]) == INFO
    assert data["format"] == 1
    assert data["counts"]["regression"] == 2
    assert data["gates"]["gates"] > data["gates"]["judged"]


def test_the_report_folder_is_made_and_filled(tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        files = write_report(tmp_path / "a" / "b", example(), INFO)
    assert [file.name for file in files] == ["report.md", "report.json", "report.html", "comment.md"]
    assert files[0].read_text(encoding="utf-8") == to_markdown(example(), INFO)
    assert files[1].read_text(encoding="utf-8") == to_json(example(), INFO)
    assert files[2].read_text(encoding="utf-8") == to_html(example(), INFO)
    assert files[3].read_text(encoding="utf-8") == to_comment(example(), INFO)
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


def test_collecting_imports_neither_rich_nor_jinja() -> None:
    code = "import sys, quantgate.report.progress, quantgate.report.files; print({'rich', 'jinja2'} & {*sys.modules})"
    folder = quantgate.report.__path__[0] + "/../.."
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
