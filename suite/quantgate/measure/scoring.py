"""Log-likelihoods of token sequences, computed in one of two ways.

shared: every token is computed once. The sequences of a batch form a prefix tree: what they share at the beginning (the
context of an item's choices) is one path. A backend is given the tree in one row: transformers as a 4-D attention mask,
llama.cpp as tokens that belong to several sequences. What a batch shares with the one before it (few-shot examples)
stays in the backend's cache.

plain: each sequence is a forward pass of its own, without a mask, positions or a cache from here: what the library
computes for anybody. Sequences that differ in their last token only, which is predicted and never fed, share a pass.

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

Look = Callable[[NDArray[np.float32], NDArray[np.float64]], None]
"""Called with the logits of a batch, [rows, vocabulary], and the log-sum-exp of each row."""


def unseen(logits: NDArray[np.float32], norm: NDArray[np.float64]) -> None:
    """For whom scores are enough."""


@dataclass(frozen=True)
class Scored:
    """Result for one sequence: natural-log probability of each scored token, and whether it was the top one."""

    logprobs: NDArray[np.float64]
    greedy: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.logprobs)

    def last(self, count: int) -> Scored:
        """Of the last `count` tokens."""
        return Scored(self.logprobs[-count:], self.greedy[-count:])

    @property
    def total(self) -> float:
        return float(self.logprobs.sum())

    @property
    def all_greedy(self) -> bool:
        return bool(self.greedy.all())


def score(
    backend: Backend,
    groups: Sequence[Sequence[TokenSequence]],
    budget: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    look: Look = unseen,
    way: Way = "shared",
) -> list[list[Scored]]:
    """Score every sequence of every group. Raises MeasurementError for logits that are not finite.

    `look` is shown the logits of each batch before the next one takes their place.
    """
    if isinstance(backend, Scores) and look is unseen:
        return _scores(backend, groups, progress)
    results = iter(score_trees(backend, plan(groups, budget, way), progress, look))
    return [[next(results) for _ in group] for group in groups]


def _scores(
    backend: Scores, groups: Sequence[Sequence[TokenSequence]], progress: Callable[[int, int], None]
) -> list[list[Scored]]:
    """Scores that the library gives by itself."""
    scored = []
    for number, group in enumerate(groups):
        scored.append([Scored(logprobs, greedy) for logprobs, greedy in backend.scores(group)])
        progress(number + 1, len(groups))
    return scored


def score_trees(
    backend: Backend,
    trees: Sequence[TokenTree],
    progress: Callable[[int, int], None] = lambda done, total: None,
    look: Look = unseen,
) -> list[Scored]:
    """Score the sequences of the trees, in order."""
    if not trees:
        return []
    backend.reserve(max(t.length for t in trees), max(t.sequences for t in trees))
    flat: list[Scored] = []
    total = sum(len(t.ids) for t in trees)
    done = 0
    for tree in trees:
        logits = backend.logits(tree)
        norm, top = _normalizers(tree, logits)
        flat.extend(_score_tree(tree, logits, norm, top))
        look(logits, norm)
        done += len(tree.ids)
        progress(done, total)
    return flat


def _normalizers(
    tree: TokenTree, logits: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """log-sum-exp of each row, in float32 with a float64 sum, as llama.cpp's perplexity tool does; its top token."""
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
    out = []
    for pairs in tree.targets:
        rows = np.array([r for r, _ in pairs])
        tokens = np.array([t for _, t in pairs])
        logprobs = logits[rows, tokens].astype(np.float64) - norm[rows]
        if not np.isfinite(logprobs).all():
            raise MeasurementError("a scored token has probability 0 (its logit is minus infinity)")
        out.append(Scored(logprobs, top[rows] == tokens))
    return out
