"""Divergence of a cell's next-token distributions from its reference's, on the same tokens.

The definitions are those of llama.cpp's perplexity tool with --kl-divergence (tools/perplexity/perplexity.cpp,
`kl_divergence`, `log_softmax`): at each scored token, KL(reference || cell) = sum over the vocabulary of
p (ln p - ln q); the change q - p of the true token's probability; whether both have the same likeliest token. The tool
leaves out tokens of p < e^-16 and takes errors as if tokens were independent; here nothing is left out, and standard
errors are between blocks of neighbouring tokens, which depend on each other.

The reference (`reference` in matrix.toml) runs in the same library, llamacpp/F16 for llama.cpp: what is measured is the
scheme, not the difference between two libraries. It has no divergence, and leaves its log-probabilities
(`quantgate.measure.logprobs`) for the others.

Groups run by name: this one comes before perplexity, which uses the windows it has scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from quantgate.backends.base import HasCache
from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.measure.groups import Better, Column, Group, exact, of_blocks, ratio_stderr, with_blocks
from quantgate.measure.logprobs import Reference, Rows, Write, writing
from quantgate.measure.metrics import perplexity
from quantgate.measure.scoring import CHUNK
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Scalar

IMPOSSIBLE = -1000.0
"""ln q counts as at least this: what both distributions exclude adds 0 and not NaN."""

RESAMPLES = 1000

LONG = 64
"""Scored tokens that a third of a window has at least where thirds are told apart."""


class Options(perplexity.Options):
    """As those of perplexity; the protocol is the tool's. thirds: whether to tell the first from the last third of
    the windows, to see what grows with the length of a context. Of a scheme that states the types of its cache they
    are told apart anyway, where windows are long enough."""

    protocol: Literal["full", "half"] = "half"
    thirds: bool = False

    @property
    def long(self) -> bool:
        """Whether a third of a window has enough scored tokens."""
        return (self.n_ctx - perplexity.first_scored(self)) // 3 >= LONG

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.thirds and not self.long:
            raise ValueError(
                f"thirds = true needs windows with {3 * LONG} scored tokens: raise n_ctx, or remove thirds"
            )
        return self


def expected(options: Options) -> dict[str, Metric]:
    """Return the gated metrics with as many samples as they will have."""
    weights = {"kl_mean": perplexity.weights_of(options)}
    if options.thirds:
        of_third = [float(size) for size in _third(options)] * options.windows
        weights |= {"kl_early": of_third, "kl_late": of_third}
    return {f"divergence/{n}": with_blocks(w, options.windows, unit="nats") for n, w in weights.items()}


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


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `divergence/kl_mean`, `kl_99`, `kl_max` (nats), `delta_p_rms` and `same_top` (0 to 1); and where it is
    worth telling, `kl_early` and `kl_late`, the means over the first and the last third of each window's scored tokens.

    Of a reference: write its log-probabilities, return nothing. Raises MeasurementError where there are none to read.
    """
    options = session.options("divergence", Options)
    text = session.text(options.text)
    windows = perplexity.windows_of(text, options, _first(session, options))
    path = session.left_for("divergence")
    if session.is_reference:
        with writing(path, len(windows) * _rows(options)) as write:
            _each(session, options, windows, write)
        return {}
    tokens = _compare(session, options, windows, path)
    conditions = perplexity.conditions_of(session, text, options, len(tokens.kl))
    conditions["reference"] = session.reference
    sizes = [b - a for a, b in perplexity.blocks(options)] * options.windows
    metrics = _metrics(tokens, sizes, conditions)
    states_cache = isinstance(session.backend, HasCache) and session.backend.states_cache
    if options.thirds or (states_cache and options.long):
        metrics |= _thirds(tokens.kl, options, conditions)
    return metrics


def _first(session: Session, options: Options) -> int:
    """Return the first token of a window whose logits are needed, by perplexity too where its windows are the same."""
    first = perplexity.first_scored(options)
    if not session.requested("perplexity"):
        return first
    other = session.options("perplexity", perplexity.Options)
    same = (other.text, other.n_ctx) == (options.text, options.n_ctx)
    return min(first, perplexity.first_scored(other)) if same else first


def _rows(options: Options) -> int:
    """Return the number of scored tokens of a window."""
    return options.n_ctx - perplexity.first_scored(options)


def _each(session: Session, options: Options, windows: Sequence[TokenSequence], take: Write) -> None:
    """Call `take` with log-probabilities [n, vocabulary] and true tokens [n], some rows at a time, in order."""
    count = _rows(options)
    ahead = iter(windows)

    def look(logits: NDArray[np.float32], norm: NDArray[np.float64]) -> None:
        tokens = np.array(next(ahead).ids[-count:])
        for begin in range(0, count, CHUNK):
            rows = logits[-count:][begin : begin + CHUNK]
            peak = rows.max(axis=1, keepdims=True)
            # Two small numbers are subtracted, and not a large one: float32 then rounds less.
            logprobs = rows - peak
            logprobs -= (norm[-count:, None][begin : begin + CHUNK] - peak).astype(np.float32)
            take(logprobs, tokens[begin : begin + CHUNK])

    perplexity.score_windows(session, windows, look)


def _compare(session: Session, options: Options, windows: Sequence[TokenSequence], path: Path) -> Divergence:
    """Hold the cell against its reference, whose log-probabilities are at `path`."""
    reference = Reference(path, len(windows) * _rows(options))
    parts: list[Divergence] = []
    done = 0

    def take(logprobs: NDArray[np.float32], tokens: NDArray[np.int64]) -> None:
        nonlocal done
        rows = reference.rows(done, done + len(tokens))
        if logprobs.shape != rows.logprobs.shape or (tokens != rows.tokens).any():
            raise MeasurementError(
                f"{path}: is of other tokens ({rows.logprobs.shape[1]} in the vocabulary of {session.reference}, "
                f"{logprobs.shape[1]} in the cell's): only cells of one model and text can be compared"
            )
        parts.append(compare(rows, logprobs))
        done += len(tokens)

    _each(session, options, windows, take)
    return Divergence(*map(np.concatenate, zip(*parts, strict=True)))


def _metrics(tokens: Divergence, sizes: list[int], conditions: dict[str, Scalar]) -> dict[str, Metric]:
    """Return the metrics of all scored tokens; sizes: tokens of each block. Mean and rate are paired block by block; a
    root mean square, a quantile and a maximum are no means of blocks, and are exact."""
    edges = np.cumsum([0, *sizes])
    squares = tokens.delta_p**2
    rms = math.sqrt(squares.mean())
    error = ratio_stderr(np.add.reduceat(squares, edges[:-1]), np.array(sizes))
    spread = bootstrap_stderr(np.split(tokens.kl, edges[1:-1]), [0.99, 1.0])
    return {
        "divergence/kl_mean": _paired(tokens.kl, sizes, conditions),
        "divergence/kl_99": exact(
            float(np.quantile(tokens.kl, 0.99)), conditions, unit="nats", stderr=spread[0]
        ),
        "divergence/kl_max": exact(float(tokens.kl.max()), conditions, unit="nats", stderr=spread[1]),
        # delta method: the derivative of sqrt(x) is 1 / (2 sqrt(x))
        "divergence/delta_p_rms": exact(
            rms, conditions, unit="fraction", stderr=error / (2 * rms) if rms else 0.0
        ),
        "divergence/same_top": _paired(tokens.same_top, sizes, conditions, "fraction", "higher"),
    }


def _third(options: Options) -> list[int]:
    """Return the tokens of each block of a third of a window's scored tokens."""
    count = _rows(options) // 3
    return [len(block) for block in np.array_split(range(count), max(1, round(count / options.block)))]


def _thirds(kl: NDArray[np.float64], options: Options, conditions: dict[str, Scalar]) -> dict[str, Metric]:
    """Return the means of the first and the last third of the windows; kl: of all scored tokens, by window."""
    of_windows, sizes = kl.reshape(options.windows, -1), _third(options)
    count = sum(sizes)
    conditions = {**conditions, "scored tokens": count * options.windows}
    return {
        f"divergence/{name}": _paired(part.ravel(), sizes * options.windows, conditions)
        for name, part in (("kl_early", of_windows[:, :count]), ("kl_late", of_windows[:, -count:]))
    }


def _paired(
    values: NDArray[np.float64],
    sizes: Sequence[int],
    conditions: dict[str, Scalar],
    unit: str = "nats",
    better: Better = "lower",
) -> Metric:
    """Return the mean of values of tokens; its samples are the means of blocks, sizes the tokens of each."""
    sums = np.add.reduceat(values, np.cumsum([0, *sizes[:-1]]))
    mean = float(values.mean())
    return of_blocks(sums, np.array(sizes), conditions, unit=unit, better=better, value=mean)


def bootstrap_stderr(blocks: Sequence[NDArray[np.float64]], quantiles: Sequence[float]) -> list[float]:
    """Return the standard errors of quantiles of all values, of which blocks were drawn: Efron and Tibshirani, An
    Introduction to the Bootstrap (1993), section 8.6. Of the maximum it is too small: no resample exceeds it."""
    source = np.random.default_rng(0)
    drawn = source.integers(len(blocks), size=(RESAMPLES, len(blocks)))
    values = [np.quantile(np.concatenate([blocks[i] for i in row]), quantiles) for row in drawn]
    return [float(error) for error in np.std(values, axis=0, ddof=1)]


GROUP = Group(
    options=Options,
    metrics={
        "divergence/kl_mean": Declared("paired"),
        "divergence/kl_early": Declared("paired"),
        "divergence/kl_late": Declared("paired"),
        "divergence/kl_99": Declared("exact"),
        "divergence/kl_max": Declared("exact"),
        "divergence/delta_p_rms": Declared("exact"),
        "divergence/same_top": Declared("paired"),
    },
    measure=measure,
    family="quality",
    relative=True,
    reads_reference=True,
    capabilities=frozenset({"logits"}),
    needs=perplexity.needs,
    length=("n_ctx",),
    expected=expected,
    columns=(Column("KL", "nats", 4, 3, 0, ("divergence/kl_mean",), ("divergence/*",)),),
)
