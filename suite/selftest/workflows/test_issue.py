"""The issue of red nights: opened once, edited only when metrics come or go, closed by the first green night."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from quantgate.bisect.__main__ import _parser
from quantgate.plugin.finish import EXIT, FEW_JUDGED
from quantgate.records import Status, Verdict
from quantgate.report.files import write_report

from selftest.report.examples import INFO, cell, verdict
from selftest.workflows.forge import Forge


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def night(
    forge: Forge, verdicts: list[Verdict] | None, status: str, *more: str, label: str = "nightly"
) -> None:
    """One run of the issue's job; verdicts: of the night's report, None: there is none."""
    result = "success" if status == "0" else "failure"
    if verdicts is not None:
        write_report(forge.folder / "report", verdicts, INFO)
    done = forge.run("issue.py", label, *more, RESULT=result, STATUS=status)
    assert done.returncode == 0, done.stderr


def worse(*cells: str, metric: str = "perplexity", status: Status = Status.REGRESSION) -> list[Verdict]:
    values = {"measured": 21.0, "baseline": 20.0, "change": 0.05, "tolerance": 0.005}
    moved = [verdict(name, metric, status, **values) for name in cells]
    return [*moved, *cell("m/b/fine", 20.0)]


def test_equal_red_nights_are_told_once(forge: Forge) -> None:
    night(forge, worse("m/b/one"), "1")
    [issue] = forge.state["issues"]
    assert issue["title"].startswith("Nightly: regression: m/b/one: perplexity")
    assert "https://github.com/o/r/actions/runs/7, commit abc" in issue["body"]
    assert "## quantgate smoke: 1 regression" in issue["body"]
    for _ in range(3):
        night(forge, worse("m/b/one"), "1")
    assert forge.written == ["issue create"]
    assert forge.state["issues"] == [issue]


def test_what_comes_and_goes_is_told_once_each(forge: Forge) -> None:
    night(forge, worse("m/b/one"), "1")
    night(forge, worse("m/b/one", "m/b/two"), "1")
    night(forge, worse("m/b/one", "m/b/two"), "1")
    night(forge, worse("m/b/two"), "1")
    night(forge, worse("m/b/two", metric="perplexity/reproduction", status=Status.CHANGED), "13")
    assert forge.written == ["issue create", *["issue comment", "issue edit"] * 3]
    [issue] = forge.state["issues"]
    assert issue["title"].startswith("Nightly: changed")
    assert issue["comments"][0].startswith("Now regression. New: `m/b/two perplexity: regression`. https://")
    assert issue["comments"][1].startswith("Now regression. Gone: `m/b/one perplexity: regression`. https://")
    assert (
        "New: `m/b/two perplexity/reproduction: changed`. Gone: `m/b/two perplexity" in issue["comments"][2]
    )


def test_the_size_of_a_change_is_no_event(forge: Forge) -> None:
    night(forge, worse("m/b/one"), "1")
    larger = [v.model_copy(update={"measured": 22.0, "change": 0.1}) for v in worse("m/b/one")]
    night(forge, larger, "1")
    assert forge.written == ["issue create"]


def test_a_green_night_closes_it_and_the_next_red_one_opens_another(forge: Forge) -> None:
    night(forge, worse("m/b/one"), "1")
    night(forge, cell("m/b/fine", 20.0), "0")
    night(forge, cell("m/b/fine", 20.0), "0")
    night(forge, worse("m/b/one"), "1")
    assert forge.written == ["issue create", "issue close", "issue create"]
    first, second = forge.state["issues"]
    assert (first["state"], second["state"]) == ("CLOSED", "OPEN")
    assert first["comments"] == ["Green again: https://github.com/o/r/actions/runs/7, commit abc."]


def test_other_issues_are_left_alone(forge: Forge) -> None:
    night(forge, worse("m/b/one"), "1", label="canary")
    night(forge, cell("m/b/fine", 20.0), "0")
    [issue] = forge.state["issues"]
    assert issue["state"] == "OPEN"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (EXIT[Status.CHANGED], "changed"),
        (EXIT[Status.DRIFT], "drift"),
        (EXIT[Status.NOT_COMPARABLE], "not comparable"),
        (EXIT[Status.NO_BASELINE], "no baseline"),
        (FEW_JUDGED, "too few gates judged"),
        (EXIT[Status.ERROR], "broken infrastructure"),
        ("", "broken infrastructure"),
        (1, "broken infrastructure"),  # pytest's own; the report knows of no regression
        (4, "broken infrastructure"),
    ],
)
def test_the_kind_follows_the_exit_status(forge: Forge, status: int | str, kind: str) -> None:
    night(forge, cell("m/b/fine", 20.0), str(status))
    [issue] = forge.state["issues"]
    assert issue["title"] == f"Nightly: {kind}"


def test_a_night_without_a_report_says_so_and_is_told_once(forge: Forge) -> None:
    for _ in range(2):
        night(forge, None, "")
    [issue] = forge.state["issues"]
    assert "There is no report: see the log of the run." in issue["body"]
    assert "(exit status none)" in issue["body"]
    assert forge.written == ["issue create"]


def test_a_long_report_is_cut(forge: Forge) -> None:
    many = worse(*(f"m/b/{'x' * 60}{n}" for n in range(400)))
    night(forge, many, "1")
    [issue] = forge.state["issues"]
    assert "this is its beginning" in issue["body"]
    assert len(issue["body"]) < 65_536
    night(forge, many, "1")
    assert forge.written == ["issue create"], "all members count, though not all are kept"


def test_of_more_members_than_are_kept_nobody_knows_which_came(forge: Forge) -> None:
    many = [f"m/b/{number:03}" for number in range(120)]
    night(forge, worse(*many), "1")
    night(forge, worse(*many[1:]), "1")
    [issue] = forge.state["issues"]
    assert issue["comments"] == [
        "Now regression. Gone: `m/b/000 perplexity: regression`. "
        "https://github.com/o/r/actions/runs/7, commit abc."
    ]


def test_a_night_that_breaks_off_is_made_up_for_by_the_next(forge: Forge) -> None:
    night(forge, worse("m/b/one"), "1")
    program = forge.folder / "bin" / "gh"
    whole = program.read_text()
    program.write_text(
        whole.replace("words = sys.argv[1:]", "words = sys.argv[1:]\nassert words[1] != 'comment'")
    )
    write_report(forge.folder / "report", worse("m/b/one", "m/b/two"), INFO)
    assert forge.run("issue.py", "nightly", RESULT="failure", STATUS="1").returncode != 0
    program.write_text(whole)
    night(forge, worse("m/b/one", "m/b/two"), "1")
    [issue] = forge.state["issues"]
    assert issue["comments"][0].startswith("Now regression. New: `m/b/two perplexity: regression`.")


# --- the canary -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "status", "searched"),
    [
        ("perplexity", Status.REGRESSION, "perplexity"),
        ("perplexity/loss", Status.REGRESSION, "perplexity"),
        ("throughput/decode_ratio", Status.REGRESSION, "throughput/decode"),
        ("perplexity/reproduction", Status.CHANGED, "perplexity/reproduction"),
    ],
)
def test_the_canary_names_the_command_that_finds_the_release(
    forge: Forge, metric: str, status: Status, searched: str
) -> None:
    night(forge, worse("m/b/one", metric=metric, status=status), "1", "--canary", label="canary")
    [issue] = forge.state["issues"]
    assert "\ngh run download 7 --name canary-report\n" in issue["body"]
    (line,) = (line for line in issue["body"].splitlines() if " -m quantgate.bisect " in line)
    options = _parser().parse_args(shlex.split(line)[3:])
    assert (options.cell, options.metric, options.tier) == ("m/b/one", searched, "nightly")
    assert str(options.good) == "fixtures/constraints.txt"
    assert str(options.bad) == "report/constraints.txt"


def test_drift_says_what_it_is_and_no_upgrade_is_looked_for(forge: Forge) -> None:
    drifted = worse("m/b/one", metric="perplexity/anchor", status=Status.DRIFT)
    night(forge, drifted, str(EXIT[Status.DRIFT]), "--canary", label="canary")
    [issue] = forge.state["issues"]
    assert issue["title"].startswith("Canary: drift: m/b/one: perplexity/anchor")
    assert "update the baselines with --re-anchor and a reason" in issue["body"]
    assert "quantgate.bisect" not in issue["body"]


def test_without_a_metric_that_moved_there_is_no_command(forge: Forge) -> None:
    night(forge, worse("m/b/one", status=Status.ERROR), "10", "--canary", label="canary")
    [issue] = forge.state["issues"]
    assert "quantgate.bisect" not in issue["body"]
    assert "No metric moved that a bisection could go by." in issue["body"]
