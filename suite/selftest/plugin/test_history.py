"""A run with --history: what it appends, beside its report, and when it appends nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from quantgate.history.__main__ import main
from quantgate.history.series import STATUSES, read

from selftest.plugin.runs import F16, Q4
from selftest.project import Project, Result, tree


def test_a_run_appends_what_it_measured_and_its_report_is_the_same_run(
    unchanged: tuple[Project, Result], tmp_path: Path
) -> None:
    project, result = unchanged
    assert result.status == 0, result.output
    history = read(project.folder / "history")
    (run,) = history.runs
    assert f"wrote {run.path}" in result.output
    assert history.problems == []
    assert run.tier == "smoke"
    assert {"cpu", "cores", "threads", "os"} <= run.machine.keys()
    series = {(one.cell, one.metric): one for one in history.series}
    assert series.keys() == {(v.cell, v.metric) for v in result.verdicts}
    for cell in (F16, Q4):
        record = project.measurement(cell)
        assert run.id == record.run
        for name, metric in record.metrics.items():
            one = series[cell, name]
            assert one.value.tolist() == [metric.value]
            assert (one.kind, one.better, one.unit) == (metric.kind, metric.better, metric.unit)
            environment = dict(history.environment_of(one, 0))
            assert {
                key: value for key, value in environment.items() if value is not None
            } == record.environment
        assert STATUSES[series[cell, "perplexity"].status[0]] == "pass"
        assert series[cell, "perplexity"].weights[0] >= 0
    later = project.copy(tmp_path / "project")
    folder = later.folder / "history"
    before = tree(folder)
    assert main(["import", str(later.folder / "report"), f"--history={folder}"]) == 0
    assert tree(folder) == before

    again = later.run(f"--history={folder}", "--reuse", "-k", "perplexity")
    assert again.status == 0
    assert len(read(folder).runs) == 2
    assert tree(folder).items() >= before.items()
    assert main(["events", str(folder)]) == 0


def test_nothing_is_appended_where_nothing_is_judged(project: Project) -> None:
    folder = project.folder / "history"
    result = project.run(f"--history={folder}", "-k", "no such case")
    assert f"{folder}: no run was written, since no gate was judged" in result.output
    assert not folder.exists()


def test_a_history_that_cannot_be_written_changes_nothing_of_the_run(baselined: Project) -> None:
    folder = baselined.folder / "history"
    folder.write_text("")
    result = baselined.run(f"--history={folder}")
    assert result.status == 4
    assert f"--history {folder}: is a file, not a folder; name another" in result.output
    folder.unlink()
    folder.mkdir()
    (folder / f"{datetime.now(UTC):%Y}").write_text("")
    result = baselined.run(f"--history={folder}", "--reuse")
    assert result.status == 0
    assert f"cannot write this run into the history {folder}" in result.output
    assert (baselined.folder / "report" / "report.json").exists()


def test_an_ab_run_has_no_place_in_a_history(project: Project) -> None:
    result = project.run(f"--history={project.folder / 'h'}", "--against", "transformers==5.22.0")
    assert result.status == 4
    assert "--history cannot be combined with --against" in result.output
