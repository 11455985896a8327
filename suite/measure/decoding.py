"""Decoding token by token through the cache, held against the same tokens scored in one forward pass.

Perplexity and accuracy are taken in whole passes, and generation is only timed: a cache that loses or shifts an entry
shows here alone. Both sides are the cell's own, so that a healthy one differs by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from suite.errors import MeasurementError
from suite.files import hash_of
from suite.logprobs import Rows
from suite.measure.divergence import compare
from suite.records import Declared, Metric, Needs, Record
from suite.run.session import Session
from suite.scoring import TokenSequence, score

METRICS = {"decoding/kl_mean": Declared("paired")}


class Options(Record):
    """text: name in tasks.toml, of whose beginning `context` tokens are prefilled and the next `tokens` decoded."""

    text: str
    context: int = Field(default=48, ge=1)
    tokens: int = Field(default=16, ge=2)

    @property
    def ids(self) -> int:
        """Tokens of the text: the last one is predicted only."""
        return self.context + self.tokens + 1


def needs(options: Options) -> Needs:
    """The tokens that are decoded, and what comes before them."""
    return Needs(texts={options.text: options.ids})


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """`decoding/kl_mean`: mean KL divergence (nats) of the next-token distributions after each decoded token from
    those of one forward pass."""
    options = session.options("decoding", Options)
    ids = session.text(options.text).ids[: options.ids]
    at_once, stepwise = _at_once(session, options, ids), _stepwise(session, options, ids)
    tokens = np.array(ids[options.context + 1 :])
    true = at_once[np.arange(len(tokens)), tokens]
    kl = compare(Rows(at_once, tokens, at_once.argmax(axis=1), true), stepwise).kl
    return {
        "decoding/kl_mean": Metric(
            kind="paired",
            value=float(kl.mean()),
            unit="nats",
            better="lower",
            stderr=float(np.std(kl, ddof=1) / math.sqrt(len(kl))),
            samples=kl.tolist(),
            weights=[1.0] * len(kl),
            conditions={
                "source": session.source_hash,
                "text": options.text,
                "tokens": hash_of(ids),
                "context": options.context,
                "decoded": options.tokens,
            },
        )
    }


def _at_once(session: Session, options: Options, ids: Sequence[int]) -> NDArray[np.float32]:
    """Log-probabilities [tokens, vocabulary] from one forward pass."""
    found: list[NDArray[np.float32]] = []

    def look(logits: NDArray[np.float32], norm: NDArray[np.float64]) -> None:
        found.append(_log_softmax(logits))

    score(session.backend, [[TokenSequence(tuple(ids), options.context + 1)]], len(ids), look=look)
    return found[0]


def _stepwise(session: Session, options: Options, ids: Sequence[int]) -> NDArray[np.float32]:
    """The same, by what is timed as prefill and decode."""
    backend = session.backend
    backend.reserve(options.context + options.tokens, 1)
    backend.prefill(ids[: options.context])
    rows = []
    for number in range(options.tokens):
        backend.decode([ids[options.context + number]])
        rows.append(backend.next_logits())
        session.progress(number + 1, options.tokens)
    return _log_softmax(np.array(rows))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import special

    with np.errstate(invalid="ignore"):  # infinite logits become NaN
        found: NDArray[np.float32] = special.log_softmax(logits.astype(np.float64), axis=1).astype(np.float32)
    if np.isnan(found).any():
        raise MeasurementError("the model's logits are not finite: an overflow in a kernel or broken weights")
    return found
