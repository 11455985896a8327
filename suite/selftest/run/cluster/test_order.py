"""The makespan of runs of 1,000 cells on 1 to 64 nodes, simulated as Ray does it: a free node takes the first submitted
cell whose reference is measured."""

from __future__ import annotations

import heapq
import random

import pytest
from quantgate.run.cluster.order import submission

CELLS, SCHEMES = 1000, 20


def cells(seed: int) -> tuple[dict[str, str], dict[str, float]]:
    """Fifty models of twenty schemes, the first of which is the reference: by cell its reference, and its seconds.
    Models differ by a factor of up to 16, schemes by up to 4."""
    draw = random.Random(seed)
    references, seconds = {}, {}
    for model in range(CELLS // SCHEMES):
        size = 20 * 2 ** draw.uniform(0, 4)
        for scheme in range(SCHEMES):
            name = f"m{model}/s{scheme}"
            references[name] = f"m{model}/s0"
            seconds[name] = size * 2 ** draw.uniform(0, 2)
    return references, seconds


def makespan(order: list[str], references: dict[str, str], seconds: dict[str, float], nodes: int) -> float:
    waiting, done, running, now = list(order), set[str](), list[tuple[float, str]](), 0.0
    while waiting or running:
        while len(running) < nodes:
            ready = next((c for c in waiting if references[c] == c or references[c] in done), None)
            if ready is None:
                break
            waiting.remove(ready)
            heapq.heappush(running, (now + seconds[ready], ready))
        now, ended = heapq.heappop(running)
        done.add(ended)
    return now


def bound(references: dict[str, str], seconds: dict[str, float], nodes: int) -> float:
    """No schedule is shorter: all work on all nodes, or the longest chain of a reference and a cell that waits."""
    chains = [seconds[c] + (seconds[r] if r != c else 0) for c, r in references.items()]
    return max(sum(seconds.values()) / nodes, *chains)


@pytest.mark.parametrize("nodes", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_longest_first_comes_within_a_tenth_of_the_bound(nodes: int, noise: float) -> None:
    """Also where cells take another time than in the earlier run, by a factor of standard deviation `noise`."""
    references, seconds = cells(seed=nodes)
    draw = random.Random(0)
    earlier = {cell: time * draw.lognormvariate(0, noise) for cell, time in seconds.items()}
    order = submission(references, earlier)
    assert makespan(order, references, seconds, nodes) < 1.1 * bound(references, seconds, nodes)
