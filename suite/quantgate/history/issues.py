"""Write each event as the text of a GitHub issue: what moved, since when, by what, and which command says which upgrade
did it. Pure; `.github/scripts/events.py` opens, edits and closes the issues."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic_core

from quantgate.history.events import Event, State
from quantgate.history.moves import Move
from quantgate.history.series import STATUSES, History, Run
from quantgate.history.telling import WORDS, levels, size
from quantgate.machine.environment import PACKAGES
from quantgate.records import MOVED, Scalar
from quantgate.words import abridged, listed

FORMAT = 1
"""Version of the layout of the JSON; raised when a reader of the old one would misread the new one."""
SHOWN = 20
"""Members of an event that are written out."""
RECENT = 14
"""Days after an event was seen in which an issue is opened for it, where the gate does not fail: a rule that changed,
or a history that is a year old when its events are first written out, floods nobody."""
TITLE = 200


def to_issues(history: History, events: Sequence[Event]) -> str:
    """Return all events as JSON: what an issue about each says, and what decides whether it is edited.

    digest: a hash of members and state. members: cell and metric of each. failing: those that failed the gate in the
    last run, of an event that is open or acknowledged. new: whether an issue is opened where there is none.
    """
    return pydantic_core.to_json(
        {"format": FORMAT, "events": [_issue(history, event) for event in events]}, indent=1
    ).decode()


def _issue(history: History, event: Event) -> dict[str, Any]:
    failing = _failing(history, event)
    recent = (history.runs[-1].time - event.seen.time).days < RECENT
    return {
        "id": event.id,
        "state": event.state,
        "reason": event.reason,
        "digest": event.digest,
        "new": event.state == State.OPEN and (recent or bool(failing)),
        "title": title_of(event),
        "body": body_of(history, event),
        "members": [[move.series.cell, move.series.metric] for move in event.members],
        "failing": failing,
    }


def _failing(history: History, event: Event) -> list[list[str]]:
    """Return cell and metric of the members that failed the gate in the newest run of their tier."""
    if event.state not in (State.OPEN, State.ACKNOWLEDGED):
        return []
    last = history.tiers[event.run.tier][-1]
    failing = [code for code, status in enumerate(STATUSES) if status in MOVED]
    return [[m.series.cell, m.series.metric] for m in event.members if m.series.status[last] in failing]


def title_of(event: Event) -> str:
    """Return the title: what moved, since when, and where."""
    what = f"{listed(event.metrics)} {WORDS[event.direction]}"
    return f"{what} since {event.run.time:%Y-%m-%d}: {abridged(event.cells)}"[:TITLE]


def body_of(history: History, event: Event) -> str:
    """Return the text, as Markdown."""
    reason = f": {event.reason}" if event.reason else ""
    lines = [
        f"Event `{event.id}`, **{event.state}**{reason}.",
        "",
        f"First run on the new level: {_run(event.run)}. Seen in the run {_run(event.seen)}.",
        "",
        "| cell | metric | before | after | change |",
        "| --- | --- | --- | --- | --- |",
        *(_row(move) for move in event.members[:SHOWN]),
        "",
    ]
    if len(event.members) > SHOWN:
        lines += [f"And {len(event.members) - SHOWN} more.", ""]
    lines += ["**What changed in the environment:**", ""] if event.cause else []
    lines += [f"- {line}" for line in event.cause] or ["Nothing that is recorded changed in the environment."]
    lines += ["", *_which_upgrade(history, event), *_accept(event)]
    return "\n".join(lines)


def _row(move: Move) -> str:
    before, _, after = levels(move).partition(" -> ")
    return f"| {move.series.cell} | {move.series.metric} | {before} | {after} | {size(move)} |"


def _run(run: Run) -> str:
    commit = f", commit {run.commit[:12]}" if run.commit else ""
    return f"{run.id[:8]} of {run.time:%Y-%m-%d %H:%M} UTC{commit}"


def _which_upgrade(history: History, event: Event) -> Iterator[str]:
    """Yield the commands that say which upgrade did it, by the first member that a bisection can go by; nothing where
    no version differs."""
    for move in event.members:
        metric = searched(move.series.metric)
        good, bad = (pins(history.environment_of(move.series, run)) for run in (move.since, move.last))
        both = [name for name in good if name in bad]
        if metric is None or all(good[name] == bad[name] for name in both):
            continue
        words = ["--cell", move.series.cell, "--metric", metric, "--tier", move.series.tier]
        ends = {"good.txt": [good[name] for name in both], "bad.txt": [bad[name] for name in both]}
        yield from ("Which upgrade did it, by the versions before and after:", "", "```sh")
        for file, lines in ends.items():
            yield f"printf '%s\\n' {shlex.join(lines)} >{file}"
        yield f"python -m quantgate.bisect {shlex.join(words)} --good good.txt --bad bad.txt"
        yield from ("```", "")
        return


def pins(environment: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the versions of an environment that can change a number, by package: `torch==2.13.0`."""
    return {name: f"{name}=={environment[name]}" for name in PACKAGES if environment.get(name) is not None}


def searched(metric: str) -> str | None:
    """Return the metric that a bisection measures to learn about this one, which may be relative to a reference cell;
    None: there is none."""
    return None if metric.startswith("agreement/") else re.sub(r"(/loss|_ratio)(?=$|/)", "", metric)


def _accept(event: Event) -> Iterator[str]:
    """Yield how an open event is accepted."""
    if event.state != State.OPEN:
        return
    yield from ("Where it is accepted, add to `fixtures/acknowledged.toml`:", "", "```toml")
    yield from (
        "[[acknowledged]]",
        f'event = "{event.id}"',
        'reason = "why"',
        "until = YYYY-MM-DD",
        "```",
        "",
    )
