"""The measuring process: `python -m quantgate.measure.worker JOB.json`. One job in, one record out, then it ends.

As a server (`--serve DESCRIPTOR`, see `quantgate.processes.server`) it forks itself for each job. Progress goes as
messages of JSON to the file descriptor in QUANTGATE_PROGRESS_FD; whatever libraries print goes to the log that the
parent made of stdout and stderr.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, ValidationError

from quantgate.config.sentences import mistakes
from quantgate.discovery import import_all
from quantgate.errors import AssetError, InputError, QuantgateError, place_of, with_place
from quantgate.jobs import Job, Preparation
from quantgate.machine.environment import describe
from quantgate.measure.session import measure_cell
from quantgate.processes.ends import CAUSE, REFUSAL
from quantgate.processes.fork import serve
from quantgate.processes.progress import report
from quantgate.processes.warden import end_with_parent
from quantgate.records import Metric


def main(arguments: Sequence[str]) -> int:
    """Do the job named on the command line, or those that come. On an error, the last line of the log says which."""
    end_with_parent()
    try:
        serving = arguments[0] == "--serve"
        file = serve(int(arguments[1]), first=_begin) if serving else Path(arguments[0])
        if file:
            work(file)
    except Exception as error:
        if not isinstance(error, QuantgateError):
            traceback.print_exc()
        cause = _cause(error)
        begin = REFUSAL if isinstance(error, AssetError | InputError) else CAUSE
        print(f"{begin}{cause}", file=sys.stderr)
        return 1
    return 0


def _begin() -> None:
    """Do once what each cell needs; what makes checkpoints and workloads needs nothing of it."""
    describe()
    # Without what other distributions add: an import of theirs may begin threads, which are not forked.
    import_all("quantgate.backends")
    import_all("quantgate.measure.metrics")


def _cause(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, ValidationError):  # in words, of a metric that is not a number above all
        model = Metric if error.title == Metric.__name__ else BaseModel
        return f"{place_of(error)}: " + "; ".join(f"{error.title}.{one}" for one in mistakes(error, model))
    return with_place(error)


def work(file: Path) -> None:
    """Measure a cell, or make a checkpoint or a workload in the cache."""
    raw = json.loads(file.read_bytes())
    if raw["kind"] == "measure":
        measure_cell(Job.model_validate(raw))
        return
    job = Preparation.model_validate(raw)
    module, function = job.maker.split(":")
    report(job.title, 0, 1)
    getattr(importlib.import_module(module), function)(job.output, report=report, **job.arguments)


def leave(status: int) -> NoReturn:
    """Run atexit handlers, flush, and end this process without the interpreter's teardown, which can take a second."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
