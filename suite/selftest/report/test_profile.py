"""The account of a run's wall time: that it adds up, and what a real run says of itself."""

from __future__ import annotations

import io
import re

import pytest
from quantgate.jobs import Spent
from quantgate.report.profile import beyond, phases_of, render_profile
from rich.console import Console

from selftest.project import Accepted, Project

F16, Q4 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"


def process(cell: str, seconds: float, forward: float = 0.0, **phases: float) -> Spent:
    return Spent(cell=cell, seconds=seconds, phases=phases, forward={"memory": forward})


SPENT = [
    process("m/a/x", 10.0, 4.0, prepare=0.5, start=2.0, load=1.0, memory=6.0),
    process("m/a/x", 8.0, 4.0, start=1.0, load=1.0, memory=5.0),
    process("m/a/y", 6.0, 3.0, start=0.25, load=1.0, memory=4.5),
    process("m/b/z", 3.0, 1.0, start=0.5, load=0.25, memory=2.0),
    process("m/b/w", 7.0),  # it failed
]


def rendered(width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render_profile(SPENT, 36.0, 40.0, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_phases_and_rest_add_up_to_all() -> None:
    phases = phases_of(SPENT)
    assert phases == {"prepare": 0.5, "start": 3.75, "load": 3.25, "memory": 17.5, "rest": 9.0}
    assert sum(phases.values()) == sum(one.seconds for one in SPENT)


def test_the_first_cell_of_a_backend_bears_its_imports() -> None:
    assert beyond(SPENT) == ([5.0, 0.75], [0.5, 7.0])


def test_the_table_has_a_row_for_each_cell_and_says_what_was_outside_of_forward_passes() -> None:
    lines = [re.sub(" +", " ", line).strip() for line in rendered().splitlines()]
    assert "seconds processes prepare start load memory rest all forward" in lines
    assert "m/a/x 2 0.5 3.0 2.0 11.0 1.5 18.0 8.0" in lines
    assert "m/b/w 1 - - - - 7.0 7.0 -" in lines
    assert "all 5 0.5 3.8 3.2 17.5 9.0 34.0 12.0" in lines
    assert "in forward passes - - - 12.0 - 12.0" in lines
    assert "wall time 40.0 s: measuring processes 34.0 s, judging 2.0 s, pytest and reports 4.0 s" in lines
    assert "in forward passes 12.0 s (30.0 %), outside 28.0 s (70.0 %)" in lines
    assert lines[-2].endswith("took 2.88 s (the first of its backend; median of 2)")
    assert lines[-1].endswith("took 3.75 s (any other; median of 2)")


def test_numbers_stay_whole_on_a_narrow_screen() -> None:
    assert rendered(40).splitlines()[:8] == rendered().splitlines()[:8]


def test_a_run_that_only_reused_records_has_an_account_too() -> None:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    render_profile([], 1.0, 4.0, console)
    assert "outside 4.0 s (100.0 %)" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_accounts_for_its_wall_time(project: Project) -> None:
    result = project.run("--profile")
    rows = {
        line.split()[0]: [0.0 if word == "-" else float(word) for word in line.split()[1:]]
        for line in result.output.splitlines()
        if line.startswith((F16 + " ", Q4 + " ", "all "))
    }
    assert rows[F16][0] == rows[Q4][0] == 2, "processes"
    for _, *phases, everything, forward in rows.values():
        assert sum(phases) == pytest.approx(everything, abs=0.05 * len(phases))
        assert forward <= everything
    match = re.search(
        r"wall time ([\d.]+) s: measuring processes ([\d.]+) s, judging ([\d.]+) s, pytest and reports ([\d.]+) s",
        result.output,
    )
    assert match is not None
    wall, *parts = map(float, match.groups())
    assert sum(parts) == pytest.approx(wall, abs=0.2)
    assert parts[0] == pytest.approx(rows["all"][-2], abs=0.1)
    assert min(parts) >= 0
    record = project.measurement(F16)
    assert set(record.forward) == {"memory", "perplexity"}
    assert all(0 < record.forward[phase] < record.phases[phase] for phase in record.forward)


def test_without_the_option_nothing_is_shown(accepted: Accepted) -> None:
    assert accepted.result.measured == [F16, Q4]
    assert "wall time" not in accepted.result.output


def test_what_runs_side_by_side_has_no_account(project: Project) -> None:
    result = project.run("--profile", "-n", "2")
    assert result.status == 4
    assert "--quantgate-profile cannot be combined with -n" in result.output
    assert result.processes == []
