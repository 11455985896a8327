"""Run what the rows share: cells as a run of the gate measures them, other work in processes, within the time left."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from quantgate.backends.spec import backends
from quantgate.config.matrix import BackendEntry, Cell, Matrix, Model, Scheme, Tier
from quantgate.config.source import Source
from quantgate.errors import MeasurementError, ProcessError
from quantgate.files import hash_of
from quantgate.jobs import Preparation
from quantgate.measure.groups import parse_options
from quantgate.processes.isolate import Assignment, run_together, write_job
from quantgate.processes.progress import OnProgress
from quantgate.proofs.cuda.config import Config, Device, Setting
from quantgate.proofs.cuda.prepare import MADE
from quantgate.records import Measurement, Record
from quantgate.run.bench import Bench
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import needs_of
from quantgate.supply.supply import Supply

GGUF = "qwen3-pocket"
"""The model of matrix.toml that names a GGUF, llamacpp/Q4_K_M."""
LEAST = 15.0
"""Seconds that have to be left for a process to be started."""
_ABSENT = re.compile(
    r"(?:ModuleNotFound|Import)Error(?: in \S+)?: (.*)|(this llama-cpp-python was built without CUDA)"
)

T = TypeVar("T")


class NotTriedError(Exception):
    """Why a row cannot be tried here."""


class NoTimeError(NotTriedError):
    """The time of a row, or of all rows, is over: what it needed may be tried in the next one."""


class PreparedSupply(Supply):
    """Gives each model the workload that `prepare` has made."""

    def __init__(
        self, matrix: Matrix, tier: Tier, threads: int, logs: Path, folder: Callable[[], Path]
    ) -> None:
        needs = needs_of(tier.group_options).model_copy(update={"texts": {}, "tasks": {}})
        super().__init__(matrix, tier, threads, logs, lambda *_: None, None, needs)
        self._folder = folder

    def workload(self, model: str) -> Path:
        return self._folder() / "workloads" / model

    def workload_hash(self, model: str) -> str:
        return hash_of([(f.name, f.read_text()) for f in sorted(self.workload(model).iterdir())])


@dataclass
class Bed:
    """State of one run. work: a folder for the models, which take gigabytes; results: for records and logs.
    facts: versions and kernels that the cells of the device report."""

    config: Config
    device: Device
    threads: int
    work: Path
    results: Path
    say: OnProgress
    facts: dict[str, Any] = field(default_factory=dict)
    _end: float = 0.0
    _row_end: float = 0.0
    _once: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.setting.seconds
        self.bench = self._new_bench()

    def close(self) -> None:
        """End the processes that are left."""
        self.bench.close()

    @property
    def setting(self) -> Setting:
        return self.config.setting(self.device)

    # --- time

    def begin_row(self) -> None:
        """Give the next row its time. Raises NoTimeError where none is left."""
        self._row_end = min(self._end, time.monotonic() + self.setting.part)
        self.left()

    def left(self) -> float:
        """Return the seconds that the next process may take. Raises NoTimeError where they are too few."""
        seconds = self._row_end - time.monotonic()
        if seconds < LEAST:
            raise NoTimeError(
                f"no time is left of {self.setting.seconds} s for all rows and {self.setting.part} s for one"
            )
        return seconds

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return the result of `make`, which runs once for each key; what it raises is raised again."""
        if key not in self._once:
            try:
                self._once[key] = make()
            except NoTimeError:
                raise
            except (MeasurementError, NotTriedError) as error:
                self._once[key] = error
        if isinstance(self._once[key], Exception):
            raise self._once[key]
        result: T = self._once[key]
        return result

    # --- cells

    def _new_bench(self) -> Bench:
        options = parse_options(self.setting.tier)
        tier = Tier(time_limit=self.setting.part, cells=[], group_options=options)
        matrix = self._matrix()
        supply = PreparedSupply(matrix, tier, self.threads, self.results / "logs", lambda: self.prepared)
        return Bench(matrix, tier, "cuda", supply, self.threads, self.results, uuid.uuid4().hex)

    def _matrix(self) -> Matrix:
        """Return the shipped matrix with the models and schemes of the check, which are held against the CPU's fp32."""
        shipped = load_matrix()
        models = dict(shipped.models)
        checkpoints = models[GGUF].checkpoints
        files = {**checkpoints, f"llamacpp/{self.setting.prefix}Q4_K_M": checkpoints["llamacpp/Q4_K_M"]}
        models[GGUF] = models[GGUF].model_copy(update={"checkpoints": files})
        for name in self.setting.models:
            path = str(self.work / "made" / "models" / name)
            models[name] = Model(license="none: random weights", weights=Source(path=path))
        entries = {
            name: entry.model_copy(update={"schemes": self._schemes(name, entry)})
            for name, entry in shipped.backends.items()
        }
        return shipped.model_copy(update={"models": models, "backends": entries})

    def _schemes(self, backend: str, entry: BackendEntry) -> dict[str, Scheme]:
        added = self.setting.schemes.get(backend, {})
        schemes = {**entry.schemes, **{name: Scheme.model_validate(one) for name, one in added.items()}}
        ours = {
            name: scheme.model_copy(update={"reference": entry.reference})
            for name, scheme in schemes.items()
            if name.startswith(self.setting.prefix)
        }
        return {**schemes, **ours}

    def cell(self, model: str, scheme: str, backend: str = "transformers") -> Cell:
        """Return a cell of the device. scheme: without the prefix."""
        return self.bench.matrix.cell(f"{model}/{backend}/{self.setting.prefix}{scheme}")

    def cell_of_cpu(self, model: str, name: str) -> Cell:
        """Return the cell `backend/scheme` of a model."""
        return self.bench.matrix.cell(f"{model}/{name}")

    def check(self, cell: Cell) -> None:
        """Raise NotTriedError where the cell's libraries are not installed, or its model could not be made."""
        if reason := backends()[cell.backend].missing(cell.scheme_options):
            raise NotTriedError(reason)
        if reason := json.loads((self.prepared / MADE).read_text()).get(cell.model, ""):
            raise NotTriedError(f"{cell.model} could not be made: {reason}")

    def measure(self, cell: Cell, requests: Sequence[str], run: str = "") -> Measurement:
        """Measure a cell in a process of the gate, once for each `run`. Raises MeasurementError, NotTriedError."""
        return self.once(f"{cell.id} {requests} {run}", lambda: self._measure(cell, requests))

    def _measure(self, cell: Cell, requests: Sequence[str]) -> Measurement:
        self.check(cell)
        self.bench.tier = self.bench.tier.model_copy(update={"time_limit": self.left()})
        try:
            record = self.bench.run(cell, list(requests))
        except MeasurementError as error:
            raise reason_of(error) from error
        if cell.scheme_options.get("device") == self.device and cell.backend == "transformers":
            self.facts.update({key: record.environment.get(key) for key in FACTS})
        return record

    def measure_with(self, cell: Cell, requests: Sequence[str], options: Mapping[str, Record]) -> Measurement:
        """Measure a cell with other options of its metric groups."""
        self.bench.settled[cell.id] = {**self.bench.tier.group_options, **options}
        try:
            return self._measure(cell, requests)
        finally:
            del self.bench.settled[cell.id]

    @property
    def server_process(self) -> int:
        """The process that forked the last cell."""
        [server] = self.bench._servers.values()
        assert server._process is not None
        return server._process.pid

    # --- other processes

    @cached_property
    def prepared(self) -> Path:
        """The folder with models and workloads, made on first use."""
        output = self.work / "made"
        shipped = self.bench.matrix
        places = {name: shipped.models[name].weights for name in self.config.pocket}
        folders = {name: str(place.beside(shipped.path)) for name, place in places.items() if place}
        self.run(
            "quantgate.proofs.cuda.prepare:prepare",
            output,
            device=self.device,
            tokens=self.config.text_tokens,
            items=self.config.items,
            folders=folders,
            models=self.setting.models,
            tokenizer=folders[self.config.pocket[0]],
        )
        return output

    def run(self, maker: str, output: Path, **arguments: Any) -> None:
        """Call a function, `module:function`, in a process of its own, which may use the device. Raises
        MeasurementError, NotTriedError."""
        job = Preparation(title=maker, maker=maker, arguments=arguments, output=output)
        log = self.results / "logs" / f"{output.stem}.log"
        server = self.bench.server()
        # As Bench.modules: what has looked for a device is not forked. Without one, the cells' server goes on as it is.
        modules = (
            [] if self.device == "cuda" else sorted({*backends()["transformers"].imports, *server.imported})
        )
        task = Assignment(server, write_job(job.model_dump_json(indent=1), log), log, self.say, modules)
        try:
            run_together([task], timeout=self.left())
        except ProcessError as error:
            raise reason_of(MeasurementError(str(error))) from error

    def values(self, name: str, maker: str, **arguments: Any) -> Any:
        """Return what a function has written as JSON in a process of its own, once for each name."""

        def make() -> Any:
            output = self.results / f"{name}.json"
            output.unlink(missing_ok=True)
            self.run(maker, output, **arguments)
            return json.loads(output.read_text())

        return self.once(name, make)

    def job(self, cell: Cell, requests: Sequence[str]) -> dict[str, Any]:
        """Return the job of a cell, for a function that measures it by itself."""
        self.check(cell)
        job = self.bench.job(cell, list(requests), self.results / "none.json")
        return job.model_dump(mode="json")


FACTS = ("kernels", "cuda driver", "cudnn", "torch", "transformers", "bitsandbytes", "torchao", "python")


def installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def reason_of(error: MeasurementError) -> Exception:
    """Return what to raise for an error of a process: a module that is not there is no failure of the suite."""
    match = _ABSENT.search(str(error))
    return NotTriedError((match[1] or match[2]).split(" (the process")[0]) if match else error
