"""`python -m quantgate.history`: what it prints, its exit status, and the sentence for each wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from quantgate.history.__main__ import main
from quantgate.report.files import write_report

from selftest.history import nights
from selftest.history.nights import Change, Plan
from selftest.history.test_store import INFO, VERDICTS
from selftest.project import tree

WORSE: Change = lambda cell, metric, night: 1.02 if night >= 60 and metric == "perplexity" else 1.0  # noqa: E731
UPGRADE = Plan(nights=80, environments={60: {"llama-cpp-python": "0.3.37"}}, change=WORSE)
TODAY = "--today=2026-03-30"
NO_TIME = json.dumps(
    {
        "format": 1,
        "info": {"tier": "smoke", "created": "2026-11-28T02:30:11"},
        "verdicts": [{"cell": "m/llamacpp/Q4_0", "metric": "memory", "status": "pass"}],
    }
)


def test_no_event_is_exit_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(tmp_path, Plan(nights=5))
    assert main(["events", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "5 runs from 2026-01-01 to 2026-01-05: nothing happened\n"


def test_a_history_of_which_nothing_is_read_is_not_one_without_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = nights.write(tmp_path / "branch" / "nightly", Plan(nights=1))
    assert main(["events", str(tmp_path / "branch")]) == 4
    assert capsys.readouterr().err == (
        f"{tmp_path}/branch: has no runs, but nightly in it has: name one of these folders\n"
    )
    path.write_text("")
    assert main(["events", str(tmp_path / "branch" / "nightly")]) == 4
    problem, last = capsys.readouterr().err.splitlines()
    assert problem.startswith(f"{path}: line 1 is not JSON")
    assert last == f"{tmp_path}/branch/nightly: none of its files can be read"
    (tmp_path / "empty").mkdir()
    assert main(["events", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == "The history has no runs.\n"


def test_an_open_event_is_exit_status_1_and_says_what_when_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights.write(tmp_path, UPGRADE)
    assert main(["events", str(tmp_path), TODAY]) == 1
    head, _, text = capsys.readouterr().out.partition("\n\n")
    assert head == "80 runs from 2026-01-01 to 2026-03-21: 1 open"
    run = nights.run_id(UPGRADE, 60)[:8]
    title, since, cause, *members = text.splitlines()
    assert title == f"worse-20260302-{run}  open"
    assert since.startswith(f"  worse since 2026-03-02 (run {run}, commit 000003c), seen 2026-03-02: m/")
    assert since.endswith("; perplexity")
    assert cause == "  environment: llama-cpp-python 0.3.36 -> 0.3.37"
    assert sorted(members)[0] == "     +2.00 %  perplexity of m/llamacpp/Q4_0: 25.920 -> 26.438"
    assert len(members) == 3


def test_an_acknowledged_event_is_exit_status_0_until_its_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights.write(tmp_path / "h", UPGRADE)
    event = f"worse-20260302-{nights.run_id(UPGRADE, 60)[:8]}"
    file = tmp_path / "acknowledged.toml"
    file.write_text(f'[[acknowledged]]\nevent = "{event}"\nreason = "other kernels"\nuntil = 2026-04-30\n')
    command = ["events", str(tmp_path / "h"), f"--acknowledged={file}"]
    assert main([*command, TODAY]) == 0
    assert capsys.readouterr().out.strip().endswith(": 1 acknowledged"), "not written out"
    assert main([*command, TODAY, "--all"]) == 0
    assert f"{event}  acknowledged: other kernels (until 2026-04-30)" in capsys.readouterr().out
    assert main([*command, "--today=2026-05-01"]) == 1
    assert "open: its acknowledgement ended on 2026-04-30: other kernels" in capsys.readouterr().out


def test_json_has_every_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = nights.write(tmp_path, UPGRADE)
    paths[3].write_text("")
    assert main(["events", str(tmp_path), "--json", TODAY]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["runs"] == 79
    assert report["problems"] == captured.err.splitlines()
    assert str(paths[3]) in captured.err
    (event,) = report["events"]
    assert event["state"] == "open"
    assert {member["cell"] for member in event["members"]} == set(UPGRADE.cells)
    assert {round(member["change"], 9) for member in event["members"]} == {0.02}
    assert event["run"] == {
        "id": nights.run_id(UPGRADE, 60),
        "time": "2026-03-02T02:30:00+00:00",
        "commit": "000003c",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[[acknowledged]]\nevent = "x"\nreason = "r"\nuntil = 2026-04-30', "acknowledged (entry 1).event: "),
        (
            '[[acknowledged]]\nevent = "worse-20260302-1a2b"\nuntil = 2026-04-30',
            "acknowledged (entry 1).reason: is missing",
        ),
        (
            '[[acknowledged]]\nevent = "worse-20260302-1a2b"\nreason = "r"',
            "acknowledged (entry 1).until: is missing",
        ),
        ('[[acknowledge]]\nevent = "x"', "acknowledge: unknown key. Did you mean 'acknowledged'?"),
        (
            '[[acknowledged]]\nevent = "worse-20260302-1a2b"\nreason = "r"\nuntil = 2026-04-30\n' * 2,
            "acknowledged (entry 2): is there twice",
        ),
        ("[[", "is not valid TOML"),
    ],
)
def test_a_wrong_acknowledgement_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    nights.write(tmp_path / "h", Plan(nights=2))
    file = tmp_path / "acknowledged.toml"
    file.write_text(content)
    assert main(["events", str(tmp_path / "h"), f"--acknowledged={file}"]) == 4
    error = capsys.readouterr().err
    assert error.startswith(f"{file}: ")
    assert says in error


def test_a_missing_folder_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", str(tmp_path / "none")]) == 4
    assert "no such folder" in capsys.readouterr().err


def test_the_shipped_acknowledgements_are_valid(tmp_path: Path) -> None:
    nights.write(tmp_path, Plan(nights=2))
    assert main(["events", str(tmp_path)]) == 0


def test_reports_are_imported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(tmp_path / "report", VERDICTS, INFO)
    command = ["import", str(tmp_path / "report"), f"--history={tmp_path / 'h'}"]
    assert main(command) == 0
    before = tree(tmp_path / "h")
    assert len(before) == 1
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("is there already\n")
    assert tree(tmp_path / "h") == before


@pytest.mark.parametrize(
    ("number", "says"), [("0", "0: must be 1 or more"), ("few", "invalid whole number value: 'few'")]
)
def test_a_number_of_runs_that_is_none_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: str, says: str
) -> None:
    with pytest.raises(SystemExit, match=r"^4$"):
        main(["page", str(tmp_path), "--newest", number])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "is not JSON"),
        ("{}", "is not a report of quantgate"),
        ('{"format": 99, "info": {}, "verdicts": []}', "has format 99"),
        ('{"format": 1, "info": {"tier": "smoke"}, "verdicts": []}', "nothing was judged"),
        ('{"format": 1, "info": {"tier": "smoke", "against": "x"}, "verdicts": []}', "is of an A/B run"),
        (NO_TIME, "the run's time: "),
        (json.dumps({**json.loads(NO_TIME), "info": {"tier": "smoke"}}), "does not say when its run ended"),
        ('{"format": 1, "info": {}, "verdicts": []}', "is not a report of quantgate: Field required"),
    ],
)
def test_what_is_no_report_is_named_and_the_others_are_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    write_report(tmp_path / "good", VERDICTS, INFO)
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    assert main(["import", str(bad), str(tmp_path / "good"), f"--history={tmp_path / 'h'}"]) == 4
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{bad}: {says}")
    assert captured.out.startswith("wrote ")
