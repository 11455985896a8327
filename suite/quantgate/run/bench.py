"""Measures one cell in one process of one environment."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from quantgate.cache.kept import intact
from quantgate.config.matrix import Cell, Matrix, Tier
from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.files import hash_of, writable
from quantgate.machine.environment import work_facts
from quantgate.measure.groups import group_of, with_logprobs
from quantgate.paths import cache_dir
from quantgate.processes.isolate import WORKER, OnProgress, Server, Task, run_together, unheard
from quantgate.records import Job, Measurement, Metric, Record, Spent
from quantgate.run.plan import lacking
from quantgate.supply.supply import Supply

T = TypeVar("T")

KEPT = 3
"""Servers that stay for the next cell: each holds what it has imported, 0.3 GB where that is torch."""


@dataclass(frozen=True)
class Settings:
    """What of the command line bears on measuring."""

    tier_name: str
    threads: int
    results: Path
    reuse: bool
    run: str
    worker: Sequence[str] = WORKER
    """Command of the measuring process: another interpreter, another environment."""
    place: str = ""
    """Where that is, in words; the beginning of its errors."""


class Bench:
    """Starts measuring processes. Methods raise QuantgateError saying why there is no measurement. `close` ends what it
    has started."""

    def __init__(self, matrix: Matrix, tier: Tier, settings: Settings, supply: Supply) -> None:
        self._matrix = matrix
        self._tier = tier
        self._settings = settings
        self._supply = supply
        self._settled: dict[str, dict[str, Record]] = {}
        """By cell: the group options with what the tier leaves open, as the other side was measured."""
        self._servers: dict[str, Server] = {}
        """By the name of what they fork: processes of one cell have different names, and so come from different
        servers."""
        self.spent: list[Spent] = []
        """Of each process, in their order."""

    def run(
        self,
        cell: Cell,
        requests: Sequence[str],
        name: str = "",
        on_progress: OnProgress = unheard,
        following: Sequence[str] = (),
    ) -> Measurement:
        """The record of one process that was asked for `requests`; its log is named after the cell and `name`.

        following: names of further processes of the cell; what their servers import is imported now, side by side.
        """
        [record] = measured([(self, name)], cell, requests, on_progress, following)
        return record

    @contextmanager
    def asked(
        self,
        cell: Cell,
        requests: Sequence[str],
        name: str,
        number: int,
        count: int,
        following: Sequence[str],
    ) -> Iterator[Asked]:
        """What process `number` of `count` that live at the same time is to be asked for while the block runs."""
        begin = time.monotonic()
        log = self.file(cell, name).with_suffix(".log")
        output = sibling(log, "part")
        asked: Asked | None = None
        try:
            output.unlink(missing_ok=True)  # what a killed process has left is not this one's
            with _told(self._settings.place):
                job = Job(
                    cell=cell.id,
                    tier=self._settings.tier_name,
                    fingerprint=self.fingerprint(cell),
                    run=self._settings.run,
                    backend=cell.backend,
                    scheme_options=cell.scheme_options,
                    weights=self._supply.checkpoint(cell),
                    source_hash=self._supply.source_hash(cell.model),
                    workload=self._supply.workload(cell.model),
                    requests=list(requests),
                    group_options=self._group_options(cell),
                    threads=self._settings.threads,
                    first=number == 0,
                    reference=cell.reference,
                    logprobs=self._logprobs(cell, requests),
                    output=output,
                )
            modules, server = self._modules(cell), self._server(name)
            if following and modules:
                self._load(cell, modules, [name, *following])
            task = Task(server, job, log, modules=modules, place=self._settings.place)
            asked = Asked(job, task, self._tier.time_limit)
            yield asked
        except OSError as error:
            raise in_words(error) from error
        finally:
            output.unlink(missing_ok=True)
            self._keep(KEPT)
            seconds = (time.monotonic() - begin) / count  # they take turns: the time is that of all
            phases: dict[str, float] = {}
            forward: dict[str, float] = {}
            if asked and (record := asked.record):
                phases, forward = {"prepare": asked.job.requested - begin, **record.phases}, record.forward
            self.spent.append(Spent(cell=cell.id, seconds=seconds, phases=phases, forward=forward))

    def _server(self, name: str) -> Server:
        return self._servers.setdefault(name, Server(self._settings.worker, self._settings.threads))

    def _load(self, cell: Cell, modules: Sequence[str], names: Sequence[str]) -> None:
        """Have the servers that stay import what they need: it takes seconds, in which nothing is to be measured."""
        servers = {
            name: self._server(name) for name in names if name in self._servers or len(self._servers) < KEPT
        }
        for name, server in servers.items():
            server.load(modules, self.file(cell, name).with_suffix(".log"))
        for server in servers.values():
            server.wait(self._tier.time_limit)

    def close(self) -> None:
        """End the servers."""
        self._keep(0)

    def _keep(self, count: int) -> None:
        """End all servers but the first ones."""
        for name in list(self._servers)[count:]:
            self._servers.pop(name).close()

    def _modules(self, cell: Cell) -> list[str]:
        """What a server imports before it forks a process of the cell. A backend that loads the checkpoints of its
        reference's builds on that one: it is named first, so that the reference's server goes on with the cell."""
        # CUDA cannot be used in a fork of a process that has looked for a device.
        if cell.scheme_options.get("device") == "cuda":
            return []
        reference = self.reference(cell)
        related = reference.checkpoint == cell.checkpoint
        backends = dict.fromkeys([*([reference.backend] if related else []), cell.backend])
        return [f"quantgate.backends.{b}" for b in backends] + [
            group_of(g).module for g in self._tier.group_options
        ]

    def reference(self, cell: Cell) -> Cell:
        """The cell that this one is held against."""
        return self._matrix.cell(cell.reference)

    def lacking(self, cell: Cell, request: str) -> str:
        """Why the cell's workload does not have what a request takes; empty where it has."""
        return lacking(request, self._tier.group_options, self._supply.missing(cell.model))

    def possible(self, cell: Cell, requests: Sequence[str]) -> list[str]:
        """Those whose texts and tasks can be had. Raises MeasurementError where that is none of them."""
        with _told(self._settings.place):
            reasons = {request: self.lacking(cell, request) for request in requests}
            found = [request for request, why in reasons.items() if not why]
            if requests and not found:
                raise MeasurementError(next(iter(reasons.values())))
        return found

    def lacks_reference(self, cell: Cell, requests: Sequence[str]) -> bool:
        """Whether the requests need log-probabilities that the reference's process has yet to leave."""
        path = self._logprobs(cell, requests)
        return path is not None and cell.id != cell.reference and not intact(path)

    def _logprobs(self, cell: Cell, requests: Sequence[str]) -> Path | None:
        groups = with_logprobs(requests)
        if not groups:
            return None
        options = [_dumped(self._tier.group_options[group]) for group in groups]
        path = self._supply.logprobs(self.reference(cell), options, self._settings.worker)
        if writable(path.parent):
            return path
        return self._settings.results / path.parent.name / path.name  # a cache that is only read

    def settle(self, cell: str, metrics: Mapping[str, Metric]) -> None:
        """Measure a cell, from now on, with what the tier leaves open as these metrics were measured."""
        if cell not in self._settled:
            options = self._tier.group_options
            self._settled[cell] = {g: group_of(g).as_measured(o, metrics) for g, o in options.items()}

    def _group_options(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """As they go to the measuring process."""
        options = self._settled.get(cell.id, self._tier.group_options)
        return {group: _dumped(one) for group, one in options.items()}

    def file(self, cell: Cell, name: str = "") -> Path:
        """Where the record of a cell goes; `name` tells several records of a cell apart."""
        folder = self._settings.results / self._settings.tier_name / cell.model / cell.backend
        path = folder / f"{cell.scheme}.json"
        return sibling(path, name) if name else path

    def differs(self, record: Measurement, cell: Cell, requests: Sequence[str]) -> str:
        """In what a record is not one of all these requests to this cell; empty: it is."""
        if not record.complete:
            return "is not complete"
        wanted = {"cell": cell.id, "tier": self._settings.tier_name, "fingerprint": self.fingerprint(cell)}
        for key, expected in wanted.items():
            if (found := getattr(record, key)) != expected:
                return f"is of {key} {found!r}, not {expected!r}"
        missing = [request for request in requests if request not in record.requests]
        return f"lacks {', '.join(missing)}" if missing else ""

    def fingerprint(self, cell: Cell) -> str:
        """Equal for equal work: cell, workload, libraries, variables, code that measures, threads, machine."""
        return hash_of(
            [
                cell.model_dump(),
                self._supply.workload_hash(cell.model),
                self._group_options(cell),
                work_facts(self._supply.environment.libraries),
                self._settings.threads,
                *self._supply.calibration(cell),
            ]
        )


@dataclass
class Asked:
    """A process that is asked for. limit: seconds that it may take. record: what it has left."""

    job: Job
    task: Task
    limit: float
    record: Measurement | None = None

    def read(self) -> Measurement:
        """Read the record. Raises MeasurementError, also where it is not of this process's job."""
        with _told(self.task.place):
            record = read_measurement(self.job.output)
            for key in ("run", "cell", "tier", "fingerprint", "requests"):
                found, expected = getattr(record, key), getattr(self.job, key)
                if found != expected:
                    raise MeasurementError(
                        f"{self.job.output}: is not the record of this process: its {key} is {found!r}, not "
                        f"{expected!r}; does another run write to {self.job.output.parent}?"
                    )
            if not record.complete:
                raise MeasurementError(f"{self.job.output}: is not complete")
        self.record = record
        return record


def measured(
    benches: Sequence[tuple[Bench, str]],
    cell: Cell,
    requests: Sequence[str],
    on_progress: OnProgress = unheard,
    following: Sequence[str] = (),
) -> list[Measurement]:
    """The records of one process of each bench, whose log is named after the cell and the name given with it. Two
    processes live at the same time and work in turns; the first begins each, and tells how far they are.

    following: as in `Bench.run`.
    """
    with ExitStack() as stack:
        asked = [
            stack.enter_context(bench.asked(cell, requests, name, number, len(benches), following))
            for number, (bench, name) in enumerate(benches)
        ]
        first, *others = (one.task for one in asked)
        limit = math.fsum(one.limit for one in asked)
        run_together([replace(first, on_progress=on_progress), *others], timeout=limit)
        return [one.read() for one in asked]


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Errors begin with where they happened."""
    try:
        yield
    except QuantgateError as error:
        if not place:
            raise
        raise MeasurementError(f"{place}{error}") from error


def remembered(done: dict[str, T | QuantgateError], cell: str, measure: Callable[[], T]) -> T:
    """What `measure` gives for a cell, kept in `done` from the first time on. Raises QuantgateError, the same one each
    time."""
    if cell not in done:
        try:
            done[cell] = measure()
        except QuantgateError as error:
            done[cell] = error
        except OSError as error:
            done[cell] = in_words(error)
        except Exception as error:
            done[cell] = unexpected(error)
    found = done[cell]
    if isinstance(found, QuantgateError):
        raise found
    return found


def sibling(path: Path, name: str) -> Path:
    """Another file of the same cell. `~` is in no scheme's name: process 2 of `Q4` is not scheme `Q4.2`."""
    return path.with_name(f"{path.stem}~{name}.json")


def read_measurement(path: Path) -> Measurement:
    """Read a record. Raises MeasurementError: missing, cut off, or of another format."""
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MeasurementError(f"{path}: the process ended well but left no measurement") from None
    except OSError as error:
        raise MeasurementError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise MeasurementError(
            f"{path}: is not a measurement of this version: {error.errors()[0]['msg']}"
        ) from None


def in_words(error: OSError) -> MeasurementError:
    """A folder that cannot be written, a disk that is full."""
    if error.errno is None or error.strerror is None:
        return unexpected(error)
    name = str(error.filename or "a file")
    # Of a cache that cannot be made, the error names the folder above it.
    cached = Path(name).is_relative_to(cache_dir()) or cache_dir().is_relative_to(name)
    where = "QUANTGATE_CACHE" if cached else "--results"
    remedy = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = f"; free some space there, or name another folder with {where}"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = f"; name a folder that can be written with {where}"
    return MeasurementError(f"{name}: {error.strerror}{remedy}")


def _dumped(options: Record) -> dict[str, Any]:
    """What was written, without defaults."""
    return options.model_dump(mode="json", exclude_unset=True)
