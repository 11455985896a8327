"""Perplexity of a text in fixed windows, token-level, and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from suite.errors import MeasurementError
from suite.records import Metric, Needs, Record
from suite.run.session import Session, Text
from suite.scoring import TokenSequence, score


class Options(Record):
    """text: name in tasks.toml. n_ctx: tokens of a window. protocol: `full` scores every token of a window
    but its first; `half` scores the second half only, as llama.cpp's perplexity tool does."""

    text: str
    n_ctx: int = Field(default=512, ge=8)
    windows: int = Field(default=8, ge=2)
    protocol: Literal["full", "half"] = "full"


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """`perplexity` = exp(mean negative log-likelihood of the scored tokens, nats); `perplexity/bits_per_byte`."""
    options = session.options("perplexity", Options)
    text = session.text(options.text)
    start = first_scored(options)
    windows = [
        TokenSequence(_window(text, i, options.n_ctx), start)
        for i in range(0, options.windows * options.n_ctx, options.n_ctx)
    ]
    scored = score(session.backend, [[w] for w in windows], options.n_ctx, session.progress)
    nll = np.array([-s[0].total for s in scored])
    tokens = np.array([len(w.ids) - start for w in windows])
    per_token = nll / tokens
    mean = float(nll.sum() / tokens.sum())
    if mean > 600:  # exp(709) is the largest float; a uniform guess over any vocabulary is below 20
        raise MeasurementError(
            f"the mean negative log-likelihood is {mean:.0f} nats per token, too much for a perplexity: broken weights"
        )
    stderr = float(per_token.std(ddof=1) / math.sqrt(len(windows)))
    scored_bytes = [
        text.bytes_between(i * options.n_ctx + start, (i + 1) * options.n_ctx) for i in range(options.windows)
    ]
    conditions = {
        "source": session.source_hash,
        "tokens": text.hash,
        "text": options.text,
        "n_ctx": options.n_ctx,
        "windows": options.windows,
        "protocol": options.protocol,
        "scored tokens": int(tokens.sum()),
    }
    per_byte = nll / np.array(scored_bytes) / math.log(2)
    return {
        "perplexity": Metric(
            kind="paired",
            value=math.exp(mean),
            unit="",
            better="lower",
            stderr=math.exp(mean) * stderr,  # delta method
            link="exp",
            samples=per_token.tolist(),
            weights=tokens.astype(float).tolist(),
            conditions=conditions,
        ),
        "perplexity/bits_per_byte": Metric(
            kind="paired",
            value=float(nll.sum() / sum(scored_bytes) / math.log(2)),
            unit="bits/byte",
            better="lower",
            stderr=float(per_byte.std(ddof=1) / math.sqrt(len(windows))),
            samples=per_byte.tolist(),
            weights=[float(b) for b in scored_bytes],
            conditions={**conditions, "scored bytes": sum(scored_bytes)},
        ),
    }


def _window(text: Text, begin: int, size: int) -> tuple[int, ...]:
    """Token ids of a window. A beginning-of-sequence token replaces the first, as in llama.cpp's tool."""
    ids = text.ids[begin : begin + size]
    return tuple(ids if text.bos is None else [text.bos, *ids[1:]])


def first_scored(options: Options) -> int:
    """Index in a window of its first scored token."""
    return 1 if options.protocol == "full" else options.n_ctx // 2 + 1


def needs(options: Options) -> Needs:
    """The tokens that the windows take."""
    return Needs(texts={options.text: options.n_ctx * options.windows})
