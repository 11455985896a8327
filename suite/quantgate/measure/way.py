"""Whether a cell's tasks are scored the shared way or the plain one (`quantgate.measure.scoring`): a handshake on
a probe.

The shared way is fast, and right only where a model's layers go by the mask and the positions that they are given: not
where a state runs through the tokens in their order (convolutions, recurrent layers), attention is cut into chunks, or
positions are scaled by the longest sequence of a batch. So a small probe is scored both ways before the first task:
sequences with a common beginning, a branch within an item, a sequence with another beginning, a batch that continues
the cache of the one before; and the same with sequences longer than the windows, chunks and positions that the model's
configuration names, as far as the cell's own tasks have sequences of that length. Where the two ways differ by more
than rounding, or the shared one raises, the cell is scored the plain way.

What is rounding is measured on the model: the longest sequence is scored the plain way, and so are some of its
beginnings (`CUTS`). By causality, nothing but the shape of the products, and what a quantizer makes of its batch, can
move the scores of a beginning. Differences up to `FACTOR` times the largest such movement are rounding, within the
bounds of the number format (`Backend.rounding`), in nats of a token's log-probability.

Measured on smollm2-135m (two cores, AVX-512), what beginnings move, and by how much items of its tasks then differed
between the ways, at most: fp32 0 and 1e-5, nf4 0.06 and 0.08, LLM.int8 0.47 and 0.74, llama.cpp F16 0.013 and 0.011,
Q8_0 0.33 and 0.59. A wrong mask, position or state is off by nats.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantgate.backends.base import Backend, Scores
from quantgate.backends.tree import Ids, TokenSequence, TokenTree, Way, build_tree, chains
from quantgate.errors import in_one_line
from quantgate.measure.scoring import Scored, score_trees
from quantgate.measure.session import Session

FACTOR = 3
STEM, OWN, END = 12, 6, 3
"""Tokens of the probe's common beginning, of what an item adds to it, of a choice."""
BEYOND = 8
"""Tokens by which a beginning exceeds a length that the configuration names."""
WHOLE = 96
CUTS = (6, 32, 49)
"""Tokens of the sequence whose rounding is measured, and of its beginnings: kernels change with the number of rows."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass of the shared way takes; past, kept: as in `TokenTree`."""

    sequences: list[TokenSequence]
    past: int = 0
    kept: int = 0

    def tree(self) -> TokenTree:
        return replace(build_tree(self.sequences, self.past), kept=self.kept)


@dataclass(frozen=True)
class Probe:
    """whole: the sequence whose rounding is measured. cuts: its beginnings."""

    batches: list[Batch]
    whole: TokenSequence
    cuts: list[TokenSequence]

    @property
    def sequences(self) -> list[TokenSequence]:
        return [sequence for batch in self.batches for sequence in batch.sequences]


@dataclass(frozen=True)
class Handshake:
    """The way that a cell takes. difference: largest one of a token's log-probability between the ways, nats; None: the
    shared way failed, `reason` says how. limit: up to which it is rounding."""

    way: Way
    difference: float | None
    limit: float
    reason: str = ""


def way_of(session: Session, groups: Sequence[Sequence[TokenSequence]]) -> Handshake:
    """Decide once for a session, whose tasks have these sequences."""
    if isinstance(session.backend, Scores):
        return Handshake("plain", None, 0.0, "the backend scores texts by itself")
    if session.handshake is None:
        session.handshake = handshake(session.backend, probe_of(session.backend, groups))
        if session.handshake.way == "plain":
            session.notes["scoring"] = f"tasks are scored the plain way, since {session.handshake.reason}"
            session.phase_note = " (plain way)"
    return session.handshake


def handshake(backend: Backend, probe: Probe) -> Handshake:
    """Score the probe both ways. Raises what the plain way raises."""
    plain = _alone(backend, [*probe.sequences, probe.whole, *probe.cuts])
    noise = max((_difference(plain[probe.whole], plain[cut]) for cut in probe.cuts), default=0.0)
    rounding = backend.rounding
    limit = min(rounding.ceiling, max(rounding.floor, FACTOR * noise))
    try:
        shared = score_trees(backend, [batch.tree() for batch in probe.batches])
    except MemoryError:
        raise
    except Exception as error:  # whatever a library makes of a mask, of positions, of a cache that it has not
        return Handshake("plain", None, limit, f"the shared way failed ({in_one_line(error)})")
    difference = max(_difference(plain[s], scored) for s, scored in zip(probe.sequences, shared, strict=True))
    if difference <= limit:
        return Handshake("shared", difference, limit)
    reason = f"the shared way differs by {difference:.2g} nats a token, more than rounding ({limit:.2g})"
    return Handshake("plain", difference, limit, reason)


def _alone(backend: Backend, sequences: Sequence[TokenSequence]) -> dict[TokenSequence, Scored]:
    distinct = list(dict.fromkeys(sequences))
    return dict(zip(distinct, score_trees(backend, chains([distinct])), strict=True))


def _difference(one: Scored, other: Scored) -> float:
    """Largest, of a token that both have."""
    count = min(len(one), len(other))
    return float(np.abs(one.logprobs[:count] - other.logprobs[:count]).max())


def probe_of(backend: Backend, groups: Sequence[Sequence[TokenSequence]]) -> Probe:
    """Of the tokens of `groups`, drawn at random, and no longer than their longest sequence."""
    every = [sequence.ids for group in groups for sequence in group]
    longest = max(every, key=len)
    vocabulary = sorted({token for ids in every for token in ids})
    draw = random.Random(0)  # noqa: S311
    size = len(longest)

    def tokens(count: int) -> Ids:
        return tuple(draw.choices(vocabulary, k=count))

    def beginning(length: int) -> Ids:
        return longest[:1] + tokens(length - 1)

    def item(stem: Ids, choices: int = 1) -> list[TokenSequence]:
        """Choices that share the first token, and those of the context."""
        added = tokens(min(OWN, size - len(stem) - 1))
        end = min(END, size - len(stem) - len(added))
        first = tokens(1)
        ids = [stem + added + first + tokens(end - 1) for _ in range(choices)]
        start = min(len(stem) + 1, len(ids[0]) - 1)
        return [TokenSequence(one, start) for one in ids]

    stem = beginning(max(1, min(STEM, size // 2)))
    past = len(stem) if size > len(stem) + 1 else 0
    alone, other = item(tokens(len(stem))), item(stem)
    batches = [
        Batch(other + alone),
        Batch(item(stem, 2), kept=past),
        Batch(item(stem), past=past),
    ]
    exceeded = [n for n in backend.lengths() if STEM + OWN <= n < size - 1]
    if exceeded:
        stem = beginning(min(max(exceeded) + BEYOND, size - 1))
        past = len(stem) if size > len(stem) + 1 else 0
        long = item(stem, 2)
        batches += [Batch(other + long), Batch(long[:1], kept=past), Batch(item(stem), past=past)]
    whole = TokenSequence(longest[:WHOLE], 1)
    cuts = [TokenSequence(whole.ids[:n], 1) for n in CUTS if n < len(whole.ids)]
    return Probe(batches, whole, cuts)
