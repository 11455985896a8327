"""The measuring process: `python -m quantgate.measure.worker JOB.json`. One job in, one record out, then it ends.

As a server (`--serve DESCRIPTOR`, see `quantgate.processes.server`) it forks itself for each job. Progress goes
as JSON lines to
the file descriptor in QUANTGATE_PROGRESS_FD; whatever libraries print goes to the log that the parent made of stdout
and stderr.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from quantgate.backends.registry import backends
from quantgate.errors import QuantgateError, UnmeasurableError, in_one_line
from quantgate.files import write_atomic
from quantgate.jobs import Job, Preparation
from quantgate.machine.environment import describe
from quantgate.measure.groups import group_name, group_of, in_order
from quantgate.measure.session import Session
from quantgate.processes.ends import CAUSE
from quantgate.processes.fork import serve
from quantgate.processes.progress import report
from quantgate.processes.turns import inherited
from quantgate.processes.warden import end_with_parent
from quantgate.records import Measurement, Metric


def main(arguments: Sequence[str]) -> int:
    """Run the job named on the command line, or those that come; exit status 1 with the error as last line of the
    log."""
    end_with_parent()
    try:
        if arguments[0] != "--serve":
            work(Path(arguments[0]))
        elif file := serve(int(arguments[1])):
            work(file)
    except QuantgateError as error:
        print(f"{CAUSE}{in_one_line(error)}", file=sys.stderr)
        return 1
    except MemoryError:
        traceback.print_exc()
        print(f"{CAUSE}out of memory", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"{CAUSE}{in_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End this process. What was promised for its end is done; libraries and the model are not taken to pieces object
    by object, which can take a second: the kernel takes them all at once."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(status)


def work(file: Path) -> None:
    """Do one job."""
    raw = json.loads(file.read_bytes())
    if raw["kind"] == "prepare":
        prepare(Preparation.model_validate(raw))
    else:
        run(Job.model_validate(raw))


def run(job: Job) -> None:
    """Measure one cell; the record is complete only when every requested metric is in it."""
    turns = inherited(job.first)
    session = Session(job, report, turns)
    backend = backends()[job.backend]

    def clock() -> float:
        """Monotonic, which is the same in all processes of a machine; it stands still in another process's turn."""
        return time.monotonic() - turns.waited

    def load() -> float:
        session.load(backend.load)
        return session.load_seconds

    turns.meet()
    begin = clock()
    phases = {"start": begin - job.requested}
    session.progress(0, 1)
    turns.take(load)
    phases["load"] = clock() - begin
    metrics = {}
    unmeasured = {}
    for group in in_order(map(group_name, job.requests)):
        mark = clock()
        session.phase, session.phase_note = group, ""
        session.progress(0, 1)
        parts = [r.split("/", 1)[1] for r in job.requests if r.startswith(f"{group}/")]
        try:
            metrics.update(group_of(group).measure(session, parts))
        except UnmeasurableError as error:
            unmeasured[group] = str(error)
        phases[group] = clock() - mark
    if job.as_is:
        metrics = {name: _with_condition(metric, "checkpoint", job.as_is) for name, metric in metrics.items()}
    record = Measurement(
        cell=job.cell,
        tier=job.tier,
        fingerprint=job.fingerprint,
        run=job.run,
        requests=job.requests,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=clock() - job.requested,
        environment={**describe(), "threads": job.threads, **session.backend.facts()},
        notes=session.notes,
        metrics=metrics,
        phases=phases,
        forward=session.forward,
        scoring=session.scoring,
        unmeasured=unmeasured,
        complete=True,
    )
    write_atomic(job.output, record.model_dump_json(indent=1).encode())


def _with_condition(metric: Metric, key: str, value: str) -> Metric:
    return metric.model_copy(update={"conditions": {**metric.conditions, key: value}})


def prepare(job: Preparation) -> None:
    """Make a checkpoint or a workload in the cache."""
    module, function = job.maker.split(":")
    report(job.title, 0, 1)
    getattr(importlib.import_module(module), function)(job.output, report=report, **job.arguments)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
