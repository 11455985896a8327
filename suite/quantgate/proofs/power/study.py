"""Judge replays of one effect by the gate and by rules of two other projects."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from quantgate.judge.compare import Comparison, Rules, verdicts
from quantgate.judge.confirm import FreshPairs, MoreProcesses, confirmed, needs_second_look
from quantgate.proofs.power.paired import Pair
from quantgate.records import Measurement, Metric, Scalar, Status, worst

RED = {Status.REGRESSION, Status.CHANGED}
"""Verdicts that fail a case."""

SEED = 20261122

HERE = "in the baseline's own environment"
ELSEWHERE = "on other processors and builds"
"""Places of a later measurement: at the first the code gives the same numbers; at the second kernels round
differently, and tolerances are wider."""

RULE_SHARE = 0.08
RULE_LIMIT = 20.0


class Rate(NamedTuple):
    """`hits` of `total` independent replays."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """Fraction of hits; 0 without replays."""
        return self.hits / self.total if self.total else 0.0

    def plus(self, other: Rate) -> Rate:
        """Pool two rates."""
        return Rate(self.hits + other.hits, self.total + other.total)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided exact interval of the probability: Clopper and Pearson, Biometrika 26 (1934) 404-413:
        quantiles of beta distributions."""
        tail, rest = (1 - level) / 2, self.total - self.hits
        low = float(special.betaincinv(self.hits, rest + 1, tail)) if self.hits else 0.0
        high = float(special.betaincinv(self.hits + 1, rest, 1 - tail)) if rest else 1.0
        return low, high


class Replay(NamedTuple):
    """One simulated run of a cell.

    pairs: the first look, metrics by name, all of one metric group. again: returns the second look: in an A/B run,
    fresh processes of both sides; against a stored baseline, the first and the fresh processes together. fresh: against
    a stored baseline, returns the fresh processes alone. against: an A/B run.
    """

    cell: str
    pairs: Mapping[str, Pair]
    again: Callable[[], Mapping[str, Pair]] | None = None
    fresh: Callable[[], Mapping[str, Pair]] | None = None
    against: bool = False


@dataclass(frozen=True)
class Scenario:
    """An effect of known size.

    effect: relative, or accuracy points as a fraction; 0: a run that changes nothing. spread: how the effect is spread
    over the units, or how the cell is measured. source: the replayed data. replays: returns so many replays of each
    cell, cell by cell. gates: number of gates that share the run's alarm rate; None: those of the tier. everywhere:
    whether every run of the tier has these gates; not so absolute timings and A/B. place: `HERE` or
    `ELSEWHERE`; empty where both are the same.
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

    def rules(self, rules: Rules) -> Rules:
        """Return the rules at the level of a run with this many gates."""
        return rules if self.gates is None else replace(rules, alpha=rules.tolerances.run_alpha / self.gates)


@dataclass
class Row:
    """Rates of one scenario at one gate. share, limit: rates of the two other rules; None where a rule does not apply
    (nats have no share, only perplexity has a limit)."""

    scenario: Scenario
    gate: str
    red: Rate
    inconclusive: Rate
    share: Rate | None = None
    limit: Rate | None = None


def beyond_share(measured: Metric, baseline: Metric) -> bool:
    """Return whether the value is worse than the stored one by more than 8 % of it: vLLM's lm-eval-harness job compares
    scores like this, in both directions."""
    sign = 1 if measured.better == "lower" else -1
    return sign * (measured.value - baseline.value) > RULE_SHARE * abs(baseline.value)


def beyond_limit(measured: Metric) -> bool:
    """Return whether the value is above 20: llama.cpp's ci/run.sh gates perplexity like this, whatever the model, the
    text and the format."""
    return measured.value > RULE_LIMIT


def judged(replay: Replay, rules: Rules, place: str = "") -> dict[str, Status]:
    """Return the status of every gate of a replay, after the second look where the gate takes one."""
    rules = replace(rules, against=replay.against, timings=True)

    def covers(name: str) -> bool:
        return True  # all metrics are of one case

    def look(pairs: Mapping[str, Pair]) -> Comparison:
        old, new = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
        changed: dict[str, Scalar] = {"processor": place} if place == ELSEWHERE else {}
        return Comparison(_measurement(replay.cell, new, changed), _measurement(replay.cell, old, {}))

    first = look(replay.pairs)
    results = verdicts(first, covers, rules)
    if replay.again is not None and needs_second_look(results, first, rules):
        again = look(replay.again())
        second = MoreProcesses(again, look(replay.fresh())) if replay.fresh else FreshPairs(again)
        results = confirmed(results, first, second, covers, rules)
    return {v.metric: v.status for v in results if v.tolerance is not None}


def _measurement(cell: str, metrics: dict[str, Metric], environment: dict[str, Scalar]) -> Measurement:
    return Measurement(
        cell=cell,
        tier="",
        fingerprint="",
        created="",
        metrics=metrics,
        environment=environment,
        complete=True,
    )


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
    """Return the name of the gate's row, which all tasks, and all peaks, share: `accuracy/*/acc`."""
    return re.sub(
        r"^accuracy/(?!mean/)[^/]+/|(?<=^memory/peak_).*",
        lambda m: "accuracy/*/" if m[0][-1] == "/" else "*",
        gate,
    )


def study(scenario: Scenario, rules: Rules, count: int) -> list[Row]:
    """Judge about `count` replays, equally many of each cell. Returns a row for each gate, and one for any gate of the
    cell where it has several."""
    tallies: dict[str, _Tally] = {}
    whole = _Tally()
    rules = scenario.rules(rules)
    for replay in scenario.replays(math.ceil(count / scenario.cells), np.random.default_rng(SEED)):
        statuses = judged(replay, rules, scenario.place)
        for gate, status in statuses.items():
            tally = tallies.setdefault(pattern(gate), _Tally())
            tally.add(status)
            if gate in replay.pairs:
                tally.compare(gate, *replay.pairs[gate])
        whole.add(worst(statuses.values()))
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


class Alarms(NamedTuple):
    """Whole runs without any change. rate: of runs with a red case. gates: of each run. red: how often each gate was
    red."""

    rate: Rate
    gates: int
    red: Counter[str]


def run_alarms(scenarios: list[Scenario], rules: Rules, count: int, place: str = "") -> Alarms:
    """Judge `count` whole runs at `place`: all scenarios without an effect that are part of every run there."""
    red = np.zeros(count, dtype=bool)
    gates, total = Counter[str](), 0
    null = [s for s in scenarios if s.effect == 0 and s.everywhere and s.place in ("", place)]
    for number, scenario in enumerate(null):
        runs: Counter[str] = Counter()
        for replay in scenario.replays(count, np.random.default_rng([SEED, number])):
            run = runs[replay.cell]
            runs[replay.cell] += 1
            statuses = judged(replay, scenario.rules(rules), scenario.place)
            total += len(statuses) if run == 0 else 0
            for gate, status in statuses.items():
                if status in RED:
                    red[run] = True
                    gates[f"{gate} of {replay.cell}"] += 1
    return Alarms(Rate(int(red.sum()), count), total, gates)
