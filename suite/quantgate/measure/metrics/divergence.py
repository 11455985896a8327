"""Divergence of a cell's next-token distributions from its reference's, on the same tokens.

The definitions are those of llama.cpp's perplexity tool with --kl-divergence (tools/perplexity/perplexity.cpp,
`kl_divergence`, `log_softmax`): at each scored token, KL(reference || cell) = sum over the vocabulary of
p (ln p - ln q); the change q - p of the true token's probability; whether both have the same likeliest token. The tool
leaves out tokens of p < e^-16 and takes errors as if tokens were independent; here nothing is left out, and standard
errors are between blocks of neighbouring tokens, which depend on each other.

The reference is the cell's own (`reference` in matrix.toml: llamacpp/F16 for llama.cpp, transformers/fp32 for
bitsandbytes): what is measured is then the scheme, not the difference between two libraries. The reference has no
divergence: it leaves its log-probabilities (`quantgate.measure.logprobs`) for the others.

Groups run by name: this one comes before perplexity, which finds the windows it shares scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.measure.groups import Column, Group
from quantgate.measure.logprobs import Reference, Rows, writing
from quantgate.measure.metrics import perplexity
from quantgate.measure.scoring import CHUNK
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Needs, Scalar

IMPOSSIBLE = -1000.0
"""ln q counts as at least this: what both distributions exclude adds 0 and not NaN."""

RESAMPLES = 1000


class Options(perplexity.Options):
    """As those of perplexity; the protocol is the tool's."""

    protocol: Literal["full", "half"] = "half"


def needs(options: Options) -> Needs:
    """The tokens that the windows take."""
    return perplexity.needs(options)


def expected(options: Options) -> dict[str, Metric]:
    """The gated metrics in the shape that they will have, but for their values."""
    weights = perplexity.weights_of(options)
    return {
        "divergence/kl_mean": Metric(
            kind="paired", value=1.0, unit="nats", better="lower", samples=[0.0] * len(weights),
            weights=weights, conditions={"windows": options.windows},
        )
    }  # fmt: skip


@dataclass(frozen=True)
class Divergence:
    """Per scored token: KL(reference || cell) in nats, q - p of the true token, whether the likeliest is the same."""

    kl: NDArray[np.float64]
    delta_p: NDArray[np.float64]
    same_top: NDArray[np.float64]


def compare(reference: Rows, logprobs: NDArray[np.float32]) -> Divergence:
    """Of rows of the reference and a cell's log-probabilities [rows, vocabulary]."""
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
    """`divergence/kl_mean`, `kl_99`, `kl_max` (nats), `delta_p_rms` and `same_top` (0 to 1). Of a reference: none,
    its log-probabilities are written."""
    options = session.options("divergence", Options)
    text = session.text(options.text)
    windows = perplexity.windows_of(text, options, _first(session, options))
    if session.logprobs is None:
        raise MeasurementError("the job does not say where the log-probabilities of the reference are")
    if session.is_reference:
        _write(session, options, windows, session.logprobs)
        return {}
    found = _compare(session, options, windows, session.logprobs)
    conditions = perplexity.conditions_of(session, text, options, len(found.kl))
    conditions["reference"] = session.reference
    sizes = [b - a for a, b in perplexity.blocks(options)] * options.windows
    return _metrics(found, sizes, conditions)


def _first(session: Session, options: Options) -> int:
    """The first token of a window whose logits are wanted: by perplexity too, where it takes the same windows."""
    own = perplexity.first_scored(options)
    if not session.requested("perplexity"):
        return own
    other = session.options("perplexity", perplexity.Options)
    same = (other.text, other.n_ctx) == (options.text, options.n_ctx)
    return min(own, perplexity.first_scored(other)) if same else own


def _rows(options: Options) -> int:
    """Scored tokens of a window."""
    return options.n_ctx - perplexity.first_scored(options)


def _each(
    session: Session,
    options: Options,
    windows: Sequence[TokenSequence],
    take: Callable[[NDArray[np.float32], NDArray[np.int64]], None],
) -> None:
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


def _write(session: Session, options: Options, windows: Sequence[TokenSequence], path: Path) -> None:
    """Leave the reference's log-probabilities at `path`."""
    with writing(path, len(windows) * _rows(options)) as write:
        _each(session, options, windows, write)


def _compare(session: Session, options: Options, windows: Sequence[TokenSequence], path: Path) -> Divergence:
    """Hold the cell against its reference, whose log-probabilities are at `path`."""
    reference = Reference(path, len(windows) * _rows(options))
    found: list[Divergence] = []
    done = 0

    def take(logprobs: NDArray[np.float32], tokens: NDArray[np.int64]) -> None:
        nonlocal done
        rows = reference.rows(done, done + len(tokens))
        if logprobs.shape != rows.logprobs.shape or (tokens != rows.tokens).any():
            raise MeasurementError(
                f"{path}: is of other tokens ({rows.logprobs.shape[1]} in the vocabulary of {session.reference}, "
                f"{logprobs.shape[1]} in the cell's): only cells of one model and text can be compared"
            )
        found.append(compare(rows, logprobs))
        done += len(tokens)

    _each(session, options, windows, take)
    return Divergence(*(np.concatenate([getattr(d, f.name) for d in found]) for f in fields(Divergence)))


def _metrics(found: Divergence, sizes: list[int], conditions: dict[str, Scalar]) -> dict[str, Metric]:
    """sizes: tokens of each block. Mean and rate are paired block by block; a root mean square, a quantile and a
    maximum are no means of blocks, and are levels."""
    edges = np.cumsum([0, *sizes])
    squares = found.delta_p**2
    rms = math.sqrt(squares.mean())

    def paired(values: NDArray[np.float64], unit: str, better: Literal["lower", "higher"]) -> Metric:
        sums = np.add.reduceat(values, edges[:-1])
        return Metric(
            kind="paired",
            value=float(values.mean()),
            unit=unit,
            better=better,
            stderr=perplexity.ratio_stderr(sums, np.array(sizes)),
            samples=(sums / sizes).tolist(),
            weights=[float(s) for s in sizes],
            conditions=conditions,
        )

    def single(value: float, stderr: float, unit: str) -> Metric:
        return Metric(
            kind="exact", value=value, unit=unit, better="lower", stderr=stderr, conditions=conditions
        )

    error = perplexity.ratio_stderr(np.add.reduceat(squares, edges[:-1]), np.array(sizes))
    spread = bootstrap_stderr(np.split(found.kl, edges[1:-1]), [0.99, 1.0])
    return {
        "divergence/kl_mean": paired(found.kl, "nats", "lower"),
        "divergence/kl_99": single(float(np.quantile(found.kl, 0.99)), spread[0], "nats"),
        "divergence/kl_max": single(float(found.kl.max()), spread[1], "nats"),
        # delta method: the derivative of sqrt(x) is 1 / (2 sqrt(x))
        "divergence/delta_p_rms": single(rms, error / (2 * rms) if rms else 0.0, "fraction"),
        "divergence/same_top": paired(found.same_top, "fraction", "higher"),
    }


def bootstrap_stderr(blocks: Sequence[NDArray[np.float64]], quantiles: Sequence[float]) -> list[float]:
    """Standard error of quantiles of all values, where blocks of them were drawn: Efron and Tibshirani, An
    Introduction to the Bootstrap (1993), section 8.6. Of the maximum it is too small: no resample exceeds it."""
    source = np.random.default_rng(0)
    drawn = source.integers(len(blocks), size=(RESAMPLES, len(blocks)))
    values = [np.quantile(np.concatenate([blocks[i] for i in row]), quantiles) for row in drawn]
    return [float(error) for error in np.std(values, axis=0, ddof=1)]


GROUP = Group(
    options=Options,
    metrics={
        "divergence/kl_mean": Declared("paired"),
        "divergence/kl_99": Declared("exact"),
        "divergence/kl_max": Declared("exact"),
        "divergence/delta_p_rms": Declared("exact"),
        "divergence/same_top": Declared("paired"),
    },
    measure=measure,
    family="quality",
    relative=True,
    uses_logprobs=True,
    capabilities=frozenset({"logits"}),
    needs=needs,
    length=("n_ctx",),
    expected=expected,
    columns=(Column("KL", "nats", 4, 3, 0, ("divergence/kl_mean",), ("divergence/*",)),),
)
