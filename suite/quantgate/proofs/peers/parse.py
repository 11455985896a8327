"""What llama.cpp's tools print, as numbers. Functions raise MeasurementError with the last lines of what is not it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from quantgate.errors import MeasurementError
from quantgate.records import Record

TAIL = 8
"""Lines of an output that its error shows."""


class KlStatistics(Record):
    """Of `llama-perplexity --kl-divergence`: KL divergence in nats; fractions of 1."""

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
    """The final estimate."""
    return _number("Final estimate: PPL =", text)


def kl_statistics(text: str) -> KlStatistics:
    """The statistics at the end, over all windows."""
    return KlStatistics(
        mean=_number("^Mean +KLD:", text),
        q99=_number(r"^99\.0% +KLD:", text),
        largest=_number("^Maximum KLD:", text),
        delta_p_rms=_number("^RMS Δp +:", text) / 100,
        same_top=_number("^Same top p:", text) / 100,
    )


def rates(text: str, prompt: int, decode: int) -> list[float]:
    """Tokens/s of each repetition of one test of `llama-bench --output json`."""
    try:
        found = TypeAdapter(list[_Test]).validate_json(text)
    except ValidationError as error:
        raise MeasurementError(
            f"llama-bench printed something else than its JSON: {error.errors()[0]['msg']}{last_lines(text)}"
        ) from None
    for test in found:
        if (test.n_prompt, test.n_gen) == (prompt, decode):
            return [(prompt + decode) / nanoseconds * 1e9 for nanoseconds in test.samples_ns]
    raise MeasurementError(f"llama-bench ran no test of {prompt} prompt and {decode} decoded tokens")


def kernels(text: str) -> str:
    """Instruction sets and features, as `quantgate.backends.llamacpp.kernels` has them; empty where none are
    printed."""
    found = re.search(r"system_info:[^|]*\|(.*)", text)
    return " ".join(re.findall(r"(\w+) = 1", found[1])) if found else ""


def _number(pattern: str, text: str) -> float:
    """A finite number after what `pattern` says."""
    found = re.search(rf"{pattern} *(-?\d+(?:\.\d+)?)", text, re.MULTILINE)
    if found is None:
        raise MeasurementError(f"the tool printed nothing like {pattern!r} with a number{last_lines(text)}")
    return float(found[1])


def last_lines(text: str) -> str:
    """For an error: the last lines that are not empty."""
    lines = [line for line in text.splitlines() if line.strip()][-TAIL:]
    return "".join(f"\n    | {line}" for line in lines)
