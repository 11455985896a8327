"""Write the replay of nights as sections of the power report, and replay years of quality."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantgate.history.events import events
from quantgate.history.series import ABSENT, History, Run, Series
from quantgate.proofs.power.nights import (
    HISTORY,
    NOISES,
    QUIET,
    SCENARIOS,
    SEED,
    SERIES,
    YEAR,
    Floats,
    Result,
    study,
)
from quantgate.proofs.power.report import Section, rate
from quantgate.proofs.power.study import Rate

BEGIN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
CELLS, CLASSES = 20, 3


def sections(years: int) -> list[Section]:
    """Replay and return a section for each noise; none for 0 years."""
    parts = []
    for noise in NOISES if years else ():
        results, share = study(noise, years)
        rules = list(dict.fromkeys(one.rule for one in results))
        columns = ["rule", *(scenario.name for scenario in SCENARIOS)]
        table = [[rule, *(_shown(one) for one in results if one.rule == rule)] for rule in rules]
        notes = [
            f"{years} years of {SERIES} series; steps and ramps in standard deviations of a night; `nights` is the "
            "median delay, the night of the alarm included, with its interval",
            "the other rules have the threshold at which as many series of a year without a change alarm as by "
            f"{HISTORY}: {100 * share:.2g} % of {QUIET:,}",
        ]
        parts.append(Section(f"nights, {noise.name}: false events a year, or delay", columns, table, notes))
    return parts


def _shown(one: Result) -> str:
    if not one.scenario.change:
        texts = [f"{value:.2g}" if value < 100 else f"{value:,.0f}" for value in one.false]
        return "{} ({} to {})".format(*texts)
    delay, low, high = one.delay
    if math.isinf(delay):
        return f"not seen in {100 * one.missed:.0f} %"
    missed = f", {100 * one.missed:.1f} % not seen" if one.missed >= 0.0005 else ""
    return f"{delay:.0f} nights ({low:.0f} to {high:.0f}){missed}"


def quality_years(count: int, step: float = 0.0) -> Rate:
    """Return in how many of `count` years of quality an event is raised: hosted machines of three classes by turns,
    each with its own last digits, upgrades that move nothing, nights and cells that fail. step: what the last upgrade
    moves, relative; 0: nothing."""
    return Rate(sum(bool(events(_quality(number, step))) for number in range(count)), count)


def _quality(number: int, step: float) -> History:
    random = np.random.default_rng([SEED, 7, number])
    nights = np.flatnonzero(random.random(YEAR) > 0.05)
    classes = random.integers(CLASSES, size=len(nights))
    upgrades = np.cumsum(random.random(len(nights)) < 0.03)
    runs = [
        Run(
            f"{night:08x}",
            BEGIN + timedelta(days=int(night)),
            "",
            "nightly",
            str(one),
            {"cpu": int(one)},
            Path(),
        )
        for night, one in zip(nights, classes, strict=True)
    ]
    codes = (upgrades * CLASSES + classes).astype(np.int32)
    hashes = [str(code) for code in range(int(codes.max()) + 1)]
    environments = {name: {"cpu": int(name) % CLASSES, "torch": int(name) // CLASSES} for name in hashes}
    factor = np.where(upgrades == upgrades[-1], 1 + step, 1.0)
    series = [_series(random, cell, factor, classes, codes) for cell in range(CELLS)]
    return History(runs, series, hashes, environments, [])


def _series(
    random: np.random.Generator,
    cell: int,
    factor: Floats,
    classes: NDArray[np.int64],
    codes: NDArray[np.int32],
) -> Series:
    count = len(classes)
    digits = 20.0 * (1 + 0.005 * random.standard_normal(CLASSES))
    value = np.where(random.random(count) < 0.02, np.nan, digits[classes] * factor)
    empty = np.full(count, np.nan, dtype=np.float32)
    zeros = np.zeros(count, dtype=np.int32)
    environment = np.where(np.isnan(value), ABSENT, codes).astype(np.int32)
    return Series(
        *("nightly", f"m/llamacpp/{cell}", "perplexity", "paired", "lower", "", True),
        value, empty, empty, empty, empty, np.full(count, 0.025, dtype=np.float32),
        zeros.astype(np.int8), zeros, environment, zeros,
    )  # fmt: skip


QUALITY = 100
"""Years of quality for each year of nights: 2,000 of them take ten seconds."""


def summary(years: int) -> list[str]:
    """Say in how many years of quality there was a false event."""
    if not years:
        return []
    alarms = quality_years(years * QUALITY)
    text = f"years of quality in which nothing moved that had an event: {rate(alarms)} % of {alarms.total:,}"
    return [f"{text}, {CELLS} cells on {CLASSES} classes of machines"]
