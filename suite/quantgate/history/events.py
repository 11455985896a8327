"""Make events of moves: one cause is one event, with an identity and a state. Pure.

All series that move at one run in one direction are one event; so are those that the same change of the environment
moves, on whatever machine. Its id is made of the direction and the first run on the new level, and is settled by the
nights until it was seen: computed anew, a year later, it is the same.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

import numpy as np

from quantgate.files import hash_of
from quantgate.history.acknowledged import Acknowledgement
from quantgate.history.moves import Move, moves
from quantgate.history.series import ABSENT, History, Run, Series

NEAR = 2
"""Runs of the tier that two moves of one event may be apart, where no exact step says when it was."""
ENDED = 14
"""Runs of the tier without a series, whatever their results, after which it is none any more: its cell or metric was
removed or renamed. A cell that fails is in its runs, as an error."""
RAMP = 60
"""Runs of the tier within which a further move of the same series in the same direction is the same ramp."""


class State(StrEnum):
    """What became of an event.

    open: nobody has looked at it. acknowledged: accepted, by an entry of `fixtures/acknowledged.toml` or because the
    baseline moved to the new level. gone: the level is back, and nothing says why; or what moved is measured no
    longer. fixed: the level is back since the environment or the weights changed again.
    """

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    GONE = "gone"
    FIXED = "fixed"


@dataclass(frozen=True)
class Event:
    """One cause. id: stable. run: the first on the new level. seen: the run that showed it. members: its moves, the
    largest share of their tolerance first. reason: of the state."""

    id: str
    direction: str
    run: Run
    seen: Run
    cause: Sequence[str]
    members: Sequence[Move]
    state: State
    reason: str

    @property
    def cells(self) -> list[str]:
        """The cells, each once."""
        return list(dict.fromkeys(move.series.cell for move in self.members))

    @property
    def metrics(self) -> list[str]:
        """The metrics, each once."""
        return list(dict.fromkeys(move.series.metric for move in self.members))

    @property
    def digest(self) -> str:
        """A hash of members and state: a message about the event is edited only where it differs."""
        members = sorted(f"{m.series.tier} {m.series.cell} {m.series.metric}" for m in self.members)
        return hash_of([self.id, self.state, members])


def events(
    history: History, acknowledged: Sequence[Acknowledgement] = (), today: datetime.date | None = None
) -> list[Event]:
    """Return the events of a history, the newest first. today: up to when acknowledgements hold; default: the day of
    the last run, so that the same history gives the same events."""
    if not history.runs:
        return []
    today = today or history.runs[-1].time.date()
    groups = _groups(history)
    made = [_event(history, group, *_state(history, group, acknowledged, today)) for group in groups]
    return sorted(made, key=lambda event: (event.run.time, event.id), reverse=True)


def _groups(history: History) -> list[list[Move]]:
    """Return the moves of each event, in the order in which they were seen. The first one says at which run the event
    is; a metric without a tolerance begins none."""
    groups: dict[str, list[list[Move]]] = {tier: [] for tier in history.tiers}
    numbers = np.arange(len(history.runs))
    places = {tier: np.searchsorted(runs, numbers).tolist() for tier, runs in history.tiers.items()}
    for move in sorted(moves(history), key=lambda m: (m.seen, not m.gated)):
        of_tier, place = groups[move.series.tier], places[move.series.tier]
        group = next((g for g in reversed(of_tier) if _takes(g, move, place)), None)
        if group is not None:
            group.append(move)
        elif move.gated or move.direction == "unequal":
            of_tier.append([move])
    return [group for of_tier in groups.values() for group in of_tier]


def _takes(group: Sequence[Move], move: Move, place: Sequence[int]) -> bool:
    """Return whether a move, which was seen later, is of the same event. place: by run, how many of the tier that both
    are of come before it."""
    first = group[0]
    if move.direction != first.direction:
        return False
    if move.exact and first.exact:
        return move.run == first.run or (bool(move.cause) and any(m.cause == move.cause for m in group))
    mine = [m for m in group if m.series is move.series and not m.exact and m.back is None]
    if mine and not move.exact and place[move.run] - place[mine[-1].run] <= RAMP:
        return True
    return place[move.first] - NEAR <= place[first.run] <= place[move.last] + NEAR


def _event(history: History, group: Sequence[Move], state: State, reason: str) -> Event:
    first, run = group[0], history.runs[group[0].run]
    causes = [m.cause for m in group if m.cause]
    shared = [line for line in causes[0] if all(line in cause for cause in causes)] if causes else []
    return Event(
        id=_id(first.direction, run),
        direction=first.direction,
        run=run,
        seen=history.runs[first.seen],
        cause=shared or (causes[0] if causes else ()),
        members=sorted(group, key=_share, reverse=True),
        state=state,
        reason=reason,
    )


def _id(direction: str, run: Run) -> str:
    return f"{direction}-{run.time:%Y%m%d}-{run.id[:8]}"


def _state(
    history: History, group: Sequence[Move], entries: Sequence[Acknowledgement], today: datetime.date
) -> tuple[State, str]:
    gated = [move for move in group if move.gated] or group
    if all(move.back is not None for move in gated):
        last = max(gated, key=lambda move: move.back or 0)
        when = f"{history.runs[last.back or 0].time:%Y-%m-%d}"
        if last.back_cause:
            return State.FIXED, f"back since {when}: {', '.join(last.back_cause)}"
        return State.GONE, f"back since {when}"
    away = [move for move in gated if move.back is None]
    left = [move for move in away if not _ended(history, move.series)]
    if not left:
        last_run = max(int(np.flatnonzero(move.series.status != ABSENT)[-1]) for move in away)
        return State.GONE, f"not in the runs since {history.runs[last_run].time:%Y-%m-%d}"
    reasons = []
    for move in left:
        entry = next((e for e in entries if _covers(e, move, history, group[0].run)), None)
        if entry is not None and entry.until >= today:
            reasons.append(f"{entry.reason} (until {entry.until})")
        elif _accepted(history, move):
            reasons.append("the baseline moved to the new level")
        elif entry is not None:
            return State.OPEN, f"its acknowledgement ended on {entry.until}: {entry.reason}"
        else:
            return State.OPEN, ""
    return State.ACKNOWLEDGED, "; ".join(dict.fromkeys(reasons))


def _ended(history: History, series: Series) -> bool:
    """Return whether the newest `ENDED` runs of the tier have not had the series."""
    runs = history.tiers[series.tier][-ENDED:]
    return len(runs) == ENDED and bool((series.status[runs] == ABSENT).all())


def _covers(entry: Acknowledgement, move: Move, history: History, run: int) -> bool:
    """Return whether an entry is about a member of the event of `run`. Where runs were added to the past, the event may
    begin up to `NEAR` runs beside the one that the entry names."""
    if not (fnmatchcase(move.series.cell, entry.cell) and fnmatchcase(move.series.metric, entry.metric)):
        return False
    runs = history.tiers[move.series.tier]
    place = int(np.searchsorted(runs, run))
    near = [history.runs[one] for one in runs[max(place - NEAR, 0) : place + NEAR + 1]]
    return entry.event in {_id(move.direction, one) for one in near}


def _accepted(history: History, move: Move) -> bool:
    """Return whether the baseline has moved since, to less than half of the step from the new level. Of ratios and
    peaks other machines have other baselines, so those of the move's class count."""
    of_class = [run.machine_class == history.runs[move.run].machine_class for run in history.runs]
    every = np.where(of_class, move.series.baseline, np.nan)
    baselines, before = (part[~np.isnan(part)] for part in (every, every[: move.run]))
    if not len(before) or not len(baselines) or baselines[-1] == before[-1]:
        return False
    return bool(abs(baselines[-1] - move.after) < abs(move.after - move.before) / 2)


def _share(move: Move) -> float:
    """Return a move as a share of its tolerance, for the order."""
    tolerances = move.series.tolerance[np.isfinite(move.series.tolerance)]
    return (
        abs(move.change) / float(tolerances[-1]) if len(tolerances) and tolerances[-1] else abs(move.change)
    )
