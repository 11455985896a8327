"""One row of the table: replays of one effect, judged by the gate and by the two other rules."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from quantgate.judge import Tolerances, judge, reproduction
from quantgate.judge.confirm import settle, suspicious
from quantgate.proofs.power.paired import Pair
from quantgate.proofs.power.rates import Rate
from quantgate.proofs.power.rules import beyond_limit, beyond_share
from quantgate.records import Metric, Status, Verdict, worst

RED = {Status.REGRESSION, Status.CHANGED}
"""Verdicts that fail a case."""

SEED = 20261122

HERE = "in the baseline's own environment"
ELSEWHERE = "on other processors and builds"
"""Where the same code gives the same numbers, and where kernels round otherwise: tolerances differ."""


class Replay(NamedTuple):
    """One cell measured once more. again: gives what a second look goes by, at what seems worse. fresh: against a
    stored baseline, the processes of that look alone (`again` then has the first ones too). against: by A/B, both
    sides side by side."""

    cell: str
    pairs: Mapping[str, Pair]
    again: Callable[[], Mapping[str, Pair]] | None = None
    fresh: Callable[[], Mapping[str, Pair]] | None = None
    against: bool = False


@dataclass(frozen=True)
class Scenario:
    """An effect of known size.

    effect: relative, or in points of accuracy as a share; 0: a run that changes nothing. spread: how it is spread, or
    how it is measured. source: the data replayed. replays: called with how many of each cell, cell by cell.
    gates: among how many the alarm rate of the run is divided; None: those of the tier. everywhere: whether every
    run of the tier has these gates (absolute timings and A/B it has not). place: `HERE` or `ELSEWHERE`; empty where
    that makes no difference.
    """

    group: str
    effect: float
    spread: str
    source: str
    cells: int
    replays: Callable[[int, np.random.Generator], Iterator[Replay]]
    gates: int | None = None
    everywhere: bool = True
    place: str = ""


@dataclass
class Row:
    """What became of the replays of one scenario at one gate. `share`, `limit`: the two other rules, None where they
    have nothing to say (nats have no share, only perplexity has a limit)."""

    scenario: Scenario
    gate: str
    red: Rate
    inconclusive: Rate
    share: Rate | None = None
    limit: Rate | None = None


@dataclass(frozen=True)
class Referee:
    """The gate's judge, with its tolerances and the level of one gate."""

    tolerances: Tolerances
    alpha: float
    environment: Sequence[str] = ()

    def of(self, scenario: Scenario) -> Referee:
        """At the level of a run with so many gates, and at that place."""
        alpha = self.alpha if scenario.gates is None else self.tolerances.run_alpha / scenario.gates
        return replace(self, alpha=alpha, environment=[ELSEWHERE] if scenario.place == ELSEWHERE else [])

    def verdicts(self, cell: str, pairs: Mapping[str, Pair], against: bool = False) -> dict[str, Verdict]:
        """By gate. A metric without a tolerance is recorded and has none."""
        found: dict[str, Verdict] = {}
        for name, (baseline, measured) in pairs.items():
            tolerance = self.tolerances.of(name, cell, against=against)
            if tolerance is None:
                continue
            alpha = math.sqrt(self.alpha) if against and measured.nested else self.alpha
            found[name] = verdict = judge(cell, name, measured, baseline, tolerance, alpha, self.environment)
            harmless = self.tolerances.of_reproduction(name, cell) if measured.kind == "paired" else None
            if harmless is not None:
                found[f"{name}/reproduction"] = reproduction(verdict, measured, baseline, harmless)
        return found

    def look(self, replay: Replay) -> dict[str, Status]:
        """The same, with what seems worse measured again, as `Gate` does: by A/B both looks must say so; against a
        stored baseline the processes of both together, and the fresh ones alone must be worse too."""
        first = self.verdicts(replay.cell, replay.pairs, replay.against)
        metrics = {name: measured for name, (_, measured) in replay.pairs.items()}
        if replay.again is None or not suspicious(first.values(), metrics, replay.against):
            return {gate: verdict.status for gate, verdict in first.items()}
        second = self.verdicts(replay.cell, replay.again(), replay.against).values()
        fresh = self.verdicts(replay.cell, replay.fresh()).values() if replay.fresh else ()
        settled = settle(first.values(), second, None if replay.against else fresh, metrics)
        return {verdict.metric: verdict.status for verdict in settled}


@dataclass
class _Tally:
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    scored: bool = False
    limited: bool = False

    def add(self, status: Status) -> None:
        self.total += 1
        self.counts["red"] += status in RED
        self.counts["inconclusive"] += status == Status.INCONCLUSIVE

    def compare(self, name: str, baseline: Metric, measured: Metric) -> None:
        if measured.unit != "nats":
            self.scored = True
            self.counts["share"] += beyond_share(measured, baseline)
        if name == "perplexity":
            self.limited = True
            self.counts["limit"] += beyond_limit(measured)

    def rate(self, what: str) -> Rate:
        return Rate(self.counts[what], self.total)


def pattern(gate: str) -> str:
    """Gates of all tasks in one row, and all peaks: `accuracy/arc_easy/acc` -> `accuracy/*/acc`."""
    return re.sub(
        r"^accuracy/(?!mean/)[^/]+/|(?<=^memory/peak_).*",
        lambda m: "accuracy/*/" if m[0][-1] == "/" else "*",
        gate,
    )


def study(scenario: Scenario, referee: Referee, count: int) -> list[Row]:
    """Judge about `count` replays, equally many of each cell; a row for each gate, and one for any gate of the cell
    where it has several."""
    tallies: dict[str, _Tally] = {}
    whole = _Tally()
    referee = referee.of(scenario)
    for replay in scenario.replays(math.ceil(count / scenario.cells), np.random.default_rng(SEED)):
        verdicts = referee.look(replay)
        for gate, status in verdicts.items():
            tally = tallies.setdefault(pattern(gate), _Tally())
            tally.add(status)
            if gate in replay.pairs:
                tally.compare(gate, *replay.pairs[gate])
        whole.add(worst(verdicts.values()))
    rows = [
        Row(
            scenario,
            gate,
            tally.rate("red"),
            tally.rate("inconclusive"),
            tally.rate("share") if tally.scored else None,
            tally.rate("limit") if tally.limited else None,
        )
        for gate, tally in tallies.items()
    ]
    if len(rows) > 1:
        rows.append(Row(scenario, ANY, whole.rate("red"), whole.rate("inconclusive")))
    return rows


ANY = "any of these"


def run_alarms(
    scenarios: list[Scenario], referee: Referee, count: int, place: str = ""
) -> tuple[Rate, Counter[str]]:
    """Chance that a whole run at `place` without any change has a red case, over `count` runs of all cells; and which
    gates were red. Takes those of the scenarios that are without effect and part of every run there."""
    red = np.zeros(count, dtype=bool)
    gates: Counter[str] = Counter()
    null = [s for s in scenarios if s.effect == 0 and s.everywhere and s.place in ("", place)]
    for number, scenario in enumerate(null):
        runs: Counter[str] = Counter()
        for replay in scenario.replays(count, np.random.default_rng([SEED, number])):
            run = runs[replay.cell]
            runs[replay.cell] += 1
            for gate, status in referee.of(scenario).look(replay).items():
                if status in RED:
                    red[run] = True
                    gates[f"{gate} of {replay.cell}"] += 1
    return Rate(int(red.sum()), count), gates
