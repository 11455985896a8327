"""Measure one cell in one process of one environment."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantgate.backends.spec import backends
from quantgate.cache.kept import intact
from quantgate.config.matrix import NO_WORK, Cell, Matrix, Tier
from quantgate.errors import MeasurementError, ProcessError
from quantgate.files import hash_of, writable
from quantgate.jobs import Job, Spent
from quantgate.machine.environment import WORKER, Facts, work_facts
from quantgate.measure.groups import group_name, group_of, reading_reference
from quantgate.processes.isolate import Assignment, run_together, write_job
from quantgate.processes.progress import OnProgress, ignore_progress
from quantgate.processes.server import Server
from quantgate.records import Measurement, Metric, Record
from quantgate.run.plan import lacking
from quantgate.run.process import Process, file_error, prefix_errors, sibling
from quantgate.supply.supply import Supply

KEPT = 3
"""Servers kept for the next cell: each holds what it has imported, 0.3 to 0.5 GB with torch."""


@dataclass(eq=False)
class Bench:
    """Starts measuring processes. Methods raise QuantgateError saying why there is no measurement. `close` ends the
    servers that fork them.

    results: the folder for records and logs. run_id: of this run, which each record names. worker: command of the
    measuring process: another interpreter is another environment. place: that environment in words; its errors begin
    with it.
    """

    matrix: Matrix
    tier: Tier
    tier_name: str
    supply: Supply
    threads: int
    results: Path
    run_id: str
    worker: Sequence[str] = WORKER
    place: str = ""
    elsewhere: Sequence[Facts] = ()
    """Of the machines that measure in place of this one (`work_facts`); empty: this one measures."""
    spent: list[Spent] = field(default_factory=list)
    """The wall time of each process, in their order."""
    settled: dict[str, Mapping[str, Record]] = field(default_factory=dict)
    """By cell, options of metric groups that are not those of the tier: they have what the tier leaves open."""
    _servers: dict[str, Server] = field(default_factory=dict)
    """By the name of the process that they fork: those of one cell have different names and different servers."""

    def run(
        self,
        cell: Cell,
        requests: Sequence[str],
        name: str = "",
        on_progress: OnProgress = ignore_progress,
        following: Sequence[str] = (),
    ) -> Measurement:
        """Measure `requests` in one process and return its record; its log is named after the cell and `name`.

        following: names of further processes of the cell; what their servers import is imported now, side by side.
        """
        [record] = run_beside([(self, name)], cell, requests, on_progress, following)
        return record

    @contextmanager
    def process(
        self,
        cell: Cell,
        requests: Sequence[str],
        name: str,
        number: int,
        count: int,
        following: Sequence[str],
    ) -> Iterator[Process]:
        """Prepare process `number` of `count` that live at the same time; its files are there while the block runs."""
        begin = time.monotonic()
        log = self.file(cell, name).with_suffix(".log")
        output = sibling(log, "part")
        process: Process | None = None
        try:
            output.unlink(missing_ok=True)  # a killed process may have left one
            with prefix_errors(self.place):
                job = self.job(cell, requests, output, first=number == 0)
            modules, server = self.modules(cell), self.server(name)
            if following and modules:
                self._load(cell, modules, [name, *following])
            file = write_job(job.model_dump_json(indent=1), log)
            process = Process(job, Assignment(server, file, log, modules=modules, place=self.place))
            yield process
        except OSError as error:
            raise file_error(error) from error
        finally:
            output.unlink(missing_ok=True)
            self._keep(KEPT)
            seconds = (time.monotonic() - begin) / count  # they take turns: share the time
            spent = Spent(cell=cell.id, seconds=seconds, phases={}, forward={})
            if process and (record := process.record):
                phases = {"prepare": process.job.requested - begin, **record.phases}
                spent = spent.model_copy(update={"phases": phases, "forward": record.forward})
            self.spent.append(spent)

    def job(self, cell: Cell, requests: Sequence[str], output: Path, *, first: bool = True) -> Job:
        """Return what a measuring process is given; its checkpoint and its workload are made if they are missing."""
        return Job(
            cell=cell.id,
            tier=self.tier_name,
            fingerprint=self.fingerprint(cell),
            run=self.run_id,
            backend=cell.backend,
            weights=self.supply.checkpoint(cell),
            scheme_options=self.supply.scheme_options(cell),
            source_hash=self.supply.source_hash(cell.model),
            under_test=self.supply.under_test(cell),
            conditions=self.supply.conditions(cell),
            workload=self.supply.workload(cell.model),
            requests=list(requests),
            group_options=self._group_options(cell),
            threads=self.threads,
            first=first,
            reference=cell.reference,
            left=self.left(cell, requests),
            output=output,
        )

    def server(self, name: str = "") -> Server:
        """Return what forks the process of this name of each cell."""
        return self._servers.setdefault(name, Server(self.worker, self.threads))

    def _load(self, cell: Cell, modules: Sequence[str], names: Sequence[str]) -> None:
        """Have the servers that are kept import their modules now: it takes seconds, and must not run during a
        measurement."""
        servers = {n: self.server(n) for n in names if n in self._servers or len(self._servers) < KEPT}
        for name, server in servers.items():
            server.load(modules, self.file(cell, name).with_suffix(".log"))
        for server in servers.values():
            server.wait(self.tier.time_limit)

    def close(self) -> None:
        """End the servers."""
        self._keep(0)

    def _keep(self, count: int) -> None:
        """End all servers but the first `count`."""
        for name in list(self._servers)[count:]:
            self._servers.pop(name).close()

    def modules(self, cell: Cell) -> list[str]:
        """Return what a server imports before it forks a process of the cell. Where the reference's backend loads the
        same checkpoints it comes first, so that the reference's server goes on with the cell."""
        # CUDA cannot be used in a fork of a process that has looked for a device.
        if cell.scheme_options.get("device") == "cuda":
            return []
        reference = self.reference(cell)
        names = (
            [reference.backend, cell.backend] if reference.checkpoint == cell.checkpoint else [cell.backend]
        )
        imports = dict.fromkeys(module for name in names for module in backends()[name].imports)
        return [*imports, *(group_of(group).measure.__module__ for group in self.tier.group_options)]

    def reference(self, cell: Cell) -> Cell:
        """Return the reference of a cell."""
        return self.matrix.cell(cell.reference)

    def missing(self, cell: Cell, requests: Sequence[str]) -> dict[str, str]:
        """Return why requests cannot be measured whose texts or tasks the cell's workload lacks."""
        with prefix_errors(self.place):
            missing = self.supply.missing(cell.model)
        reasons = {request: lacking(request, self.tier.group_options, missing) for request in requests}
        return {request: why for request, why in reasons.items() if why}

    def empty(self, cell: Cell) -> Measurement:
        """Return the record of a cell of which nothing can be measured."""
        return Measurement(
            cell=cell.id,
            tier=self.tier_name,
            fingerprint=self.fingerprint(cell),
            run=self.run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            complete=True,
        )

    def lacks_reference(self, cell: Cell, requests: Sequence[str]) -> bool:
        """Return whether the requests need what the reference has yet to leave."""
        paths = self.left(cell, requests).values()
        return cell.id != cell.reference and not all(map(intact, paths))

    def left(self, cell: Cell, requests: Sequence[str]) -> dict[str, Path]:
        """Return, by metric group, where the cell's reference leaves what the requests need."""
        reference = self.reference(cell)
        paths = {
            group: self.supply.left(reference, group, _dumped(self.tier.group_options[group]), self.worker)
            for group in dict.fromkeys(map(group_name, reading_reference(requests)))
        }
        # Where the cache is read-only, beside the results.
        return {
            group: path if writable(path.parent) else self.results / path.parent.name / path.name
            for group, path in paths.items()
        }

    def settle(self, cell: str, metrics: Mapping[str, Metric]) -> None:
        """From now on, measure a cell with the options that these metrics were measured with, where the tier leaves
        them open."""
        if cell not in self.settled:
            options = self.tier.group_options
            self.settled[cell] = {g: group_of(g).as_measured(o, metrics) for g, o in options.items()}

    def _group_options(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Return the options of metric groups as the measuring process takes them."""
        options = self.settled.get(cell.id, self.tier.group_options)
        return {group: _dumped(one) for group, one in options.items()}

    def file(self, cell: Cell, name: str = "") -> Path:
        """Return the path of the cell's record; `name` tells several records of a cell apart."""
        folder = self.results / self.tier_name / cell.model / cell.backend
        path = folder / f"{cell.scheme}.json"
        return sibling(path, name) if name else path

    def stands(self, record: Measurement, cell: Cell, requests: Sequence[str]) -> bool:
        """Return whether a record can stand for a new one of these requests."""
        if (record.cell, record.tier, record.complete) != (cell.id, self.tier_name, True):
            return False
        fingerprints = (self.fingerprint(cell, facts) for facts in self.elsewhere or (None,))
        return record.fingerprint in fingerprints and set(requests) <= set(record.requests)

    def fingerprint(self, cell: Cell, facts: Facts | None = None) -> str:
        """Return a hash that is equal for equal work: cell, workload, libraries, variables, code that measures,
        threads, machine. facts: of another machine (`work_facts`)."""
        further = backends()[cell.backend].parsed(cell.scheme_options).further_libraries()
        return hash_of(
            [
                cell.model_dump(exclude=NO_WORK),
                self.supply.workload_hash(cell.model),
                self._group_options(cell),
                facts or work_facts(self.supply.environment.libraries),
                self.threads,
                *self.supply.identity(cell),
                *([further] if further else []),
            ]
        )


def run_beside(
    benches: Sequence[tuple[Bench, str]],
    cell: Cell,
    requests: Sequence[str],
    on_progress: OnProgress = ignore_progress,
    following: Sequence[str] = (),
) -> list[Measurement]:
    """Run one process of each bench and return their records. Each log is named after the cell and the name beside the
    bench. Two processes live at the same time and work in turns; the first begins each turn and reports progress.

    following: as in `Bench.run`.
    """
    with ExitStack() as stack:
        processes = [
            stack.enter_context(bench.process(cell, requests, name, number, len(benches), following))
            for number, (bench, name) in enumerate(benches)
        ]
        first, *others = (one.task for one in processes)
        limit = math.fsum(bench.tier.time_limit for bench, _ in benches)
        try:
            run_together([replace(first, on_progress=on_progress), *others], timeout=limit)
        except ProcessError as error:
            raise MeasurementError(str(error)) from error
        return [one.read() for one in processes]


def _dumped(options: Record) -> dict[str, Any]:
    """Return what was written, without defaults."""
    return options.model_dump(mode="json", exclude_unset=True)
