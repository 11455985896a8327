"""The measuring process: `python -m suite.run.worker JOB.json`. One job in, one record out, then it ends.

Progress goes as JSON lines to the file descriptor in QUANTGATE_PROGRESS_FD; whatever libraries print goes to
the log that the parent made of stdout and stderr.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from suite import measure
from suite.errors import QuantgateError
from suite.files import write_atomic
from suite.records import Job, Measurement, Preparation
from suite.run.environment import describe
from suite.run.session import Session

_last = 0.0


def main(arguments: Sequence[str]) -> int:
    """Run the job named on the command line; exit status 1 with the error as last line of the log."""
    _end_with_parent()
    raw = json.loads(Path(arguments[0]).read_bytes())
    try:
        if raw["kind"] == "prepare":
            prepare(Preparation.model_validate(raw))
        else:
            run(Job.model_validate(raw))
    except QuantgateError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        traceback.print_exc()
        print("out of memory", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def run(job: Job) -> None:
    """Measure one cell; the record is complete only when every requested metric is in it."""
    begin = time.perf_counter()
    session = Session(job, report)
    phases: dict[str, float] = {}
    report("start", 0, 1)
    backend = importlib.import_module(f"suite.backends.{job.backend}")
    phases["import"] = time.perf_counter() - begin
    session.progress(0, 1)
    session.load(backend.load)
    phases["load"] = session.load_seconds
    groups = list(dict.fromkeys(r.split("/")[0] for r in job.requests))
    metrics = {}
    for group in sorted(groups, key=_order):
        mark = time.perf_counter()
        session.phase = group
        session.progress(0, 1)
        parts = [r.split("/", 1)[1] for r in job.requests if r.startswith(f"{group}/")]
        metrics.update(importlib.import_module(f"suite.measure.{group}").measure(session, parts))
        phases[group] = time.perf_counter() - mark
    record = Measurement(
        cell=job.cell,
        tier=job.tier,
        fingerprint=job.fingerprint,
        run=job.run,
        requests=job.requests,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begin,
        environment={**describe(), "threads": job.threads, **session.backend.facts()},
        metrics=metrics,
        phases=phases,
        complete=True,
    )
    write_atomic(job.output, record.model_dump_json(indent=1).encode())


def prepare(job: Preparation) -> None:
    """Make a checkpoint or a workload in the cache."""
    module, function = job.maker.split(":")
    report(job.title, 0, 1)
    getattr(importlib.import_module(module), function)(job.output, report=report, **job.arguments)


def report(phase: str, done: float, total: float) -> None:
    """One progress line, at most ten a second but for the first of a phase."""
    global _last
    now = time.monotonic()
    fd = os.environ.get("QUANTGATE_PROGRESS_FD")
    if fd is None or (done > 0 and now - _last < 0.1):
        return
    _last = now
    line = json.dumps({"phase": phase, "done": done, "total": total}) + "\n"
    os.write(int(fd), line.encode())


def _end_with_parent() -> None:
    """Have the kernel end this process when the one that started it is gone, however that ended; see prctl(2)."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _order(group: str) -> tuple[int, str]:
    known = measure.ORDER
    return (known.index(group) if group in known else len(known), group)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
