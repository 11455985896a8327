"""Log-likelihoods of token sequences, computed in one of two ways.

shared: the sequences of a batch form a prefix tree (`quantgate.backends.tree`), whose tokens are computed once; what a
batch shares with the one before it (few-shot examples) stays in the backend's cache.
plain: each sequence is a forward pass by itself, with the library's mask, positions and cache. Sequences of a group
that differ in their last token only, which is predicted and never fed, share a pass.

`quantgate.measure.way` decides which one a cell uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantgate.backends.base import Scores
from quantgate.backends.tree import TokenSequence, TokenTree, Way, plan
from quantgate.errors import MeasurementError

if TYPE_CHECKING:
    from quantgate.backends.base import Backend

CHUNK = 32
"""Rows of logits that are worked on at once: a few megabytes, whatever the length of a text."""
FEW = 4
"""Rows that stay in a core's cache while they are summed up."""

ABOVE = 1e-3
"""A log-probability may be so much above 0 by rounding."""

Look = Callable[[NDArray[np.float32], NDArray[np.float64]], None]
"""Called with the logits of a batch, [rows, vocabulary], and the log-sum-exp of each row, before the next batch takes
their place."""


@dataclass(frozen=True)
class Scored:
    """Result for one sequence: natural-log probability of each scored token, and whether it was the top one."""

    logprobs: NDArray[np.float64]
    greedy: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.logprobs)

    def first(self, count: int) -> Scored:
        """Return the result for the first `count` tokens."""
        return Scored(self.logprobs[:count], self.greedy[:count])

    def last(self, count: int) -> Scored:
        """Return the result for the last `count` tokens."""
        return Scored(self.logprobs[-count:], self.greedy[-count:])

    @property
    def total(self) -> float:
        return float(self.logprobs.sum())

    @property
    def all_greedy(self) -> bool:
        return bool(self.greedy.all())


def fitted(
    groups: Sequence[Sequence[TokenSequence]], positions: int | None
) -> tuple[list[list[TokenSequence]], int]:
    """Return the groups without the beginnings of sequences that are longer than a model's positions, and how many
    groups that cut. Of a sequence, the last positions + 1 tokens stay: the last one is predicted and never read.

    It is what `HFLM._loglikelihood_tokens` of lm-evaluation-harness does. Raises MeasurementError for an answer that is
    longer than the positions by itself. positions: None is no limit.
    """
    if positions is None:
        return [list(group) for group in groups], 0
    return [[_fitted(s, positions) for s in group] for group in groups], sum(
        any(len(s.ids) > positions + 1 for s in group) for group in groups
    )


def _fitted(sequence: TokenSequence, positions: int) -> TokenSequence:
    if (excess := len(sequence.ids) - positions - 1) <= 0:
        return sequence
    if excess >= sequence.start:
        answer = len(sequence.ids) - sequence.start
        raise MeasurementError(
            f"an answer has {answer:,} tokens, the model {positions:,} positions: leave this task out of the tier"
        )
    return TokenSequence(sequence.ids[excess:], sequence.start - excess)


def score(
    backend: Backend,
    groups: Sequence[Sequence[TokenSequence]],
    budget: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    look: Look | None = None,
    way: Way = "shared",
) -> list[list[Scored]]:
    """Score every sequence of every group. Raises MeasurementError for logits that are not finite."""
    if isinstance(backend, Scores) and look is None:
        scored = []
        for number, group in enumerate(groups, 1):
            scored.append(_taken(backend, group))
            progress(number, len(groups))
        return scored
    results = iter(score_trees(backend, plan(groups, budget, way), progress, look))
    return [[next(results) for _ in group] for group in groups]


def _taken(backend: Scores, group: Sequence[TokenSequence]) -> list[Scored]:
    """Return what a backend says of a group. Raises MeasurementError where that is not one finite log-probability for
    each scored token: any other number of them would be summed up all the same."""
    where = f"{type(backend).__name__}.scores"
    results = list(backend.scores(group))
    if len(results) != len(group):
        raise MeasurementError(
            f"{where} returned {len(results)} results for {len(group)} sequences: return one for each"
        )
    scored = []
    for sequence, (logprobs, greedy) in zip(group, results, strict=True):
        one = Scored(np.asarray(logprobs, np.float64), np.asarray(greedy, bool))
        wanted = (len(sequence.ids) - sequence.start,)
        if one.logprobs.shape != wanted or one.greedy.shape != wanted:
            raise MeasurementError(
                f"{where} returned {one.logprobs.size} log-probabilities and {one.greedy.size} flags for a sequence "
                f"with {wanted[0]} scored tokens: return one of each for a token"
            )
        wrong = one.logprobs[~(one.logprobs <= ABOVE) | ~np.isfinite(one.logprobs)]
        if wrong.size:
            raise MeasurementError(
                f"{where} returned {wrong[0]:g}, which is no natural-log probability: these are finite, and 0 or less"
            )
        scored.append(one)
    return scored


def score_trees(
    backend: Backend,
    trees: Sequence[TokenTree],
    progress: Callable[[int, int], None] = lambda done, total: None,
    look: Look | None = None,
) -> list[Scored]:
    """Score the sequences of the trees, in order; progress counts tokens."""
    if not trees:
        return []
    backend.reserve(max(t.length for t in trees), max(t.sequences for t in trees))
    scored: list[Scored] = []
    done, total = 0, sum(len(t.ids) for t in trees)
    for tree in trees:
        logits = backend.logits(tree)
        if logits.ndim != 2 or len(logits) != len(tree.rows):
            raise MeasurementError(
                f"{type(backend).__name__}.logits returned an array of {'x'.join(map(str, logits.shape))} for "
                f"{len(tree.rows)} rows: return [rows, vocabulary], those of tree.rows in their order"
            )
        norm, top = _normalizers(tree, logits)
        scored.extend(_score_tree(tree, logits, norm, top))
        if look:
            look(logits, norm)
        done += len(tree.ids)
        progress(done, total)
    return scored


def _normalizers(
    tree: TokenTree, logits: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the log-sum-exp of each row, in float32 with a float64 sum, as llama.cpp's perplexity tool takes it, and
    each row's top token."""
    norm, top = np.empty(len(logits)), np.empty(len(logits), np.int64)
    room = np.empty_like(logits[:FEW])  # no copy of the logits: a large vocabulary's would double the memory
    with np.errstate(invalid="ignore"):  # infinite logits become NaN here and are refused below
        for begin in range(0, len(logits), FEW):
            part = slice(begin, begin + FEW)
            rows = logits[part]
            top[part] = rows.argmax(axis=1)
            peak = np.take_along_axis(rows, top[part, None], axis=1)
            shares = np.subtract(rows, peak, out=room[: len(rows)])
            np.exp(shares, out=shares)
            norm[part] = peak[:, 0] + np.log(shares.sum(axis=1, dtype=np.float64))
    if not np.isfinite(norm).all():
        bad = int(np.flatnonzero(~np.isfinite(norm))[0])
        raise MeasurementError(
            f"the model's logits are not finite (first at token {tree.rows[bad]} of a batch of {len(tree.ids)}): "
            "an overflow in a kernel or broken weights"
        )
    return norm, top


def _score_tree(
    tree: TokenTree, logits: NDArray[np.float32], norm: NDArray[np.float64], top: NDArray[np.int64]
) -> list[Scored]:
    scored = []
    for pairs in tree.targets:
        rows, tokens = np.array(pairs).T
        logprobs = logits[rows, tokens].astype(np.float64) - norm[rows]
        if not np.isfinite(logprobs).all():
            raise MeasurementError("a scored token has probability 0 (its logit is minus infinity)")
        scored.append(Scored(logprobs, top[rows] == tokens))
    return scored
