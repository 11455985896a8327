"""Decoding token by token through the cache, compared with the same tokens scored in one forward pass.

Perplexity and accuracy are taken in whole passes, and generation is only timed: a cache that loses or shifts an entry
shows here alone. Both sides are the cell's, so a healthy one differs by rounding. What is wrong on both sides
(positions beyond the windows of perplexity) shows in how likely the text is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.files import hash_of
from quantgate.jobs import Needs
from quantgate.measure.groups import Group, exact, paired
from quantgate.measure.kl import compare
from quantgate.measure.logprobs import Rows
from quantgate.measure.scoring import score
from quantgate.measure.session import Session
from quantgate.measure.watch import held_memory
from quantgate.records import Declared, Metric, Record, Scalar

WARM_UP = 8
"""Memory counts after the first token in so many: buffers are made then, and kept."""
PARTS = 7
"""The tokens are cut in so many parts for `decoding/growth`."""

_Decoded = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class Stretch(Record):
    """The first `context` tokens of a text are prefilled, and the next `tokens` decoded one by one."""

    context: int = Field(default=48, ge=1)
    tokens: int = Field(default=16, ge=2)

    @property
    def ids(self) -> int:
        """Tokens of the text: the last one is predicted only."""
        return self.context + self.tokens + 1


class Options(Stretch):
    """text: name in tasks.toml. further: other contexts of the same text, such as one beyond a window of attention; of
    models with fewer positions they are left out."""

    text: str
    further: list[Stretch] = Field(default_factory=list)

    @property
    def stretches(self) -> list[Stretch]:
        return [self, *self.further]


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `decoding/kl_mean`, the mean KL divergence (nats) of the next-token distributions after each decoded token
    from those of one forward pass; `decoding/perplexity` of the tokens that follow, as decoding predicts them; and
    `decoding/growth`, by how many bytes the memory that the process holds grows with each decoded token: a leak
    (the median of parts of the tokens). Each over the tokens of all contexts."""
    options = session.options("decoding", Options)
    positions = session.backend.sizes().positions
    first, *further = options.stretches
    fitting = [s for s in further if positions is None or s.context + s.tokens <= positions]
    stretches = [first, *fitting]
    if left_out := [f"{s.context:,} + {s.tokens:,} tokens" for s in further if s not in fitting]:
        session.notes["decoding"] = (
            f"decoding leaves out {', '.join(left_out)}: the model has {positions:,} positions"
        )
    text = session.text(options.text).ids
    total, done = sum(s.tokens for s in stretches), 0
    decoded = []
    for stretch in stretches:
        decoded.append(_decode(session, stretch, text[: stretch.ids], done, total))
        done += stretch.tokens
    kl, nll, grown = (np.concatenate(values) for values in zip(*decoded, strict=True))
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        **session.attention,
        "text": options.text,
        "tokens": hash_of(text[: max(s.ids for s in stretches)]),
        "context": ", ".join(str(s.context) for s in stretches),
        "decoded": ", ".join(str(s.tokens) for s in stretches),
    }
    common: dict[str, Any] = {"better": "lower", "weights": [1.0] * total}
    return {
        "decoding/kl_mean": paired(kl, conditions, unit="nats", **common),
        "decoding/perplexity": paired(nll, conditions, unit="", link="exp", **common),
        "decoding/growth": exact(_growth(grown), conditions, unit="bytes/token"),
    }


def _decode(session: Session, stretch: Stretch, ids: Sequence[int], done: int, total: int) -> _Decoded:
    """Decode one context; `done` of `total` tokens were decoded before. Returns of each decoded token the KL divergence
    from one pass and the negative log-likelihood of the token that follows; of each after the warm-up, the bytes by
    which the memory that the process holds grew."""
    at_once: list[NDArray[np.float32]] = []

    def look(logits: NDArray[np.float32], norm: NDArray[np.float64]) -> None:
        at_once.append(_log_softmax(logits))

    score(session.backend, [[TokenSequence(tuple(ids), stretch.context + 1)]], len(ids), look=look)
    stepwise, grown = _stepwise(session, stretch, ids, done, total)
    tokens = np.array(ids[stretch.context + 1 :])
    each = np.arange(len(tokens))
    rows = Rows(at_once[0], tokens, at_once[0].argmax(axis=1), at_once[0][each, tokens])
    nll = -stepwise[each, tokens].astype(np.float64)
    if not np.isfinite(nll).all():
        raise MeasurementError("a token of the text has probability 0 (its logit is minus infinity)")
    return compare(rows, stepwise).kl, nll, grown


def _stepwise(
    session: Session, stretch: Stretch, ids: Sequence[int], done: int, total: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return log-probabilities [tokens, vocabulary] by what is timed as prefill and decode, and the growth."""
    backend = session.backend
    backend.reserve(stretch.context + stretch.tokens, 1)
    backend.prefill(ids[: stretch.context])
    logits = np.empty((0, 0), np.float32)
    memory = []
    with held_memory() as held:
        for number in range(stretch.tokens):
            backend.decode([ids[stretch.context + number]])
            row = backend.next_logits()
            if not number:  # filled, to be in memory before that is measured
                logits = np.full((stretch.tokens, len(row)), np.nan, np.float32)
            logits[number] = row
            del row
            memory.append(held())
            session.progress(done + number + 1, total)
    grown = np.diff(np.array(memory[stretch.tokens // WARM_UP :], dtype=float))
    return _log_softmax(logits), grown


def _growth(grown: NDArray[np.float64]) -> float:
    """Return the median of the parts' mean growth, in bytes for each token. A leak grows in all of them; a large
    allocation that a library makes at some time grows in one, and is none."""
    return max(0.0, float(np.median([part.mean() for part in np.array_split(grown, min(PARTS, len(grown)))])))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import special

    with np.errstate(invalid="ignore"):  # infinite logits become NaN
        logprobs = special.log_softmax(logits.astype(np.float64), axis=1)
    if np.isnan(logprobs).any():
        raise MeasurementError("the model's logits are not finite: an overflow in a kernel or broken weights")
    rounded: NDArray[np.float32] = logprobs.astype(np.float32)
    return rounded


GROUP = Group(
    options=Options,
    metrics={
        "decoding/kl_mean": Declared("paired"),
        "decoding/perplexity": Declared("paired", "exp"),
        "decoding/growth": Declared("exact", repeats=False),
    },
    measure=measure,
    family="decoding",
    capabilities=frozenset({"logits", "steps"}),
    needs=lambda options: Needs(texts={options.text: max(stretch.ids for stretch in options.stretches)}),
    length=("context", "tokens"),
)
