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
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gh import gh, run_address
from marks import came_and_went, mark, read_mark

EVENTS = Path("report/events.json")
LABEL = "event"
LIMIT = 55_000
"""Characters of a text; an issue holds 65,536 with the mark."""
KEPT = 50
"""Members that the next run can name as gone."""
MARK = "quantgate event"

Event = Mapping[str, Any]


def read_events() -> list[Event]:
    """Return the events of the history; none where the run left no file."""
    if not EVENTS.is_file():
        print(f"{EVENTS}: the run left no events")
        return []
    every: list[Event] = json.loads(EVENTS.read_bytes())["events"]
    return every


def change(before: Event, event: Event) -> str:
    """Return what became of an event since its issue was written, and which members came and went."""
    parts = []
    if before["state"] != event["state"]:
        reason = f": {event['reason']}" if event["reason"] else ""
        parts.append(f"Now {event['state']}{reason}.")
    old, new = ({f"{metric} of {cell}" for cell, metric in one["members"]} for one in (before, event))
    return " ".join([*parts, *came_and_went(old, new, KEPT)]) or "Its members changed."


def reconcile(event: Event, issue: Mapping[str, Any] | None, place: str, run: str) -> None:
    """Make the issue of an event what it should be. issue: number, body and state of the one that there is."""
    title = f"{place.capitalize()}: {event['title']}"
    data = {"place": place, **{key: event[key] for key in ("id", "digest", "state")}}
    first = mark(MARK, {**data, "members": event["members"][:KEPT]})
    body = f"{first}\n{event['body'][:LIMIT]}\n\nFrom the history of [{place}]({run}).\n"
    if issue is None:
        if event["new"]:
            gh("issue", "create", "--title", title, "--label", LABEL, "--body-file", "-", text=body)
        return
    before = read_mark(MARK, issue["body"])
    if before is None or before["digest"] == event["digest"]:
        return
    number = str(issue["number"])
    gh("issue", "comment", number, "--body-file", "-", text=f"{change(before, event)} {run}")
    if before["state"] != event["state"]:
        is_open, to_open = issue["state"].upper() == "OPEN", event["state"] == "open"
        if is_open != to_open:
            gh("issue", "reopen" if to_open else "close", number)
    # The mark comes last: a night that breaks off before it is made up for by the next one.
    gh("issue", "edit", number, "--title", title, "--body-file", "-", text=body)


def by_event(issues: Iterable[Mapping[str, Any]], place: str) -> dict[str, Mapping[str, Any]]:
    """Return the issues of a place by the id of their event; the oldest where there are several."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for issue in sorted(issues, key=lambda issue: issue["number"]):
        data = read_mark(MARK, issue["body"])
        if data is not None and data["place"] == place:
            chosen.setdefault(data["id"], issue)
    return chosen


def main() -> int:
    """Run the command."""
    place, run = sys.argv[1], run_address()
    events = read_events()
    if not events:
        return 0
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
