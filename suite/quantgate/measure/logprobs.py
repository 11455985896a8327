"""The log-probabilities of a reference, in one file that the cells compared with it map into memory.

A row is the reference's distribution over the vocabulary at one scored token of a window. Of every token of probability
above 1/256 (there are at most 255), of the likeliest and of the true one it keeps float32; of all others the natural
logarithm in steps of 1/2048 nat down to -32, in 16 bits. A vocabulary of 49,152 takes 100 kB a row, 205 MB for the
second halves of eight windows of 512.

Rounding moves the log-probability of an unlikely token by e_i, |e_i| <= 1/4096, uniformly. With p made to sum to 1
again, the divergence from q moves by sum_i p_i e_i (ln p_i/q_i - KL) + sum_i p_i e_i^2 / 2: the second term is below
1e-8 nats, the first has mean 0, and standard deviation 1.4e-4 sqrt(sum_i (p_i ln p_i/q_i)^2) over tokens of
p_i <= 1/256. Tests hold it below 1e-5 nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.cache.kept import keep
from quantgate.errors import MeasurementError
from quantgate.files import replacing

STEPS = 2048
"""Steps of a nat."""
LIKELY = 256
"""A token more likely than 1/LIKELY is kept exactly."""

Write = Callable[[NDArray[np.float32], NDArray[np.int64]], None]
"""Takes log-probabilities, [n, vocabulary], and true tokens, [n]."""


@dataclass(frozen=True)
class Rows:
    """Some rows. logprobs: [rows, vocabulary], not summing to 1 by what rounding adds; tokens, top: the true and the
    likeliest token of each row; true: log-probability of the true token."""

    logprobs: NDArray[np.float32]
    tokens: NDArray[np.int64]
    top: NDArray[np.int64]
    true: NDArray[np.float32]


def _row(vocabulary: int) -> np.dtype[Any]:
    # `likely` begins with the likeliest token and is filled up with it.
    return np.dtype(
        [
            ("token", "<u4"),
            ("true", "<f4"),
            ("likely", "<u4", (LIKELY,)),
            ("exact", "<f4", (LIKELY,)),
            ("steps", "<u2", (vocabulary,)),
        ]
    )


@contextmanager
def writing(path: Path, rows: int) -> Iterator[Write]:
    """Yield a function that takes rows until there are `rows` of them; when the block ends without an error, the file
    (.npy) is at `path`. Raises MeasurementError where it does not fit."""
    written = 0
    try:
        with replacing(path) as file:

            def write(logprobs: NDArray[np.float32], tokens: NDArray[np.int64]) -> None:
                nonlocal written
                block = _encode(logprobs, tokens)
                if not written:
                    descr = np.lib.format.dtype_to_descr(block.dtype)
                    header = {"descr": descr, "fortran_order": False, "shape": (rows,)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(block.tobytes())
                written += len(block)

            yield write
            if written != rows:
                raise ValueError(f"{written} rows written, {rows} announced")
        keep(path)
    except OSError as error:
        raise MeasurementError(
            f"{path}: the reference's log-probabilities cannot be written ({error.strerror}): lower `windows` of the "
            "tier's divergence, or set QUANTGATE_CACHE to another disk"
        ) from error


def _encode(logprobs: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[Any]:
    rows = np.zeros(len(tokens), _row(logprobs.shape[1]))
    each = np.arange(len(tokens))
    rows["token"] = tokens
    rows["true"] = logprobs[each, tokens]
    rows["likely"] = logprobs.argmax(axis=1)[:, None]
    row, token = np.nonzero(logprobs > -np.log(LIKELY))
    # numbered within their row, from 1: the first place is the likeliest one's
    rows["likely"][row, 1 + np.arange(len(row)) - np.searchsorted(row, row)] = token
    rows["exact"] = np.take_along_axis(logprobs, rows["likely"].astype(np.int64), axis=1)
    steps = logprobs * np.float32(-STEPS)
    rows["steps"] = np.rint(np.clip(steps, 0, 65535, out=steps), out=steps)
    return rows


class Reference:
    """The file, mapped into memory. Raises MeasurementError: missing, damaged, or of other rows than expected."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path, self._read = path, 0
        try:
            self._rows = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise MeasurementError(
                f"{path}: the reference's log-probabilities cannot be read ({error})"
            ) from error
        steps = (self._rows.dtype.fields or {}).get("steps")
        if not steps or self._rows.dtype != _row(steps[0].shape[0]) or self._rows.shape != (rows,):
            raise MeasurementError(f"{path}: does not hold the log-probabilities of {rows} tokens; delete it")

    def next(self, tokens: NDArray[np.int64]) -> Rows:
        """Return the next rows, which have to be of these true tokens. Raises MeasurementError where they are not."""
        rows = self.rows(self._read, self._read + len(tokens))
        if (rows.tokens != tokens).any():
            raise MeasurementError(
                f"{self._path}: is of other tokens: only cells of one model and text can be compared"
            )
        self._read += len(tokens)
        return rows

    def rows(self, begin: int, end: int) -> Rows:
        """Return the rows begin..end-1."""
        rows = self._rows[begin:end]
        # Converted, then multiplied: both at once takes three times as long.
        logprobs = rows["steps"].astype(np.float32)
        logprobs *= np.float32(-1 / STEPS)
        np.put_along_axis(logprobs, rows["likely"].astype(np.int64), rows["exact"], axis=1)
        return Rows(
            logprobs, rows["token"].astype(np.int64), rows["likely"][:, 0].astype(np.int64), rows["true"]
        )
