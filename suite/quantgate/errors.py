"""The errors a user can meet, each of which says what to do."""

from __future__ import annotations

import traceback
from pathlib import Path


class QuantgateError(Exception):
    """Base of every error that this suite raises on purpose; its text is meant for the user."""


class InputError(QuantgateError):
    """The user's input (a file, an option) is wrong: file, key and remedy are in the text.

    Reported by pytest as a usage error (exit status 4).
    """


class AssetError(QuantgateError):
    """A model or data set could not be had, or is not what it should be."""


class MeasurementError(QuantgateError):
    """A cell could not be measured: crash, time-out, non-finite logits, missing kernel."""


class ProcessError(QuantgateError):
    """A process did not do its job: it crashed, was killed, or took too long."""


class UnmeasurableError(MeasurementError):
    """This machine lacks what one metric group needs; the cell's other groups are measured."""


def unexpected(error: Exception) -> MeasurementError:
    """What quantgate did not foresee: what it is, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return MeasurementError(f"quantgate itself failed: {type(error).__name__}{where}: {error}")


def in_one_line(error: BaseException) -> str:
    """What an error says, on one line; of one that is not of this suite with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, QuantgateError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
