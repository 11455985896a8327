"""Write events out: as text for people, as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pydantic_core

from quantgate.history.events import Event, State
from quantgate.history.moves import Move
from quantgate.history.series import History, Run, Series
from quantgate.records import Status, Verdict
from quantgate.words import abridged, delta, listed, plural, quantity

FORMAT = 1
"""Version of the layout of the JSON; raised when a reader of the old one would misread the new one."""
SHOWN = 5
"""Members of an event that are written out."""
WORDS = {"worse": "worse", "better": "better", "unequal": "no longer equal to the last digit"}
"""What the metrics of an event are, by its direction."""


def to_text(history: History, events: Sequence[Event], *, everything: bool = False) -> str:
    """Return the open events, the newest first, and how many others there are; everything: these as well."""
    if not history.runs:
        return "The history has no runs."
    first, last = history.runs[0], history.runs[-1]
    shown = [event for event in events if everything or event.state == State.OPEN]
    counts = Counter(event.state for event in events)
    counted = ", ".join(f"{counts[state]} {state}" for state in State if counts[state]) or "nothing happened"
    head = f"{plural(len(history.runs), 'run')} from {_day(first)} to {_day(last)}: {counted}"
    return "\n\n".join([head, *map(_paragraph, shown)])


def _paragraph(event: Event) -> str:
    run = event.run
    since = f"{_day(run)} (run {run.id[:8]}, commit {run.commit or 'none'}), seen {_day(event.seen)}"
    lines = [
        f"{event.id}  {event.state}{f': {event.reason}' if event.reason else ''}",
        f"  {WORDS[event.direction]} since {since}: {abridged(event.cells)}; {listed(event.metrics)}",
    ]
    lines += [f"  environment: {line}" for line in event.cause or ["nothing that is recorded changed"]]
    for move in event.members[:SHOWN]:
        lines.append(f"  {size(move):>10}  {move.series.metric} of {move.series.cell}: {levels(move)}")
    if len(event.members) > SHOWN:
        lines.append(f"  and {len(event.members) - SHOWN} more")
    return "\n".join(lines)


def size(move: Move) -> str:
    """Return the change of a move, `+2.50 %`; in the metric's unit where it is not relative."""
    return in_terms_of(move.series, move.change)


def in_terms_of(series: Series, change: float) -> str:
    """Return a change as a series states it, signed."""
    unit: Literal["relative", "absolute"] = "relative" if series.relative else "absolute"
    return delta(change, Verdict(cell="", metric="", status=Status.PASS, unit=series.unit, change_unit=unit))


def levels(move: Move) -> str:
    """Return the values or levels before and after, `21.6 -> 22.1`."""
    unit = move.series.unit
    return f"{quantity(move.before, unit)} -> {quantity(move.after, unit)}"


def to_json(history: History, events: Sequence[Event]) -> str:
    """Return all events with their members."""
    report = {
        "format": FORMAT,
        "runs": len(history.runs),
        "problems": list(history.problems),
        "events": [_event(history, event) for event in events],
    }
    return pydantic_core.to_json(report, indent=1).decode()


def _event(history: History, event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "state": event.state,
        "reason": event.reason,
        "direction": event.direction,
        "digest": event.digest,  # a message about the event is edited only where it differs
        "run": _run(event.run),
        "seen": _run(event.seen),
        "cause": list(event.cause),
        "members": [
            {
                "tier": move.series.tier,
                "cell": move.series.cell,
                "metric": move.series.metric,
                "unit": move.series.unit,
                "exact": move.exact,
                "gated": move.gated,
                "run": history.runs[move.run].id,
                "before": move.before,
                "after": move.after,
                "change": move.change,
                "terms": "relative" if move.series.relative else "absolute",
                "cause": list(move.cause),
                "back": None if move.back is None else history.runs[move.back].id,
            }
            for move in event.members
        ],
    }


def _run(run: Run) -> dict[str, str]:
    return {"id": run.id, "time": run.time.isoformat(), "commit": run.commit}


def _day(run: Run) -> str:
    return f"{run.time:%Y-%m-%d}"
