"""How long judging takes: cells whose measurements and baselines are in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from quantgate.proofs.power.paired import Pair
from quantgate.proofs.power.study import SEED, Referee, Scenario


def seconds_to_judge(pairs: Mapping[str, Mapping[str, Pair]], referee: Referee, count: int) -> float:
    """Processor time of all verdicts on `count` cells: those of `pairs` (by cell and metric) over and over, each under
    an id of its own, as in a matrix of so many."""
    known = list(pairs.items())
    cells = [
        (f"{cell}-{number}", found) for number in range(count) for cell, found in [known[number % len(known)]]
    ]
    begin = time.process_time()
    for cell, found in cells:
        referee.verdicts(cell, found)
    return time.process_time() - begin


def one_run(scenarios: Sequence[Scenario]) -> dict[str, dict[str, Pair]]:
    """What every gate of a run without any change is given, by cell and metric."""
    found: dict[str, dict[str, Pair]] = {}
    for scenario in scenarios:
        if scenario.effect == 0 and scenario.everywhere:
            for replay in scenario.replays(1, np.random.default_rng(SEED)):
                found.setdefault(replay.cell, {}).update(replay.pairs)
    return found
