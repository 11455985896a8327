"""Open, edit, close and reopen the issues of a history's events: one issue for one event.

    python3 events.py PLACE       environment: GH_TOKEN, GH_REPO, GITHUB_*

It reads report/events.json, which `python -m quantgate.history issues` writes. A hidden mark in an issue has the
event's id, which stays when the history is read anew, and a digest of its members and state. Where the digest is the
same, nothing is written and nobody is notified. Where it differs, the text is replaced and one comment says what came,
went or became of it; the issue is open as long as the event is. An issue that a person has closed stays closed until
the state changes. Needs the standard library and `gh` alone, since it runs with a token that writes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gh import gh

EVENTS = Path("report/events.json")
LABEL = "event"
LIMIT = 55_000
"""Characters of a text; an issue holds 65,536 with the mark."""
KEPT = 50
"""Members that the next run can name as gone."""
FEW = 10
MARK = re.compile(r"<!-- quantgate event (\{.*\}) -->")
DASHES = "-\\u002d"
"""Two dashes, as JSON: written out, they would end the comment that a mark is."""

Event = Mapping[str, Any]


def read_events() -> list[Event]:
    """Return the events of the history; none where the run left no file."""
    if not EVENTS.is_file():
        print(f"{EVENTS}: the run left no events")
        return []
    every: list[Event] = json.loads(EVENTS.read_bytes())["events"]
    return every


def mark_of(event: Event, place: str) -> str:
    """Return the hidden mark: what the next run reads."""
    data = {"place": place, **{key: event[key] for key in ("id", "digest", "state")}}
    text = json.dumps({**data, "members": event["members"][:KEPT]})
    return f"<!-- quantgate event {text.replace('--', DASHES)} -->"


def read_mark(body: str) -> dict[str, Any] | None:
    """Return what the mark of an issue says; None: it has none."""
    match = MARK.match(body)
    return json.loads(match[1]) if match else None


def change(before: Event, event: Event) -> str:
    """Return what became of an event since its issue was written, and which members came and went."""
    parts = []
    if before["state"] != event["state"]:
        reason = f": {event['reason']}" if event["reason"] else ""
        parts.append(f"Now {event['state']}{reason}.")
    old, new = ({tuple(member) for member in one["members"]} for one in (before, event))
    whole = len(before["members"]) < KEPT  # else nobody knows which are new
    for word, members in (("New", sorted(new - old) if whole else []), ("Gone", sorted(old - new))):
        if members:
            more = f" and {len(members) - FEW} more" if len(members) > FEW else ""
            names = ", ".join(f"`{metric} of {cell}`" for cell, metric in members[:FEW])
            parts.append(f"{word}: {names}{more}.")
    return " ".join(parts) or "Its members changed."


def reconcile(event: Event, issue: Mapping[str, Any] | None, place: str, run: str) -> None:
    """Make the issue of an event what it should be. issue: number, body and state of the one that there is."""
    title = f"{place.capitalize()}: {event['title']}"
    body = f"{mark_of(event, place)}\n{event['body'][:LIMIT]}\n\nFrom the history of [{place}]({run}).\n"
    if issue is None:
        if event["new"]:
            gh("issue", "create", "--title", title, "--label", LABEL, "--body-file", "-", text=body)
        return
    before = read_mark(issue["body"])
    if before is None or before["digest"] == event["digest"]:
        return
    number = str(issue["number"])
    gh("issue", "edit", number, "--title", title, "--body-file", "-", text=body)
    gh("issue", "comment", number, "--body-file", "-", text=f"{change(before, event)} {run}")
    if before["state"] != event["state"]:
        is_open, to_open = issue["state"].upper() == "OPEN", event["state"] == "open"
        if is_open != to_open:
            gh("issue", "reopen" if to_open else "close", number)


def by_event(issues: Iterable[Mapping[str, Any]], place: str) -> dict[str, Mapping[str, Any]]:
    """Return the issues of a place by the id of their event; the oldest where there are several."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for issue in sorted(issues, key=lambda issue: issue["number"]):
        mark = read_mark(issue["body"])
        if mark is not None and mark["place"] == place:
            chosen.setdefault(mark["id"], issue)
    return chosen


def main() -> int:
    """Run the command."""
    place, env = sys.argv[1], os.environ
    events = read_events()
    if not events:
        return 0
    run = f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_REPOSITORY']}/actions/runs/{env['GITHUB_RUN_ID']}"
    fields = ("--state", "all", "--label", LABEL, "--json", "number,body,state", "--limit", "1000")
    issues = by_event(json.loads(gh("issue", "list", *fields)), place)
    if any(event["new"] and event["id"] not in issues for event in events):
        about = "Something moved in the history"
        gh("label", "create", LABEL, "--color", "d93f0b", "--description", about, "--force")
    for event in reversed(events):  # the oldest first, as issues are numbered
        reconcile(event, issues.get(event["id"]), place, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
