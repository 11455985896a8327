"""How tasks are scored (`quantgate.measure.scoring`): the shared way or the plain one, and the tokens of a pass.

A handshake decides (README.md says when the shared way is right): where the two ways differ on a probe by more than
rounding, or the shared one raises an exception, the cell is scored the plain way. A model whose scores depend on tokens
that follow is refused: of an encoder's, no product is the probability of a text. Rounding, in nats of a token's
log-probability, is up to `FACTOR` times the largest change of the scores of a sequence's beginnings (`CUTS`) without
what follows them, within the bounds of the number format (`Backend.rounding`).

Measured on smollm2-135m (two cores, AVX-512), what beginnings move, and by how much items of its tasks then differed
between the ways, at most: fp32 0 and 1e-5, nf4 0.06 and 0.08, LLM.int8 0.47 and 0.74, llama.cpp F16 0.013 and 0.011,
Q8_0 0.33 and 0.59. A wrong mask, position or state is off by nats.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from quantgate.backends.base import Backend, Scores
from quantgate.backends.tree import Ids, TokenSequence, TokenTree, Way, build_tree, chains, common, plan
from quantgate.cache.kept import intact, keep
from quantgate.errors import MeasurementError, in_one_line, is_out_of_memory
from quantgate.files import hash_of, write_atomic
from quantgate.machine.environment import code_hash, machine
from quantgate.measure.scoring import Scored, score, score_trees
from quantgate.measure.session import Session
from quantgate.paths import cache_dir

FACTOR = 3
STEM, ADDED, END = 12, 6, 3
"""Tokens of the probe's common beginning, of what an item adds to it, of a choice."""
BEYOND = 8
"""Tokens by which a beginning exceeds a length that the configuration names."""
WHOLE = 96
CUTS = (6, 32, 49)
"""Tokens of the sequence whose rounding is measured, and of its beginnings: kernels change with the number of rows."""
BUDGETS = (256, 512, 1024)
NEARLY = 0.97
"""The smallest budget that reaches this share of the best one's speed is taken: less memory, and the same on every
trial."""

SEEN, OTHER = 12, 4
"""Tokens of the beginning that two sequences share, and of their different ends, where a text is all that is scored."""

LEAK = 4
"""Times the bound of rounding up to which what follows may change a score. LLM.int8 decides by the whole batch which
columns it computes in 16 bits: on smollm2-135m that changes earlier scores by up to 0.44 nats."""

Groups = Sequence[Sequence[TokenSequence]]


@dataclass(frozen=True)
class Probe:
    """trees: the passes of the shared way, with these sequences in order. whole: the sequence whose rounding is
    measured. cuts: its beginnings."""

    trees: list[TokenTree]
    sequences: list[TokenSequence]
    whole: TokenSequence
    cuts: list[TokenSequence]


@dataclass(frozen=True)
class Handshake:
    """The way that a cell takes. difference: largest one of a token's log-probability between the ways, nats; None: the
    shared way failed, `reason` says how. limit: up to which it is rounding; 0 where there is no difference."""

    way: Way
    difference: float | None
    limit: float
    reason: str = ""


def way_of(session: Session, groups: Callable[[], Groups]) -> Handshake:
    """Decide once for a session; groups: returns the sequences of all its tasks."""
    if isinstance(session.backend, Scores):
        return Handshake("plain", None, 0.0, "the backend scores texts by itself")
    if session.handshake is None:
        session.handshake = handshake(session.backend, probe_of(session.backend, groups()))
        session.causal = True
        if session.handshake.way == "plain":
            session.notes["scoring"] = f"tasks are scored the plain way, since {session.handshake.reason}"
            session.phase_note = " (plain way)"
    return session.handshake


def handshake(backend: Backend, probe: Probe) -> Handshake:
    """Score the probe both ways. Raises what the plain way raises, and MeasurementError: the model is not causal."""
    sequences = list(dict.fromkeys(probe.sequences))
    plain = dict(zip(sequences, _each_alone(backend, sequences), strict=True))
    _refuse_leaks(backend, plain)
    try:
        shared = score_trees(backend, probe.trees)
    except Exception as error:  # whatever a library makes of a mask, of a cache that it does not have
        if is_out_of_memory(error):
            raise
        return Handshake("plain", None, 0.0, f"the shared way failed ({in_one_line(error)})")
    difference = max(_difference(plain[s], scored) for s, scored in zip(probe.sequences, shared, strict=True))
    limit = _limit(backend, probe, difference)
    if difference <= limit:
        return Handshake("shared", difference, limit)
    reason = f"the shared way differs by {difference:.2g} nats a token, more than rounding ({limit:.2g})"
    return Handshake("plain", difference, limit, reason)


def _limit(backend: Backend, probe: Probe, difference: float) -> float:
    """Return up to which a difference is rounding. The model is asked how much it moves only where that decides, and
    only until it has moved enough: a pass of LLM.int8 takes half a second."""
    limit, ceiling = backend.rounding.floor, backend.rounding.ceiling
    if difference <= limit or not probe.cuts:
        return limit
    if difference > ceiling:
        return ceiling
    whole, *_ = _each_alone(backend, [probe.whole])
    for cut in probe.cuts:
        scored, *_ = _each_alone(backend, [cut])
        limit = max(limit, min(ceiling, FACTOR * _difference(whole, scored)))
        if difference <= limit:
            break
    return limit


def _each_alone(backend: Backend, sequences: list[TokenSequence]) -> list[Scored]:
    return score_trees(backend, chains([sequences]))


def check_causal(session: Session, ids: Sequence[int]) -> None:
    """Raise MeasurementError where tokens that follow change the score of a token, once for a session; ids: of a text.
    The handshake of tasks looks at the same."""
    if session.causal or isinstance(session.backend, Scores):
        return
    seen = min(SEEN, len(ids) - OTHER)
    sequences = [TokenSequence((*ids[:seen], *end), 1) for end in (ids[seen : seen + OTHER], ids[:OTHER])]
    scored = _each_alone(session.backend, sequences)
    _refuse_leaks(session.backend, dict(zip(sequences, scored, strict=True)))
    session.causal = True


def _refuse_leaks(backend: Backend, plain: dict[TokenSequence, Scored]) -> None:
    """Compare sequences of one length, on which a rotary base may depend, as far as their tokens are equal."""
    for (one, scored), (other, again) in combinations(plain.items(), 2):
        equal = len(common([one.ids, other.ids])) - one.start
        if len(one.ids) != len(other.ids) or one.start != other.start or equal <= 0:
            continue
        if (leak := _difference(scored.first(equal), again)) > LEAK * backend.rounding.ceiling:
            raise MeasurementError(
                f"the score of a token changes by {leak:.2g} nats with the tokens that follow it: the model is not "
                "causal, as an encoder (BERT) is not, or a decoder whose config.json lacks is_decoder = true"
            )


def _difference(one: Scored, other: Scored) -> float:
    """Return the largest difference of a token that both have."""
    count = min(len(one), len(other))
    return float(np.abs(one.logprobs[:count] - other.logprobs[:count]).max())


def probe_of(backend: Backend, groups: Groups) -> Probe:
    """Draw a probe from the tokens of `groups`, no longer than their longest sequence.

    It has sequences with a common beginning, a branch within an item, a sequence with another beginning, and a batch
    that continues the cache of the one before; the same again with sequences longer than the windows, chunks and
    positions that the model's configuration names, where the tasks have sequences of that length.
    """
    every = [sequence.ids for group in groups for sequence in group]
    longest = max(every, key=len)
    vocabulary = sorted({token for ids in every for token in ids})
    draw = random.Random(0)  # noqa: S311
    size = len(longest)
    trees: list[TokenTree] = []
    sequences: list[TokenSequence] = []

    def tokens(count: int) -> Ids:
        return tuple(draw.choices(vocabulary, k=count))

    def item(stem: Ids, choices: int = 1) -> list[TokenSequence]:
        """Choices that share the context and the first token."""
        added = tokens(min(ADDED, size - len(stem) - 1))
        end = min(END, size - len(stem) - len(added))
        first = tokens(1)
        ids = [stem + added + first + tokens(end - 1) for _ in range(choices)]
        start = min(len(stem) + 1, len(ids[0]) - 1)
        return [TokenSequence(one, start) for one in ids]

    def add(batch: list[TokenSequence], past: int = 0, kept: int = 0) -> None:
        trees.append(replace(build_tree(batch, past), kept=kept))
        sequences.extend(batch)

    stem = longest[:1] + tokens(max(1, min(STEM, size // 2)) - 1)
    past = len(stem) if size > len(stem) + 1 else 0
    alone, other = item(tokens(len(stem))), item(stem)
    add(other + alone)
    add(item(stem, 2), kept=past)
    add(item(stem), past=past)
    exceeded = [n for n in backend.lengths() if STEM + ADDED <= n < size - 1]
    if exceeded:
        stem = longest[:1] + tokens(min(max(exceeded) + BEYOND, size - 1) - 1)
        past = len(stem) if size > len(stem) + 1 else 0
        long = item(stem, 2)
        add(other + long)
        add(long[:1], kept=past)
        add(item(stem), past=past)
    whole = TokenSequence(longest[:WHOLE], 1)
    cuts = [TokenSequence(whole.ids[:n], 1) for n in CUTS if n < len(whole.ids)]
    return Probe(trees, sequences, whole, cuts)


def fastest_budget(session: Session, groups: Groups, way: Way) -> int:
    """Return the budget among `BUDGETS` at which this cell scores the first groups fastest, tokens/s, from trials that
    the cache keeps. The plain way has no batches: the smallest."""
    if way == "plain":
        return BUDGETS[0]
    code = code_hash("measure/scoring.py", "backends/*.py", "backends/runtime/*.py")
    key = [machine(), session.threads, session.cell, session.backend.facts(), BUDGETS, code]
    path = cache_dir() / "budgets" / f"{hash_of(key)}.json"
    if intact(path):
        return int(json.loads(path.read_bytes())["budget"])
    sample = first_tokens(groups, max(BUDGETS))
    _rate(session, sample, BUDGETS[0])  # warm-up
    rates = {budget: _rate(session, sample, budget) for budget in BUDGETS}
    budget = smallest_fast(rates)
    with suppress(OSError):  # a cache that is only read: the next process tries again
        write_atomic(path, json.dumps({"budget": budget, "tokens/s": rates}, indent=1).encode())
        keep(path)
    return budget


def smallest_fast(rates: dict[int, float]) -> int:
    """Return the smallest budget that is nearly as fast as the fastest."""
    return min(budget for budget, rate in rates.items() if rate >= NEARLY * max(rates.values()))


def first_tokens(groups: Groups, tokens: int) -> Groups:
    """Return the first groups that together have so many tokens to compute; all where they have fewer."""
    total = 0
    for number, group in enumerate(groups, 1):
        total += len(build_tree(group).ids)
        if total >= tokens:
            return groups[:number]
    return groups


def _rate(session: Session, groups: Groups, budget: int) -> float:
    tokens = sum(len(tree.ids) for tree in plan(groups, budget))
    begin = time.perf_counter()
    score(session.backend, groups, budget)
    return tokens / (time.perf_counter() - begin)
