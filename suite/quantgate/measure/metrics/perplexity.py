"""Perplexity of a text in fixed windows, token-level, and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError, UnmeasurableError
from quantgate.files import hash_of
from quantgate.items import Text
from quantgate.jobs import Needs
from quantgate.measure.groups import Column, Group, of_blocks, with_blocks
from quantgate.measure.options import InChat
from quantgate.measure.scoring import Look, Scored, score
from quantgate.measure.session import Session
from quantgate.measure.way import check_causal
from quantgate.records import AGREEMENT, IN_PROCESS, Declared, Metric, Scalar

LEAST = 8
"""Tokens of a window."""


class Options(InChat):
    """text: name in tasks.toml. n_ctx: tokens of a window. protocol: `full` scores every token of a window
    but its first; `half` scores the second half only, as llama.cpp's perplexity tool does. block: about so many
    scored tokens of a window are one unit of the judge's paired test. chat: each window is a user's message, as the
    model's chat template begins it, after the message `system` if there is one. The tokens of the template come before
    the window, in place of its first token: those of the text that are scored are the same with and without."""

    text: str
    n_ctx: int = Field(default=512, ge=LEAST)
    windows: int = Field(default=8, ge=2)
    protocol: Literal["full", "half"] = "full"
    block: int = Field(default=128, ge=1)


def needs(options: Options) -> Needs:
    """Return the tokens that the windows take."""
    openings = [options.system] if options.chat else []
    return Needs(texts={options.text: options.n_ctx * options.windows}, openings=openings)


def expected(options: Options) -> dict[str, Metric]:
    """Return the gated metrics with as many samples as they will have."""
    return {"perplexity": with_blocks(sizes_of(options), options.windows, unit="", link="exp")}


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `perplexity`, exp(mean negative log-likelihood of the scored tokens, nats), and
    `perplexity/bits_per_byte`."""
    options = session.options("perplexity", Options)
    text = session.text(options.text)
    first, edges = first_scored(options), blocks(options)
    scored = score_windows(session, windows_of(session, options, first))
    nll = np.array([-s.logprobs[a - first : b - first].sum() for s in scored for a, b in edges])
    tokens = np.array(sizes_of(options))
    if (mean := nll.sum() / tokens.sum()) > 600:  # exp(709) is the largest float; a uniform guess is below 20
        raise MeasurementError(
            f"the mean negative log-likelihood is {mean:.0f} nats per token, too much for a perplexity: broken weights"
        )
    begins = range(0, options.windows * options.n_ctx, options.n_ctx)
    scored_bytes = np.array([text.bytes_between(begin + a, begin + b) for begin in begins for a, b in edges])
    conditions = conditions_of(session, text, options, int(tokens.sum()))
    with_bytes = {**conditions, "scored bytes": int(scored_bytes.sum())}
    return {
        "perplexity": of_blocks(nll, tokens, conditions, unit="", link="exp"),
        "perplexity/bits_per_byte": of_blocks(
            *with_bytes_each(nll / math.log(2), scored_bytes), with_bytes, unit="bits/byte"
        ),
    }


def with_bytes_each(
    sums: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Join each block without a byte of its own with the next one: its tokens are parts of a character, whose bytes
    count where it ends. At the end of the text it is joined with the one before."""
    count = max(1, int((sizes > 0).sum()))
    place = np.minimum(np.concatenate([[0], np.cumsum(sizes > 0)[:-1]]), count - 1)
    joined_sums, joined_sizes = np.zeros(count), np.zeros(count, np.int64)
    np.add.at(joined_sums, place, sums)
    np.add.at(joined_sizes, place, sizes)
    return joined_sums, joined_sizes


def conditions_of(session: Session, text: Text, options: Options, scored: int) -> dict[str, Scalar]:
    """Return what has to be equal before two values on windows of a text may be compared."""
    opening = session.opening(options.system) if options.chat else None
    return {
        "source": session.source_hash,
        "tokens": text.hash if opening is None else hash_of([text.hash, opening.ids]),
        "text": options.text,
        "n_ctx": options.n_ctx,
        "windows": options.windows,
        "protocol": options.protocol,
        "block": options.block,
        "scored tokens": scored,
        **({} if opening is None else {"chat": True, "template": opening.template}),
        **session.attention,
    }


def first_scored(options: Options) -> int:
    """Return the index in a window of its first scored token."""
    return 1 if options.protocol == "full" else options.n_ctx // 2 + 1


def blocks(options: Options) -> list[tuple[int, int]]:
    """Cut the scored tokens of a window into blocks of about `block`: (first, one after the last) in the window."""
    first = first_scored(options)
    count = max(1, round((options.n_ctx - first) / options.block))
    edges = np.linspace(first, options.n_ctx, count + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def sizes_of(options: Options) -> list[int]:
    """Return the scored tokens of each block of all windows."""
    return [b - a for a, b in blocks(options)] * options.windows


def windows_of(session: Session, options: Options, start: int) -> list[TokenSequence]:
    """Return the windows, each to be scored from its token `start` on. A beginning-of-sequence token replaces the first
    token of each, as in llama.cpp's tool; with `chat` the opening does, which has one. Raises UnmeasurableError for
    windows that do not fit into the model's positions with it."""
    text = session.text(options.text)
    if options.chat:
        before = session.opening(options.system).ids
        _check_room(session, options, len(before))
    else:
        before = [] if text.bos is None else [text.bos]
    windows = []
    for begin in range(0, options.windows * options.n_ctx, options.n_ctx):
        ids = text.ids[begin : begin + options.n_ctx]
        begun = (*(before or ids[:1]), *ids[1:])
        windows.append(TokenSequence(begun, len(begun) - len(ids) + start))
    return windows


def _check_room(session: Session, options: Options, before: int) -> None:
    positions = session.backend.sizes().positions
    if positions is not None and before + options.n_ctx - 1 > positions:
        room = positions - before + 1
        remedy = f"lower n_ctx to {room:,}, or remove chat" if room >= LEAST else "remove chat"
        raise UnmeasurableError(
            f"text {options.text!r}: the model has {positions:,} positions, its chat template takes {before:,} before "
            f"a window of {options.n_ctx:,} tokens: {remedy}"
        )


def score_windows(
    session: Session, windows: Sequence[TokenSequence], look: Look | None = None
) -> list[Scored]:
    """Score the windows in one forward pass each. One that another group has scored is not scored again, unless there
    is something to `look` at."""
    scored = session.scored
    missing = [w for w in windows if look or len(scored.get(w.ids, ())) < len(w.ids) - w.start]
    if missing:
        check_causal(session, missing[0].ids)
    for number, window in enumerate(missing, 1):
        ((scored[window.ids],),) = score(session.backend, [[window]], len(window.ids), look=look)
        session.progress(number, len(missing))
    return [scored[w.ids].last(len(w.ids) - w.start) for w in windows]


GROUP = Group(
    options=Options,
    metrics={"perplexity": Declared("paired", "exp"), "perplexity/bits_per_byte": Declared("paired")},
    measure=measure,
    family="quality",
    relative=True,
    agreement=True,
    in_process="perplexity",
    capabilities=frozenset({"scores"}),
    needs=needs,
    length=("n_ctx",),
    expected=expected,
    columns=(Column("perplexity", "", 3, 2, 7, ("perplexity",), ("perplexity/*", AGREEMENT, IN_PROCESS)),),
)
