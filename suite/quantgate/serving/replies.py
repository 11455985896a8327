"""What a server says of the tokens of a text, and the checks that every such reply has to pass: one that is silently of
other tokens, or of other rows, gives plausible numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import MeasurementError
from quantgate.items import common_length

ABOVE = 1e-4
"""Nats above 0 that rounding may leave of a probability of 1, and the sum of probabilities above 1."""
SAME = 1e-3
"""Nats by which two statements of one reply on the same token may differ."""


@dataclass(frozen=True)
class Reply:
    """A server's words on a text, in the order of the tokens.

    prompt_tokens: how many tokens it says the text has; None: it does not say. ids: the scored tokens as it repeats
    them; None: it does not. logprobs: of the scored tokens, natural logarithms. tops: of each, the likeliest tokens at
    its place with their log-probabilities; empty: it names none.
    """

    logprobs: Sequence[float | None]
    tops: Sequence[Sequence[tuple[int, float]]] = field(default_factory=list)
    prompt_tokens: int | None = None
    ids: Sequence[int] | None = None


@dataclass(frozen=True)
class Answer:
    """A reply that passed. logprobs: of the n scored tokens. tokens, likely: shape [n, K], the likeliest tokens and
    their log-probabilities, descending; K is 0 where the server names none. likeliest: whether a scored token is the
    first of them."""

    logprobs: NDArray[np.float64]
    tokens: NDArray[np.int64]
    likely: NDArray[np.float64]
    likeliest: NDArray[np.bool_]

    @property
    def width(self) -> int:
        """How many of the likeliest tokens the server names at each place."""
        return int(self.tokens.shape[1])

    def rows(self, part: slice, width: int | None = None) -> Answer:
        """Return the answer on some of the tokens, with so many of the likeliest."""
        return Answer(
            self.logprobs[part], self.tokens[part, :width], self.likely[part, :width], self.likeliest[part]
        )

    def last(self, count: int) -> Answer:
        """Return the answer on the last `count` tokens."""
        return self.rows(slice(len(self.logprobs) - count, None))


def checked(reply: Reply, ids: Sequence[int], start: int) -> Answer:
    """Return the numbers of a reply on the tokens `ids`, of which those from `start` on are scored. Raises
    MeasurementError that says what is wrong with it."""
    scored = len(ids) - start
    if reply.prompt_tokens is not None and reply.prompt_tokens != len(ids):
        more = reply.prompt_tokens - len(ids)
        why = (
            f"it has {more} more: a beginning-of-sequence token is added (switch that off in the server)"
            if more > 0
            else f"{-more} are missing: the context is cut without an error (give the server a longer one)"
        )
        raise MeasurementError(
            f"{len(ids)} tokens were sent, and the server scored {reply.prompt_tokens}; {why}"
        )
    if len(reply.logprobs) != scored:
        few = (
            ": it ignores the wish for log-probabilities of the prompt (echo)"
            if len(reply.logprobs) < min(2, scored)
            else ""
        )
        raise MeasurementError(
            f"{scored} tokens were to be scored, and the server sent {len(reply.logprobs)} log-probabilities{few}"
        )
    if reply.ids is not None and list(reply.ids) != list(ids[start:]):
        place = common_length(reply.ids, ids[start:])
        raise MeasurementError(
            f"the server scored other tokens than were sent: {list(reply.ids[place : place + 3])} from token "
            f"{start + place} on, where {list(ids[start + place : start + place + 3])} were sent"
        )
    logprobs = _finite(reply.logprobs, start)
    tokens, likely = _tops(reply, scored)
    _check_consistent(logprobs, tokens, likely, ids[start:])
    likeliest = tokens[:, 0] == np.array(ids[start:]) if tokens.shape[1] else np.zeros(scored, bool)
    return Answer(np.minimum(logprobs, 0.0), tokens, np.minimum(likely, 0.0), likeliest)


def _finite(values: Sequence[float | None], start: int) -> NDArray[np.float64]:
    for number, value in enumerate(values):
        if value is None or not math.isfinite(value):
            raise MeasurementError(
                f"the log-probability of token {start + number} is {value}, which is not a number: NaN in the server's "
                "logits, or a token without a value"
            )
        if value > ABOVE:
            raise MeasurementError(
                f"the log-probability of token {start + number} is {value:g}, above 0: these are not log-probabilities"
            )
    return np.array(values, float)


def _tops(reply: Reply, scored: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ids and log-probabilities, [scored, K]; K is the length of the shortest list."""
    if not reply.tops:
        return np.zeros((scored, 0), np.int64), np.zeros((scored, 0))
    if len(reply.tops) != scored:
        raise MeasurementError(
            f"{scored} tokens were to be scored, and the server named the likeliest of {len(reply.tops)} places"
        )
    width = min(map(len, reply.tops))
    if not width:
        raise MeasurementError("the server named no likely token at some places, and some at others")
    ordered = [sorted(one, key=lambda pair: -pair[1])[:width] for one in reply.tops]
    likely = np.array([[value for _, value in one] for one in ordered], float)
    if not np.isfinite(likely).all() or likely.max() > ABOVE:
        raise MeasurementError(
            "the server's log-probabilities of the likeliest tokens are not finite, or above 0"
        )
    mass = np.exp(likely).sum(axis=1).max()
    if mass > 1 + ABOVE * width:
        raise MeasurementError(
            f"the server's likeliest tokens together have a probability of {mass:.4f}, above 1: not those of one place"
        )
    return np.array([[token for token, _ in one] for one in ordered], np.int64), likely


def _check_consistent(
    logprobs: NDArray[np.float64],
    tokens: NDArray[np.int64],
    likely: NDArray[np.float64],
    ids: Sequence[int],
) -> None:
    """Raise MeasurementError where a scored token is among the likeliest with another value, or where it is not among
    them and is more likely than the last: the lists are those of other places, or another distribution's."""
    if not tokens.shape[1]:
        return
    for number, token in enumerate(ids):
        (places,) = np.nonzero(tokens[number] == token)
        value = logprobs[number]
        wrong = (
            abs(likely[number, places[0]] - value) > SAME
            if len(places)
            else value > likely[number, -1] + SAME
        )
        if wrong:
            named = f"{likely[number, places[0]]:.4f} there" if len(places) else "not named there"
            raise MeasurementError(
                f"the server contradicts itself: token {token} has the log-probability {value:.4f}, and is {named} "
                "among the likeliest of its place; lists and values are shifted against each other, or the lists "
                "are those after sampling"
            )
