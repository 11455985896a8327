"""The issues of events: one for each, edited only where its members or its state change."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quantgate.bisect.__main__ import _parser
from quantgate.bisect.ends import read_pins
from quantgate.history.events import events
from quantgate.history.issues import to_issues
from quantgate.history.series import read
from quantgate.paths import IMPORT_ROOT
from quantgate.records import Status
from quantgate.report.files import write_report

from selftest.history import nights
from selftest.history.nights import Change, Plan
from selftest.report.examples import INFO, cell, verdict
from selftest.workflows.forge import GITHUB, Forge

UPGRADE = {60: {"llama-cpp-python": "0.3.37", "torch": "2.14.0+cpu"}}
Q4 = ("m/llamacpp/Q4_K_M", "m/llamacpp/Q4_0")


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def worse(*cells: str, since: int = 60, until: int = 9999, metric: str = "perplexity") -> Change:
    return lambda cell, name, night: (
        1.02 if since <= night < until and name == metric and cell in cells else 1.0
    )


def night(forge: Forge, plan: Plan, place: str = "nightly") -> None:
    """Make the history anew up to a night, and run the issues' job."""
    history = forge.folder / "history"
    shutil.rmtree(history, ignore_errors=True)
    nights.write(history, plan)
    made = read(history)
    (forge.folder / "report").mkdir(exist_ok=True)
    (forge.folder / "report" / "events.json").write_text(to_issues(made, events(made)))
    done = forge.run("events.py", place)
    assert done.returncode == 0, done.stderr


def only(forge: Forge) -> dict[str, Any]:
    [issue] = forge.state["issues"]
    return dict(issue)


def test_an_event_is_one_issue_that_later_nights_leave_alone(forge: Forge) -> None:
    night(forge, Plan(nights=60))
    assert forge.written == []
    for count in (61, 62, 75, 90):
        night(forge, Plan(nights=count, environments=UPGRADE, change=worse(*Q4)))
    assert forge.written == ["issue create"]
    issue = only(forge)
    assert issue["label"] == "event"
    assert issue["title"] == f"Nightly: perplexity worse since 2026-03-02: {Q4[0]}, {Q4[1]}"
    assert "| m/llamacpp/Q4_0 | perplexity | 25.920 | 26.438 | +2.00 % |" in issue["body"]
    assert "- llama-cpp-python 0.3.36 -> 0.3.37" in issue["body"]


def test_the_size_of_a_step_is_no_change_and_a_member_is(forge: Forge) -> None:
    night(forge, Plan(nights=61, change=worse(Q4[0])))
    environments = {61: {"torch": "2.14"}}

    def grows(cell: str, metric: str, night: int) -> float:
        more = 1.0002 if night >= 61 and metric == "perplexity" and cell == Q4[0] else 1.0
        return more * worse(Q4[0])(cell, metric, night)

    night(forge, Plan(nights=62, environments=environments, change=grows))
    assert forge.written == ["issue create"]
    night(forge, Plan(nights=62, change=worse(*Q4)))
    assert forge.written == ["issue create", "issue comment", "issue edit"]
    issue = only(forge)
    assert issue["comments"] == [
        "New: `perplexity of m/llamacpp/Q4_0`. https://github.com/o/r/actions/runs/7"
    ]
    assert f"| {Q4[1]} | perplexity |" in issue["body"]


def test_the_issue_follows_the_state(forge: Forge) -> None:
    back = {**UPGRADE, 64: {"llama-cpp-python": "0.3.38"}}
    night(forge, Plan(nights=62, environments=UPGRADE, change=worse(*Q4)))
    night(forge, Plan(nights=66, environments=back, change=worse(*Q4, until=64)))
    night(forge, Plan(nights=68, environments=back, change=worse(*Q4, until=64)))
    assert forge.written == ["issue create", "issue comment", "issue close", "issue edit"]
    issue = only(forge)
    assert issue["state"] == "CLOSED"
    [comment] = issue["comments"]
    assert comment.startswith("Now fixed: back since 2026-03-06: llama-cpp-python 0.3.37 -> 0.3.38. https://")
    night(forge, Plan(nights=62, environments=UPGRADE, change=worse(*Q4)))
    assert only(forge)["state"] == "OPEN", "the event is open again"


def test_what_a_person_closed_stays_closed(forge: Forge) -> None:
    night(forge, Plan(nights=61, change=worse(Q4[0])))
    forge.close(1)
    night(forge, Plan(nights=70, change=worse(Q4[0])))
    night(forge, Plan(nights=70, change=worse(*Q4)))
    assert only(forge)["state"] == "CLOSED"


def test_pinned_and_newest_packages_have_issues_of_their_own(forge: Forge) -> None:
    plan = Plan(nights=61, change=worse(Q4[0]))
    night(forge, plan)
    night(forge, plan, "canary")
    night(forge, plan)
    first, second = forge.state["issues"]
    assert [first["title"][:8], second["title"][:8]] == ["Nightly:", "Canary: "]


def test_an_old_event_that_fails_nothing_opens_no_issue(forge: Forge) -> None:
    night(forge, Plan(nights=90, change=worse(Q4[0])))
    assert forge.written == []


def test_many_members_fit(forge: Forge) -> None:
    names = [f"m-{'x' * 150}/llamacpp/{n}" for n in range(300)]
    plan = Plan(nights=3, cells=names, metrics=nights.KINDS[:1], change=worse(*names, since=2))
    night(forge, plan)
    night(forge, plan)
    assert forge.written == ["issue create"]
    assert len(only(forge)["body"]) < 65_536
    assert "And 280 more." in only(forge)["body"]


def test_without_events_nothing_is_written(forge: Forge) -> None:
    done = forge.run("events.py", "nightly")
    assert (done.returncode, done.stdout) == (0, "report/events.json: the run left no events\n")


# --- the command in it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "searched"),
    [("perplexity", "perplexity"), ("perplexity/loss", "perplexity")],
)
def test_the_command_finds_the_release(forge: Forge, metric: str, searched: str) -> None:
    kind = nights.KINDS[0]._replace(metric=metric)
    change = worse(Q4[0], metric=metric)
    night(forge, Plan(nights=61, metrics=[kind], environments=UPGRADE, change=change), "canary")
    commands = re.search(r"```sh\n(.*?)```", only(forge)["body"], re.DOTALL)
    assert commands is not None
    *files, command = commands[1].splitlines()
    subprocess.run(["sh", "-e"], input="\n".join(files), text=True, cwd=forge.folder, check=True)
    options = _parser().parse_args(shlex.split(command)[3:])
    assert (options.cell, options.metric, options.tier) == (Q4[0], searched, "nightly")
    good, bad = (read_pins(forge.folder / file) for file in (options.good, options.bad))
    assert {name: (good[name], bad[name]) for name in good if good[name] != bad[name]} == {
        "llama-cpp-python": ("llama-cpp-python==0.3.36", "llama-cpp-python==0.3.37"),
        "torch": ("torch==2.13.0+cpu", "torch==2.14.0+cpu"),
    }
    assert good["transformers"] == bad["transformers"] == "transformers==5.23.0"


def test_where_no_version_differs_there_is_no_command(forge: Forge) -> None:
    night(forge, Plan(nights=61, change=worse(Q4[0])))
    assert "quantgate.bisect" not in only(forge)["body"]
    assert "Nothing that is recorded changed in the environment." in only(forge)["body"]


def test_steps_that_add_up_are_searched_from_the_first_of_them(forge: Forge) -> None:
    creep: Change = lambda cell, metric, night: (  # noqa: E731
        1 + 0.0008 * (night // 10) if (cell, metric) == (Q4[0], "perplexity") else 1.0
    )
    environments = {n: {"torch": f"2.{n}"} for n in (10, 20)}
    night(forge, Plan(nights=21, environments=environments, change=creep))
    commands = only(forge)["body"].partition("```sh")[2]
    assert "torch==2.13.0+cpu" in commands
    assert "torch==2.20" in commands


# --- beside the issue of red nights -----------------------------------------------------------------


def red(forge: Forge, *cells: str, crashed: str = "") -> None:
    """The job of the red night's issue, in which these cells are worse, and one crashed."""
    values = {"measured": 21.0, "baseline": 20.0, "change": 0.05, "tolerance": 0.005}
    moved = [verdict(name, "perplexity", Status.REGRESSION, **values) for name in cells]
    if crashed:
        moved.append(verdict(crashed, "perplexity", Status.ERROR, text="killed"))
    write_report(forge.folder / "report", [*moved, *cell("m/b/fine", 20.0)], INFO)
    done = forge.run("issue.py", "nightly", RESULT="failure", STATUS="1")
    assert done.returncode == 0, done.stderr


def failing(plan: Plan, folder: Path) -> None:
    """Make the last run of a history one in which the gate failed for the cells that moved."""
    last = max(folder.rglob("*.jsonl"))
    lines = last.read_text().splitlines(keepends=True)
    moved = [f'"cell":"{name}","metric":"perplexity"' for name in Q4]
    lines = [
        line.replace('"verdict":"pass"', '"verdict":"regression"')
        if any(text in line for text in moved)
        else line
        for line in lines
    ]
    last.write_text("".join(lines))
    made = read(folder)
    (folder.parent / "report" / "events.json").write_text(to_issues(made, events(made)))


def test_what_an_event_tells_is_not_told_twice(forge: Forge) -> None:
    red(forge, Q4[0])
    plan = Plan(nights=90, change=worse(*Q4))
    night(forge, plan)
    assert forge.written == ["issue create"], "the event is old"
    failing(plan, forge.folder / "history")
    assert forge.run("events.py", "nightly").returncode == 0
    assert forge.written == ["issue create", "issue create"], "but the gate fails by it"
    red(forge, *Q4)
    assert forge.written[2:] == ["issue close"]
    red(forge, *Q4)
    assert forge.written[3:] == []
    red(forge, *Q4, "m/b/other")
    assert forge.written[3:] == ["issue create"]
    issue = forge.state["issues"][-1]
    mark = issue["body"].partition("\n")[0]
    assert "m/b/other" in mark
    assert Q4[0] not in mark


def test_the_issue_beside_an_event_is_of_what_is_left(forge: Forge) -> None:
    night(forge, Plan(nights=90, change=worse(*Q4)))
    failing(Plan(nights=90, change=worse(*Q4)), forge.folder / "history")
    red(forge, Q4[0], crashed="m/b/other")
    title = forge.state["issues"][-1]["title"]
    assert title.startswith("Nightly: broken infrastructure: m/b/other: perplexity"), title


# --- from the branch --------------------------------------------------------------------------------


def git(*words: str) -> None:
    name = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *name, *words], check=True, capture_output=True)


def script(forge: Forge, repository: Path) -> subprocess.CompletedProcess[str]:
    words = [str(GITHUB / "scripts" / "events.sh"), f"file://{repository}", "nightly", sys.executable]
    environment = {"PYTHONPATH": str(IMPORT_ROOT), "PATH": "/usr/bin:/bin", "HOME": str(forge.folder)}
    return subprocess.run(
        words, cwd=forge.folder, env=environment, capture_output=True, text=True, check=False
    )


def test_tonight_and_the_branch_are_read_together(forge: Forge, tmp_path: Path) -> None:
    *old, last = nights.write(tmp_path / "all", Plan(nights=61, change=worse(*Q4)))
    work, bare = tmp_path / "work", tmp_path / "r.git"
    git("init", "--quiet", "--bare", str(bare))
    git("init", "--quiet", "--initial-branch=history", str(work))
    for paths, place in ((old, work / "nightly"), ([last], tmp_path / "report" / "history")):
        for path in paths:
            target = place / path.relative_to(tmp_path / "all")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    done = script(forge, bare)
    assert done.returncode == 0, done.stderr
    assert '"events":[]' in (tmp_path / "report" / "events.json").read_text().replace(" ", ""), "one night"
    git("-C", str(work), "add", "--all")
    git("-C", str(work), "commit", "--quiet", "--message", "sixty nights")
    git("-C", str(work), "push", "--quiet", str(bare), "history")
    done = script(forge, bare)
    assert done.returncode == 0, done.stderr
    assert forge.run("events.py", "nightly").returncode == 0
    assert only(forge)["title"].startswith("Nightly: perplexity worse since 2026-03-02")
    assert "2026-03-02" in (tmp_path / "report" / "history.html").read_text()


def test_a_repository_that_cannot_be_reached_is_an_error(forge: Forge, tmp_path: Path) -> None:
    assert script(forge, tmp_path / "none").returncode not in (0, 1)
