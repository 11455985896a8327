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
from quantgate.errors import MeasurementError
from quantgate.items import Text
from quantgate.jobs import Needs
from quantgate.measure.groups import Column, Group
from quantgate.measure.scoring import Look, Scored, score, unseen
from quantgate.measure.session import Session
from quantgate.records import AGREEMENT, Declared, Metric, Record, Scalar


class Options(Record):
    """text: name in tasks.toml. n_ctx: tokens of a window. protocol: `full` scores every token of a window
    but its first; `half` scores the second half only, as llama.cpp's perplexity tool does. block: about so many
    scored tokens of a window are one unit of the judge's paired test."""

    text: str
    n_ctx: int = Field(default=512, ge=8)
    windows: int = Field(default=8, ge=2)
    protocol: Literal["full", "half"] = "full"
    block: int = Field(default=128, ge=1)


def expected(options: Options) -> dict[str, Metric]:
    """The gated metrics in the shape that they will have, but for their values."""
    weights = weights_of(options)
    return {
        "perplexity": Metric(
            kind="paired", value=1.0, unit="", better="lower", link="exp", samples=[0.0] * len(weights),
            weights=weights, conditions={"windows": options.windows},
        )
    }  # fmt: skip


def weights_of(options: Options) -> list[float]:
    """The scored tokens of each block of all windows."""
    return [float(b - a) for a, b in blocks(options)] * options.windows


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """`perplexity` = exp(mean negative log-likelihood of the scored tokens, nats); `perplexity/bits_per_byte`."""
    options = session.options("perplexity", Options)
    text = session.text(options.text)
    begins = range(0, options.windows * options.n_ctx, options.n_ctx)
    scored = score_windows(session, windows_of(text, options, first_scored(options)))
    edges = blocks(options)
    nll = np.array([-s.logprobs[a - edges[0][0] : b - edges[0][0]].sum() for s in scored for a, b in edges])
    tokens = np.array([b - a for _ in scored for a, b in edges])
    mean = float(nll.sum() / tokens.sum())
    if mean > 600:  # exp(709) is the largest float; a uniform guess over any vocabulary is below 20
        raise MeasurementError(
            f"the mean negative log-likelihood is {mean:.0f} nats per token, too much for a perplexity: broken weights"
        )
    scored_bytes = np.array([text.bytes_between(start + a, start + b) for start in begins for a, b in edges])
    conditions = conditions_of(session, text, options, int(tokens.sum()))
    bits = nll / math.log(2)
    return {
        "perplexity": Metric(
            kind="paired",
            value=math.exp(mean),
            unit="",
            better="lower",
            stderr=math.exp(mean) * ratio_stderr(nll, tokens),  # delta method
            link="exp",
            samples=(nll / tokens).tolist(),
            weights=tokens.astype(float).tolist(),
            conditions=conditions,
        ),
        "perplexity/bits_per_byte": Metric(
            kind="paired",
            value=float(bits.sum() / scored_bytes.sum()),
            unit="bits/byte",
            better="lower",
            stderr=ratio_stderr(bits, scored_bytes),
            samples=(bits / scored_bytes).tolist(),
            weights=scored_bytes.astype(float).tolist(),
            conditions={**conditions, "scored bytes": int(scored_bytes.sum())},
        ),
    }


def ratio_stderr(sums: NDArray[np.float64], sizes: NDArray[np.int64]) -> float:
    """Standard error of sum(sums) / sum(sizes) over units; a ratio of means, Cochran (1977), section 2.11."""
    n = len(sums)
    rest = sums - sizes * (sums.sum() / sizes.sum())
    return float(math.sqrt(n / (n - 1) * (rest**2).sum()) / sizes.sum())


def conditions_of(session: Session, text: Text, options: Options, scored: int) -> dict[str, Scalar]:
    """What has to be equal before two values on windows of a text may be compared."""
    return {
        "source": session.source_hash,
        "tokens": text.hash,
        "text": options.text,
        "n_ctx": options.n_ctx,
        "windows": options.windows,
        "protocol": options.protocol,
        "block": options.block,
        "scored tokens": scored,
        **session.attention,
    }


def blocks(options: Options) -> list[tuple[int, int]]:
    """The scored tokens of a window, cut into blocks of about `block`: (first, one after the last) in the window."""
    first = first_scored(options)
    count = max(1, round((options.n_ctx - first) / options.block))
    edges = np.linspace(first, options.n_ctx, count + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def windows_of(text: Text, options: Options, start: int) -> list[TokenSequence]:
    """The windows, each to be scored from its token `start` on. A beginning-of-sequence token replaces the first
    token of each, as in llama.cpp's tool."""
    windows = []
    for begin in range(0, options.windows * options.n_ctx, options.n_ctx):
        ids = text.ids[begin : begin + options.n_ctx]
        windows.append(TokenSequence(tuple(ids if text.bos is None else [text.bos, *ids[1:]]), start))
    return windows


def score_windows(
    session: Session, windows: Sequence[TokenSequence], look: Look | None = None
) -> list[Scored]:
    """Scores of the windows, in one forward pass each; none for one that another group has scored already, unless
    there is something to `look` at."""
    known = session.scored
    missing = [w for w in windows if look or w.ids not in known or len(known[w.ids]) < len(w.ids) - w.start]
    for number, window in enumerate(missing):
        ((known[window.ids],),) = score(session.backend, [[window]], len(window.ids), look=look or unseen)
        session.progress(number + 1, len(missing))
    return [known[w.ids].last(len(w.ids) - w.start) for w in windows]


def first_scored(options: Options) -> int:
    """Index in a window of its first scored token."""
    return 1 if options.protocol == "full" else options.n_ctx // 2 + 1


def needs(options: Options) -> Needs:
    """The tokens that the windows take."""
    return Needs(texts={options.text: options.n_ctx * options.windows})


GROUP = Group(
    options=Options,
    metrics={"perplexity": Declared("paired", "exp"), "perplexity/bits_per_byte": Declared("paired")},
    measure=measure,
    family="quality",
    relative=True,
    agreement=True,
    capabilities=frozenset({"scores"}),
    needs=needs,
    length=("n_ctx",),
    expected=expected,
    columns=(Column("perplexity", "", 3, 2, 7, ("perplexity",), ("perplexity/*", AGREEMENT)),),
)
