"""The errors that a user can meet. Each says what is wrong and what to do."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|_ALLOC_FAILED")
"""How torch, the CUDA runtime and its libraries say that memory ran out."""


_LIBRARIES = re.compile(
    r".*/site-packages/(pydantic|numpy|torch|transformers|accelerate|safetensors|bitsandbytes|llama_cpp)\b"
)
"""Files in which an error of whoever called them is raised."""


class QuantgateError(Exception):
    """Base of every error that this suite raises on purpose; its text is meant for the user."""


class InputError(QuantgateError):
    """The user's input (a file, an option) is wrong: file, key and remedy are in the text.

    Reported by pytest as a usage error (exit status 4).
    """


class AssetError(QuantgateError):
    """A model or data set cannot be fetched, or is not what it should be."""


class MeasurementError(QuantgateError):
    """A cell could not be measured: crash, time-out, non-finite logits, missing kernel."""


class ProcessError(QuantgateError):
    """A process did not do its job: it crashed, was killed, or took too long."""


class UnmeasurableError(MeasurementError):
    """This machine lacks what one metric group needs; the cell's other groups are measured."""


def unexpected(error: Exception) -> MeasurementError:
    """Wrap an error that quantgate does not expect."""
    return MeasurementError(f"quantgate itself failed: {with_place(error)}")


def in_one_line(error: BaseException) -> str:
    """Return an error's text on one line, with the type of an error that is not quantgate's."""
    text = " ".join(str(error).split())
    if isinstance(error, QuantgateError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def with_place(error: BaseException) -> str:
    """Return an error's text on one line, with the type, file and line of one that is not quantgate's."""
    text, place = in_one_line(error), place_of(error)
    if not place or isinstance(error, QuantgateError | SyntaxError):  # whose text says where
        return text
    kind = type(error).__name__
    return f"{kind} in {place}{text.removeprefix(kind)}"


def place_of(error: BaseException) -> str:
    """Return file and line that raised an error, or that called the library which did; empty: unknown."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_of_python(f.filename)]
    frames = [f for f in frames if not _LIBRARIES.match(f.filename)] or frames
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _is_of_python(file: str) -> bool:
    inside = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    return inside or file.startswith("<")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, of the machine or of an accelerator. What torch raises is a RuntimeError."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and says_out_of_memory(str(error))
    )


def says_out_of_memory(text: str) -> bool:
    """Return whether a line that a library wrote says that memory ran out."""
    return _NO_MEMORY.search(text) is not None
