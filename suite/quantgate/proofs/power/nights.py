"""Replay years of nights: how many false events the history's rule and those of others raise, and how many nights pass
until they see a change.

Nothing is measured: series are drawn. In units of their standard deviation from night to night, each has a level,
noise, and from `ONSET` on the change of a scenario. All rules see the same series. Those of others have a threshold,
which is set such that as many series raise a false alarm in a year without a change as by the history's rule; so the
delays can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special, stats

from quantgate.history.levels import Levels
from quantgate.history.noisy import packed, shifts

Floats = NDArray[np.float64]

SERIES = 100
"""Noisy series of a history."""
YEAR = 365
ONSET = 150
SPREAD = 0.01
"""Standard deviation from night to night, relative."""
QUIET = 20_000
"""Series of a year without a change from which the thresholds of other rules come. The history's rule alarms in some of
10,000: fewer series would set thresholds at a rate that is not its own."""
FIRST = 12
"""Nights before which no rule says anything."""
SEED = 20261128


class Noise(NamedTuple):
    """How nights differ. correlation: of neighbours. freedom: of Student's distribution; None: normal."""

    name: str
    correlation: float
    freedom: int | None


NOISES = (
    Noise("independent normal nights", 0.0, None),
    Noise("neighbours correlated by 0.2, tails of Student's t with 5 degrees of freedom", 0.2, 5),
)


class Scenario(NamedTuple):
    """What happens in a year. shape: what is added, in standard deviations, night by night. missing: share of the
    nights without a run. swaps: nights from which another class of machine measures, by turns. change: whether a rule
    should see it."""

    name: str
    shape: Floats
    change: bool = False
    missing: float = 0.0
    swaps: tuple[int, ...] = ()


def _nights(begin: int, end: int, size: float) -> Floats:
    shape = np.zeros(YEAR)
    shape[begin:end] = size
    return shape


NOTHING = Scenario("nothing", np.zeros(YEAR))
SCENARIOS = (
    NOTHING,
    Scenario("step of 1", _nights(ONSET, YEAR, 1.0), change=True),
    Scenario("step of 2", _nights(ONSET, YEAR, 2.0), change=True),
    Scenario("step of 4", _nights(ONSET, YEAR, 4.0), change=True),
    Scenario("ramp to 1 in 60 nights", np.clip((np.arange(YEAR) - ONSET) / 60, 0.0, 1.0), change=True),
    Scenario("one night off by 8", _nights(ONSET, ONSET + 1, 8.0)),
    Scenario("two nights off by 10", _nights(ONSET, ONSET + 2, -10.0)),
    Scenario("other machine", np.zeros(YEAR), swaps=(ONSET, 200, 230, 300)),
    Scenario("30 % of the nights missing", np.zeros(YEAR), missing=0.3),
)
MACHINE = 5.0
"""How far another class of machine is away, in standard deviations."""


class Nights(NamedTuple):
    """Drawn series, a row each: values in their order, the night of each, and the class of machine that measured it."""

    values: list[Floats]
    nights: list[NDArray[np.intp]]
    classes: list[NDArray[np.intp]]


def drawn(scenario: Scenario, noise: Noise, rows: int, seed: int) -> Nights:
    """Draw series of a year."""
    random = np.random.default_rng([SEED, seed])
    shape = rows, YEAR + 50
    if noise.freedom is None:
        shocks = random.standard_normal(shape)
    else:
        shocks = random.standard_t(noise.freedom, shape) / np.sqrt(noise.freedom / (noise.freedom - 2))
    rho = noise.correlation
    values = signal.lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], shocks, axis=1)[:, 50:] + scenario.shape
    classes = np.zeros(YEAR, dtype=np.intp)
    for night in scenario.swaps:
        classes[night:] = 1 - classes[night]
    values = SPREAD * (values + MACHINE * classes)
    kept = [np.flatnonzero(row >= scenario.missing) for row in random.random((rows, YEAR))]
    return Nights([row[k] for row, k in zip(values, kept, strict=True)], kept, [classes[k] for k in kept])


Alarms = list[list[int]]
"""By series, the nights at which a rule raised an alarm."""


def by_history(made: Nights) -> Alarms:
    """Judge by the history's rule, each class of machine by itself."""
    rows = [
        (number, np.flatnonzero(classes == one))
        for number, classes in enumerate(made.classes)
        for one in dict.fromkeys(classes.tolist())
    ]
    values = packed([made.values[number][chosen] for number, chosen in rows])
    alarms: Alarms = [[] for _ in made.values]
    for shift in shifts(values, Levels.of(SERIES), 0.0):
        number, chosen = rows[shift.series]
        alarms[number].append(int(made.nights[number][chosen[shift.seen]]))
    return alarms


Statistic = Callable[[Floats], Floats]
"""Of series (a row each, NaN at their ends) the evidence of each night; a rule raises an alarm where it is beyond a
threshold."""


def previous_run(values: Floats) -> Floats:
    """The difference from the run before: github-action-benchmark, and every rule on two commits."""
    return _padded(np.abs(np.diff(values, axis=1)), values.shape)


def rolling_week(values: Floats) -> Floats:
    """The mean of the last 7 runs against that of the 21 before them."""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    week = (sums[:, 7:] - sums[:, :-7]) / 7
    before = (sums[:, 21:] - sums[:, :-21]) / 21
    return _padded(np.abs(week[:, 21:] - before[:, :-7]), values.shape)


@dataclass(frozen=True)
class Segmentation:
    """What ruptures does when it is run each night on all nights so far, or the last `window`: the best partition into
    two segments of at least `least` nights by squared errors, `KernelCPD("linear")` and `Pelt("l2")` alike. The
    evidence is what it saves, in units of the variance; the penalty is the threshold.
    `selftest.proofs.test_power_nights` holds it against ruptures."""

    least: int
    window: int = YEAR

    def __call__(self, values: Floats) -> Floats:
        sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
        steps = np.cumsum(np.abs(np.diff(values, axis=1)), axis=1)
        saved = np.full(values.shape, np.nan)
        for night in range(FIRST, values.shape[1]):
            begin, end = max(0, night + 1 - self.window), night + 1
            splits = np.arange(begin + self.least, end - self.least + 1)
            heads, tails = splits - begin, end - splits
            cut = sums[:, splits]
            difference = (sums[:, [end]] - cut) / tails - (cut - sums[:, [begin]]) / heads
            sigma = steps[:, night - 1] / night * np.sqrt(np.pi) / 2
            saved[:, night] = (difference**2 / (1 / heads + 1 / tails)).max(axis=1) / sigma**2
        return saved


def _padded(statistic: Floats, shape: tuple[int, ...]) -> Floats:
    """Fill the first nights, which have no evidence."""
    whole = np.full(shape, np.nan)
    whole[:, shape[1] - statistic.shape[1] :] = statistic
    whole[:, :FIRST] = np.nan
    return whole


OTHERS: Mapping[str, Statistic] = {
    "previous run": previous_run,
    "rolling week": rolling_week,
    "ruptures, segments of 3": Segmentation(3),
    "ruptures, segments of 5": Segmentation(5),
    "ruptures, segments of 3, last 120 nights": Segmentation(3, 120),
}


def beyond(made: Nights, statistic: Statistic, threshold: float) -> Alarms:
    """Judge by a rule that has a threshold; alarms of neighbouring nights are one."""
    high = np.nan_to_num(statistic(packed(made.values)), nan=-np.inf) > threshold
    first = high & ~np.pad(high, ((0, 0), (1, 0)))[:, :-1]
    return [[int(made.nights[number][at]) for at in np.flatnonzero(row)] for number, row in enumerate(first)]


def threshold(null: Nights, statistic: Statistic, share: float) -> float:
    """Return the threshold at which this share of the series raises an alarm in a year."""
    largest = np.nanmax(statistic(packed(null.values)), axis=1)
    return float(np.quantile(largest, 1 - share, method="higher"))


class Result(NamedTuple):
    """A rule in a scenario. false: alarms for each year of `SERIES` series, with its 95 % interval. delay: median
    number of nights until the alarm, that of the change included, among series without an earlier one, with its 95 %
    interval; inf: more than half are never seen. missed: share of them that is never seen."""

    scenario: Scenario
    rule: str
    false: tuple[float, float, float]
    delay: tuple[float, float, float]
    missed: float


def result(scenario: Scenario, rule: str, alarms: Alarms) -> Result:
    """Count the alarms of a rule. Where there is a change, those before it are false; where there is none, all."""
    until = ONSET if scenario.change else YEAR
    false = sum(night < until for nights in alarms for night in nights)
    quiet = [nights for nights in alarms if not any(night < ONSET for night in nights)]
    delays = [next((night - ONSET + 1.0 for night in nights if night >= ONSET), np.inf) for nights in quiet]
    missed = float(np.mean(np.isinf(delays)))
    return Result(scenario, rule, rate(false, len(alarms) / SERIES), median(np.array(delays)), missed)


def median(values: Floats) -> tuple[float, float, float]:
    """Return the lower median with the exact 95 % interval, whatever the distribution (Conover, Practical Nonparametric
    Statistics, 1999, 3.2); inf without values."""
    if not len(values):
        return (np.inf,) * 3
    low, high = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    return float(np.quantile(values, 0.5, method="lower")), float(low), float(high)


def rate(count: int, years: float) -> tuple[float, float, float]:
    """Return events a year with the exact 95 % interval of a Poisson mean (Garwood, Biometrika 28 (1936) 437-442)."""
    low = float(special.gammaincinv(count, 0.025)) if count else 0.0
    return count / years, low / years, float(special.gammaincinv(count + 1, 0.975)) / years


HISTORY = "quantgate.history"


def study(
    noise: Noise, years: int, scenarios: Iterable[Scenario] = SCENARIOS, quiet: int = QUIET
) -> tuple[list[Result], float]:
    """Replay `years` years of `SERIES` series in each scenario by each rule. quiet: see `QUIET`. Returns, too, the
    share of the series that alarm in a year without a change, by every rule."""
    rows = years * SERIES
    null = drawn(NOTHING, noise, quiet, len(SCENARIOS))
    share = max(sum(bool(nights) for nights in by_history(null)), 1) / quiet
    thresholds = {name: threshold(null, statistic, share) for name, statistic in OTHERS.items()}
    results = []
    for number, scenario in enumerate(scenarios):
        made = drawn(scenario, noise, rows, number)
        results.append(result(scenario, HISTORY, by_history(made)))
        for name, statistic in OTHERS.items():
            results.append(result(scenario, name, beyond(made, statistic, thresholds[name])))
    return results, share
