"""Divergence of single tokens: between whole distributions, or where a server names the likeliest tokens alone.

A server names the K likeliest tokens of a place, and the probability of the true one; all other tokens are one outcome
with the rest of the probability. The reference's whole distribution is merged in the same way. KL between the two
merged distributions is a lower bound of that between the whole ones: by the log-sum inequality, no merging of outcomes
raises it (Cover and Thomas, Elements of Information Theory, 2nd ed. 2006, theorem 2.7.1). It depends on K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantgate.measure.logprobs import Reference, Rows
from quantgate.measure.scoring import CHUNK
from quantgate.serving.replies import Answer

IMPOSSIBLE = -1000.0
"""ln q counts as at least this: what both distributions exclude adds 0 and not NaN."""
LEAST = 1e-6
"""The rest of the probability counts as at least this: it is a difference of numbers near 1, and more only lowers the
bound."""


class Divergence(NamedTuple):
    """Of each scored token: KL(reference || cell) in nats, q - p of the true token, whether the likeliest is the same
    (0 or 1)."""

    kl: NDArray[np.float64]
    delta_p: NDArray[np.float64]
    same_top: NDArray[np.float64]


def compare(reference: Rows, logprobs: NDArray[np.float32]) -> Divergence:
    """Hold a cell's log-probabilities [rows, vocabulary] against rows of the reference."""
    p = np.exp(reference.logprobs)
    total = p.sum(axis=1, dtype=np.float64)
    terms = np.maximum(logprobs, np.float32(IMPOSSIBLE))
    np.subtract(reference.logprobs, terms, out=terms)
    np.multiply(p, terms, out=terms)
    # p / total sums to 1; KL is then the mean of ln(p / q) less ln(total). The terms are small and of both signs: numpy
    # adds in pairs, so float32 is exact enough for their sum, and takes a quarter of the time.
    kl = terms.sum(axis=1).astype(np.float64) / total - np.log(total)
    q = np.exp(logprobs[np.arange(len(p)), reference.tokens].astype(np.float64))
    delta_p = q - np.exp(reference.true.astype(np.float64))
    return Divergence(kl, delta_p, (logprobs.argmax(axis=1) == reference.top).astype(float))


def lumped(reference: Rows, answer: Answer) -> Divergence:
    """Hold the answer on some tokens against the reference's rows of them; `kl` is that of the lumped distributions."""
    each = np.arange(len(reference.tokens))
    total = np.exp(reference.logprobs).sum(axis=1, dtype=np.float64)
    named = reference.logprobs[each[:, None], answer.tokens].astype(np.float64) - np.log(total)[:, None]
    true = reference.true.astype(np.float64) - np.log(total)
    # The true token counts where it is not among the likeliest.
    further = ~(answer.tokens == reference.tokens[:, None]).any(axis=1)
    p, q = np.exp(named), np.exp(answer.likely)
    p_true, q_true = np.exp(true) * further, np.exp(answer.logprobs) * further
    of_named = (p * (named - answer.likely)).sum(axis=1) + p_true * (true - answer.logprobs)
    p_rest = np.maximum(1 - p.sum(axis=1) - p_true, 0.0)
    q_rest = np.maximum(1 - q.sum(axis=1) - q_true, LEAST)
    rest = p_rest * (np.log(np.maximum(p_rest, 1e-300)) - np.log(q_rest))
    delta_p = np.exp(answer.logprobs) - np.exp(reference.true.astype(np.float64))
    return Divergence(of_named + rest, delta_p, (answer.tokens[:, 0] == reference.top).astype(float))


def of_answers(
    reference: Reference, answers: Sequence[Answer], ids: Sequence[Sequence[int]]
) -> tuple[Divergence, int]:
    """Hold answers on texts, whose scored tokens are `ids`, against the rows of the reference, in order. Returns the
    divergence of each token, and how many of the likeliest tokens each place has."""
    width = min(answer.width for answer in answers)
    parts: list[Divergence] = []
    for answer, tokens in zip(answers, ids, strict=True):
        for begin in range(0, len(tokens), CHUNK):
            part = slice(begin, begin + CHUNK)
            parts.append(lumped(reference.next(np.array(tokens[part])), answer.rows(part, width)))
    return Divergence(*map(np.concatenate, zip(*parts, strict=True))), width
