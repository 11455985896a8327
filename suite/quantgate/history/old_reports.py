"""Read `report.json` of earlier runs, so that a history can have them."""

from __future__ import annotations

from pathlib import Path

import pydantic_core
from pydantic import ValidationError

from quantgate.errors import InputError
from quantgate.history.record import to_lines
from quantgate.records import Verdict
from quantgate.report import RunInfo
from quantgate.report.files import FORMAT


def read_report(path: Path) -> tuple[list[Verdict], RunInfo]:
    """Return the verdicts of a run and what its report says of it. path: `report.json`, or the folder that has it.
    Raises InputError naming the file."""
    path = path / "report.json" if path.is_dir() else path
    try:
        raw = pydantic_core.from_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a report.json that --report wrote") from None
    except ValueError:
        raise InputError(f"{path}: is not JSON; name a report.json that --report wrote") from None
    if not isinstance(raw, dict) or not {"info", "verdicts"} <= raw.keys():
        raise InputError(f"{path}: is not a report of quantgate; name a report.json that --report wrote")
    if isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise InputError(
            f"{path}: has format {raw['format']}, this quantgate reads {FORMAT}: use a newer one"
        )
    try:
        info = RunInfo.model_validate(raw["info"])
        verdicts = [Verdict.model_validate(verdict) for verdict in raw["verdicts"]]
    except (ValidationError, TypeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: is not a report of quantgate: {first}") from None
    if info.against:
        raise InputError(f"{path}: is of an A/B run, which does not belong in a history: leave it out")
    if not verdicts:
        raise InputError(f"{path}: nothing was judged in its run: leave it out")
    if not info.created:
        raise InputError(
            f"{path}: does not say when its run ended, as it is older than the history: leave it out"
        )
    try:
        to_lines(verdicts, info)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return verdicts, info
