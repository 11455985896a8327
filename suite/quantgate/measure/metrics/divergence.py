"""Divergence of a cell's next-token distributions from its reference's, on the same tokens.

The definitions are those of llama.cpp's perplexity tool with --kl-divergence (tools/perplexity/perplexity.cpp,
`kl_divergence`, `log_softmax`): at each scored token, KL(reference || cell) = sum over the vocabulary of
p (ln p - ln q); the change q - p of the true token's probability; whether both have the same likeliest token. The tool
leaves out tokens of p < e^-16 and takes errors as if tokens were independent; here nothing is left out, and standard
errors are between blocks of neighbouring tokens, which depend on each other.

Of a server, which names the likeliest tokens alone, `kl_topk` takes the place of KL: a lower bound of it, and no value
that could be compared with one (`quantgate.measure.kl`).

The reference (`reference` in matrix.toml) runs in the same library, llamacpp/F16 for llama.cpp: what is measured is the
scheme, not the difference between two libraries. It has no divergence, and leaves its log-probabilities
(`quantgate.measure.logprobs`) for the others.

Groups run by name: this one comes before perplexity, which uses the windows it has scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from quantgate.backends.base import HasCache, NamesLikeliest
from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.measure.groups import Better, Column, Group, exact, of_blocks, ratio_stderr, with_blocks
from quantgate.measure.kl import Divergence, compare, of_answers
from quantgate.measure.logprobs import Reference, Write, writing
from quantgate.measure.metrics import perplexity
from quantgate.measure.scoring import CHUNK, Scored
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Scalar

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
        return _rows(self) // 3 >= LONG

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.thirds and not self.long:
            raise ValueError(
                f"thirds = true needs windows with {3 * LONG} scored tokens: raise n_ctx, or remove thirds"
            )
        return self


def expected(options: Options) -> dict[str, Metric]:
    """Return the gated metrics with as many samples as they will have."""
    sizes = {"kl_mean": perplexity.sizes_of(options)}
    if options.thirds:
        sizes["kl_early"] = sizes["kl_late"] = _third(options) * options.windows
    return {f"divergence/{n}": with_blocks(s, options.windows, unit="nats") for n, s in sizes.items()}


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `divergence/kl_mean`, `kl_99`, `kl_max` (nats), `delta_p_rms` and `same_top` (0 to 1); and where it is
    worth telling, `kl_early` and `kl_late`, the means over the first and the last third of each window's scored tokens.
    Where the likeliest tokens alone are known, `kl_topk` in place of all KL.

    Of a reference: write its log-probabilities, return nothing. Raises MeasurementError where there are none to read.
    """
    options = session.options("divergence", Options)
    windows = perplexity.windows_of(session, options, _first(session, options))
    path = session.left_for("divergence")
    if isinstance(session.backend, NamesLikeliest):
        return _of_likeliest(session, session.backend, options, windows, path)
    if session.is_reference:
        with writing(path, len(windows) * _rows(options)) as write:
            _each(session, options, windows, write)
        return {}
    tokens = _compare(session, options, windows, path)
    conditions = _conditions(session, options)
    metrics = _metrics(tokens, options, conditions)
    states_cache = isinstance(session.backend, HasCache) and session.backend.states_cache
    if options.thirds or (states_cache and options.long):
        metrics |= _thirds(tokens.kl, options, conditions)
    return metrics


def _conditions(session: Session, options: Options) -> dict[str, Scalar]:
    scored = options.windows * _rows(options)
    text = session.text(options.text)
    return {**perplexity.conditions_of(session, text, options, scored), "reference": session.reference}


def _of_likeliest(
    session: Session, backend: NamesLikeliest, options: Options, windows: Sequence[TokenSequence], path: Path
) -> dict[str, Metric]:
    """Return the metrics of a model that names the likeliest tokens alone."""
    if session.is_reference:
        raise MeasurementError(
            "a server names the likeliest tokens alone, so it cannot be the reference of a divergence: give its scheme "
            "a reference that runs in process, such as llamacpp/F16"
        )
    answers = []
    for window in windows:
        answer = backend.answer(window)
        session.scored[window.ids] = Scored(answer.logprobs, answer.likeliest)
        answers.append(answer.last(_rows(options)))
        session.progress(len(answers), len(windows))
    ids = [window.ids[-_rows(options) :] for window in windows]
    tokens, width = of_answers(Reference(path, len(windows) * _rows(options)), answers, ids)
    # With another number of likeliest tokens it is another bound.
    metrics = _metrics(tokens, options, {**_conditions(session, options), "likeliest": width})
    kept = {name: metrics[f"divergence/{name}"] for name in ("delta_p_rms", "same_top")}
    kept["kl_topk"] = metrics["divergence/kl_mean"]
    return {f"divergence/{name}": metric for name, metric in kept.items()}


def _first(session: Session, options: Options) -> int:
    """Return the first token of a window whose logits are needed, by perplexity too where its windows are the same."""
    first = perplexity.first_scored(options)
    if not session.requested("perplexity"):
        return first
    other = session.options("perplexity", perplexity.Options)
    same = all(getattr(other, key) == getattr(options, key) for key in ("text", "n_ctx", "chat", "system"))
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

    def take(logprobs: NDArray[np.float32], tokens: NDArray[np.int64]) -> None:
        rows = reference.next(tokens)
        if logprobs.shape != rows.logprobs.shape:
            raise MeasurementError(
                f"{path}: is of other tokens ({rows.logprobs.shape[1]} in the vocabulary of {session.reference}, "
                f"{logprobs.shape[1]} in the cell's): only cells of one model and text can be compared"
            )
        parts.append(compare(rows, logprobs))

    _each(session, options, windows, take)
    return Divergence(*map(np.concatenate, zip(*parts, strict=True)))


def _metrics(tokens: Divergence, options: Options, conditions: dict[str, Scalar]) -> dict[str, Metric]:
    """Return the metrics of all scored tokens. Mean and rate are paired block by block; a root mean square, a quantile
    and a maximum are no means of blocks, and are exact."""
    sizes = perplexity.sizes_of(options)
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
        "divergence/kl_mean": Declared("paired", held=True),
        "divergence/kl_early": Declared("paired", held=True),
        "divergence/kl_late": Declared("paired", held=True),
        "divergence/kl_topk": Declared("paired", held=True),
        "divergence/kl_99": Declared("exact", held=True),
        "divergence/kl_max": Declared("exact", held=True),
        "divergence/delta_p_rms": Declared("exact", held=True),
        "divergence/same_top": Declared("paired", held=True),
    },
    measure=measure,
    family="quality",
    relative=True,
    reads_reference=True,
    capabilities=frozenset({"tops"}),
    needs=perplexity.needs,
    length=("n_ctx",),
    expected=expected,
    columns=(Column("KL", "nats", 4, 3, 6, ("divergence/kl_mean",), ("divergence/*",)),),
)
