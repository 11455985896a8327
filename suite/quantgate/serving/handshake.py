"""The handshake: what a server has to show before any number of it counts.

Each reply by itself has passed `quantgate.serving.replies`. Here replies are held against each other, on tokens drawn
from those that will be asked: whatever the model, some must be equal and some must differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from quantgate.errors import MeasurementError, QuantgateError
from quantgate.serving.replies import Answer

LENGTH, STEM, WRITTEN, LONG = 24, 12, 6, 256
"""Tokens of the probe, of what a second one shares with it, of what is written, of the long text."""
ROUNDING = 1e-3
"""Nats by which two answers may differ that must be equal, beyond three times the spread of repetition."""
NEAR = 0.1
"""Nats by which the likeliest token may lead the one that a greedy server writes."""
WHOLE = 1e-6
"""A list that is not the whole vocabulary, and has all probability but so much everywhere, is one after sampling."""

Ask = Callable[[Sequence[int], int], Answer]
"""Returns the checked answer on ids, of which those from a place on are scored."""
Write = Callable[[Sequence[int], int], Sequence[int]]
"""Returns the greedy continuation of ids, at most so many tokens."""


def handshake(
    ask: Ask, tokens: Sequence[int], vocabulary: int, write: Write | None = None, longest: int | None = None
) -> float:
    """Hold a server's answers against each other. Return by how many nats a token differs at most between two answers
    to one request; 0: it repeats. tokens: ids of the texts that will be asked. longest: tokens of the longest text that
    it takes; None: unknown. Raises MeasurementError that says what the server does."""
    try:
        return _handshake(ask, tokens, vocabulary, write, longest)
    except QuantgateError as error:
        raise MeasurementError(f"nothing of this server is measured: {error}") from error


def _handshake(
    ask: Ask, tokens: Sequence[int], vocabulary: int, write: Write | None, longest: int | None
) -> float:
    pool = sorted(set(tokens))
    if len(pool) < 2:
        raise MeasurementError("its texts have fewer than two different tokens")
    draw = random.Random(0)  # noqa: S311
    probe = draw.choices(pool, k=LENGTH)

    def other(token: int) -> int:
        return next(one for one in draw.sample(pool, len(pool)) if one != token)

    first = ask(probe, 1)
    if np.ptp(first.logprobs) == 0:
        raise MeasurementError(
            f"all {len(first.logprobs)} tokens of a random text have the log-probability {first.logprobs[0]:.4f}: a "
            "constant in place of numbers"
        )
    _check_whole(first, vocabulary)
    spread = _difference(first, ask(probe, 1))
    limit = ROUNDING + 3 * spread
    ask([*probe[:STEM], *(other(token) for token in probe[STEM:])], 1)
    moved = _difference(first, ask(probe, 1))
    if moved > limit:
        raise MeasurementError(
            f"the same request gives other numbers after one that shares its beginning (by up to {moved:.2g} nats): "
            "switch its prefix cache off (--no-enable-prefix-caching, --disable-radix-cache)"
        )
    _check_places(ask, probe, first, other, limit)
    size = LONG if longest is None else min(LONG, longest)
    ask(draw.choices(pool, k=size), size - 1)
    if write is not None:
        _check_written(ask, write, probe)
    return spread


def _check_whole(answer: Answer, vocabulary: int) -> None:
    """Raise MeasurementError where the likeliest tokens take all probability although others exist."""
    width = answer.likely.shape[1]
    if 0 < width < vocabulary and (1 - np.exp(answer.likely).sum(axis=1)).max() < WHOLE:
        raise MeasurementError(
            f"the {width} likeliest tokens have all of the probability at each of {len(answer.likely)} places of a "
            "random text: these are probabilities after sampling, not the model's"
        )


def _check_places(
    ask: Ask, probe: Sequence[int], first: Answer, other: Callable[[int], int], limit: float
) -> None:
    """Raise MeasurementError where numbers are those of a neighbouring place. What is likely at the last place depends
    on all tokens before it, and not on the last token."""
    if not first.tokens.shape[1]:
        return
    late = ask([*probe[:-1], other(probe[-1])], 1)
    if not _same_list(first, late, limit):
        raise MeasurementError(
            "what is likely at the last place of a text changes with the token that stands there: its numbers are "
            "those of the next place (off by one)"
        )
    if np.abs(first.logprobs[:-1] - late.logprobs[:-1]).max() > limit:
        raise MeasurementError(
            "the log-probabilities of tokens change with a token that comes after them: they are not those of their "
            "places, or the model does not read from left to right"
        )
    early = ask([*probe[:-2], other(probe[-2]), probe[-1]], 1)
    if _same_list(first, early, 0.0):
        raise MeasurementError(
            "what is likely at the last place of a text does not depend on the token before it: its numbers are those "
            "of the place before (off by one)"
        )


def _check_written(ask: Ask, write: Write, probe: Sequence[int]) -> None:
    """Raise MeasurementError where the server does not write what it calls likeliest."""
    written = list(write(probe, WRITTEN))
    answer = ask([*probe, *written], len(probe))
    if not answer.likely.shape[1]:
        return
    leads = answer.likely[:, 0] - answer.logprobs
    if leads.max() > NEAR:
        place = int(leads.argmax())
        raise MeasurementError(
            f"asked for its likeliest tokens, the server writes token {written[place]}, which is {leads[place]:.2f} "
            "nats less likely than another: it samples, or has penalties of its own (generation defaults)"
        )


def _same_list(one: Answer, other: Answer, limit: float) -> bool:
    """Return whether both name the same probabilities at the last place; tokens that are equally likely may change
    their order."""
    width = min(one.likely.shape[1], other.likely.shape[1])
    a, b = (dict(zip(x.tokens[-1], x.likely[-1], strict=True)) for x in (one, other))
    both = a.keys() & b.keys()
    return (
        len(both) >= width - 1
        and all(abs(a[token] - b[token]) <= limit for token in both)
        and bool(np.abs(one.likely[-1, :width] - other.likely[-1, :width]).max() <= limit)
    )


def _difference(one: Answer, other: Answer) -> float:
    return float(np.abs(one.logprobs - other.logprobs).max())
