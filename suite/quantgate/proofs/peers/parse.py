"""Read numbers from the output of llama.cpp's tools. Raises MeasurementError where one is missing."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from quantgate.errors import MeasurementError
from quantgate.records import Record

TAIL = 8
"""Lines of an output that its error shows."""


class KlStatistics(Record):
    """Statistics of `llama-perplexity --kl-divergence`: KL divergence in nats, shares as fractions of 1."""

    mean: float
    q99: float
    largest: float
    delta_p_rms: float
    same_top: float


class _Test(BaseModel):
    n_prompt: int
    n_gen: int
    samples_ns: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]


def perplexity(text: str) -> float:
    """Return the final estimate."""
    return _number("Final estimate: PPL =", text)


def kl_statistics(text: str) -> KlStatistics:
    """Return the statistics over all windows."""
    return KlStatistics(
        mean=_number("^Mean +KLD:", text),
        q99=_number(r"^99\.0% +KLD:", text),
        largest=_number("^Maximum KLD:", text),
        delta_p_rms=_number("^RMS Δp +:", text) / 100,
        same_top=_number("^Same top p:", text) / 100,
    )


def rates(text: str, prompt: int, decode: int) -> list[float]:
    """Return tokens/s of each repetition of one test of `llama-bench --output json`."""
    try:
        tests = TypeAdapter(list[_Test]).validate_json(text)
    except ValidationError as error:
        raise MeasurementError(
            f"llama-bench did not print its JSON: {error.errors()[0]['msg']}{last_lines(text)}"
        ) from None
    for test in tests:
        if (test.n_prompt, test.n_gen) == (prompt, decode):
            return [(prompt + decode) / nanoseconds * 1e9 for nanoseconds in test.samples_ns]
    raise MeasurementError(f"llama-bench ran no test of {prompt} prompt and {decode} decoded tokens")


def kernels(text: str) -> str:
    """Return instruction sets and features as `quantgate.backends.runtime.llamacpp.kernels` does; empty where none are
    printed."""
    line = re.search(r"system_info:[^|]*\|(.*)", text)
    return " ".join(re.findall(r"(\w+) = 1", line[1])) if line else ""


def _number(pattern: str, text: str) -> float:
    """Return the finite number that follows the pattern."""
    match = re.search(rf"{pattern} *(-?\d+(?:\.\d+)?)", text, re.MULTILINE)
    if match is None:
        raise MeasurementError(f"the tool printed no number after {pattern!r}{last_lines(text)}")
    return float(match[1])


def last_lines(text: str) -> str:
    """Return the last non-empty lines, indented for an error message."""
    lines = [line for line in text.splitlines() if line.strip()][-TAIL:]
    return "".join(f"\n    | {line}" for line in lines)
