"""How many tokens a forward pass should have on this machine: found once by trying, then kept in the cache."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress

from quantgate.backends.tree import TokenSequence, Way, plan
from quantgate.cache.kept import intact, keep
from quantgate.files import hash_of, write_atomic
from quantgate.machine.environment import code_hash, machine
from quantgate.measure.scoring import score
from quantgate.measure.session import Session
from quantgate.paths import cache_dir

CANDIDATES = (256, 512, 1024)
NEARLY = 0.97
"""The smallest budget that reaches this share of the best one's speed is taken: less memory, and the same on every
trial."""


def calibrated(session: Session, groups: Sequence[Sequence[TokenSequence]], way: Way) -> int:
    """The budget among `CANDIDATES` at which this cell scores the first groups fastest, tokens/s. The plain way has no
    batches: the smallest."""
    if way == "plain":
        return CANDIDATES[0]
    code = code_hash("measure/scoring.py", "backends/*.py", "backends/runtime/*.py")
    known = [machine(), session.threads, session.cell, session.backend.facts(), CANDIDATES, code]
    path = cache_dir() / "budgets" / f"{hash_of(known)}.json"
    if intact(path):
        return int(json.loads(path.read_bytes())["budget"])
    sample = first_tokens(groups, max(CANDIDATES))
    _rate(session, sample, CANDIDATES[0])  # warm-up
    rates = {budget: _rate(session, sample, budget) for budget in CANDIDATES}
    budget = fastest(rates)
    with suppress(OSError):  # a cache that is only read: the next process tries again
        write_atomic(path, json.dumps({"budget": budget, "tokens/s": rates}, indent=1).encode())
        keep(path)
    return budget


def fastest(rates: dict[int, float]) -> int:
    """The smallest budget that is nearly as fast as the fastest."""
    return min(budget for budget, rate in rates.items() if rate >= NEARLY * max(rates.values()))


def first_tokens(groups: Sequence[Sequence[TokenSequence]], tokens: int) -> Sequence[Sequence[TokenSequence]]:
    """The first groups that together have so many tokens to compute; all where they have fewer."""
    total = 0
    for number, (tree,) in enumerate(plan([group], tokens) for group in groups):
        total += len(tree.ids)
        if total >= tokens:
            return groups[: number + 1]
    return groups


def _rate(session: Session, groups: Sequence[Sequence[TokenSequence]], budget: int) -> float:
    tokens = sum(len(tree.ids) for tree in plan(groups, budget))
    begin = time.perf_counter()
    score(session.backend, groups, budget)
    return tokens / (time.perf_counter() - begin)
