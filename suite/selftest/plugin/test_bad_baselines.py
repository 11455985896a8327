"""Baselines that are damaged, of a newer format, or cannot be written: the exit status, a message, nothing lost."""

from __future__ import annotations

import re
from pathlib import Path

from quantgate.baselines import store as baselines
from quantgate.baselines.store import baseline_path
from quantgate.records import FORMAT, Status

from selftest.plugin.runs import F16, Q4
from selftest.project import Project, tree


def assert_damaged(project: Project, *words: str) -> None:
    """Q4_K_M cannot be judged and its file is named; F16 is. An update leaves a file alone that it cannot read."""
    before = tree(project.baselines / Q4)
    result = project.update("--reuse")
    assert result.status == 10, result.output
    assert sorted(result.failed()) == sorted(
        f"{case}[{Q4}]" for case in ("memory", "perplexity", "tokenizer")
    )
    for word in words:
        assert word in result.verdict(Q4, "perplexity").text
        assert word in re.sub(r"\s+", " ", result.output)
    assert "Traceback" not in result.output
    assert {v.status for v in result.verdicts if v.cell == F16} == {Status.PASS}
    assert tree(project.baselines / Q4) == before


def test_a_corrupted_baseline(baselined: Project) -> None:
    path = baseline_path(baselined.baselines, Q4, "smoke")
    path.write_text(path.read_text().replace("[metrics]", "<<<<<<< HEAD\n[metrics]"))
    assert_damaged(baselined, f"{path}: corrupted", f"git checkout HEAD -- {path.parent}")


def test_a_truncated_baseline(baselined: Project) -> None:
    (path,) = (baselined.baselines / Q4).glob("smoke.*.json")
    path.write_bytes(path.read_bytes()[:-100])
    assert_damaged(baselined, f"{path}: truncated or changed", f"git checkout -- {path}")


def test_a_baseline_of_a_newer_format(baselined: Project) -> None:
    path = baseline_path(baselined.baselines, Q4, "smoke")
    path.write_text(path.read_text().replace(f"format = {FORMAT}\n", f"format = {FORMAT + 1}\n", 1))
    assert_damaged(
        baselined, f"{path}: format = {FORMAT + 1} was written by a newer quantgate", "upgrade quantgate"
    )


def test_a_disk_that_fills_up_while_baselines_are_written(baselined: Project) -> None:
    """A limit on the size of files, in force from the end of the last case to the summary."""
    (baselined.folder / "full_disk.py").write_text(
        "import resource, pytest\n"
        "def limit(size):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "@pytest.hookimpl(trylast=True)\n"  # after the JUnit file, before the update
        "def pytest_sessionfinish():\n"
        "    limit(600)\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_terminal_summary():\n"
        "    limit(resource.RLIM_INFINITY)\n"
    )
    before = tree(baselined.baselines)
    result = baselined.run("--reuse", "--update-baselines", "--reason", "other", "-p", "full_disk")
    assert result.status == 10
    assert f"not updated: {baselined.baselines / Q4}" in result.output
    assert "could not be written (File too large); what was there before is untouched" in result.output
    assert "Traceback" not in result.output
    assert tree(baselined.baselines) == before
    assert baselined.run("--reuse").status == 0


def test_two_updates_at_once(baselined: Project, tmp_path: Path) -> None:
    both = [baselined, baselined.copy(tmp_path / "second")]
    both[1].options["--baselines"] = baselined.baselines
    for project in both:
        project.write()
    select = ("--reuse", "-m", "perplexity")
    running = [p.start("--update-baselines", "--reason", f"update {n}", *select) for n, p in enumerate(both)]
    results = [project.finish(process) for project, process in zip(both, running, strict=True)]
    for result in results:
        assert result.status == 0 or "was changed by another run; run again" in result.output
    assert 0 in [result.status for result in results]
    for cell in (F16, Q4):
        baseline = baselines.read(baselined.baselines, cell, "smoke")
        assert baseline is not None
        assert baseline.reason in ("update 0", "update 1")
        assert len(list((baselined.baselines / cell).iterdir())) == 2  # no leftovers of the loser
