"""Run what the rows share: the suite's processes, those of the peers, and results that several rows use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from quantgate.config.matrix import Cell, Matrix, Tier
from quantgate.items import Questions, Task
from quantgate.jobs import Preparation
from quantgate.machine.environment import WORKER
from quantgate.measure.groups import parse_options
from quantgate.processes.progress import OnProgress
from quantgate.processes.server import Server
from quantgate.proofs.peers import build, harness, parse
from quantgate.proofs.peers.config import Config
from quantgate.proofs.peers.tools import ToolRun, Tools
from quantgate.records import Measurement
from quantgate.run.bench import Bench
from quantgate.run.plan import needs_of
from quantgate.supply.maker import run_preparation
from quantgate.supply.supply import Supply

REFERENCE = "transformers/fp32"
"""The cell that lm-eval's class runs."""

LM_EVAL = ("lm_eval.models.huggingface", "transformers.modeling_utils")
"""What the harness's processes import, once for all of them."""

TIER = "peers"
TIME_LIMIT = 3600.0
"""Limit of one process, seconds."""

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


class SuiteRun:
    """The suite's processes for one workload, started as a run of pytest starts them."""

    def __init__(self, bed: Bed, group_options: dict[str, dict[str, Any]], text: Path | None) -> None:
        options = parse_options(group_options)
        tier = Tier(time_limit=TIME_LIMIT, cells=[], group_options=options)
        self._matrix, self._model = bed.matrix, bed.config.model
        self._needs = needs_of(options)
        self.supply = Supply(bed.matrix, tier, bed.threads, bed.logs, lambda *_: None, text, self._needs)
        run_id = uuid.uuid4().hex
        self._bench = Bench(bed.matrix, tier, TIER, self.supply, bed.threads, bed.results, run_id)
        self.supply.check()

    def cell(self, name: str) -> Cell:
        """Return the cell `backend/scheme` of the model."""
        return self._matrix.cell(f"{self._model}/{name}")

    def checkpoint(self, name: str) -> Path:
        """Return the checkpoint that the cell loads, made where missing."""
        return self.supply.checkpoint(self.cell(name))

    @property
    def tasks(self) -> list[str]:
        """Names of the workload's tasks."""
        return list(self._needs.tasks)

    def questions(self, name: str) -> Questions:
        """Return the questions of a task as the cells are asked them."""
        folder = self.supply.workload(self._model)
        return Questions.model_validate_json((folder / f"questions-{name}.json").read_bytes())

    def tokens(self, text: str) -> int:
        """Return how many tokens of a text the workload uses."""
        return self._needs.texts[text]

    def task(self, name: str) -> Task:
        """Return a task as the cells score it."""
        folder = self.supply.workload(self._model)
        return Task.model_validate_json((folder / f"task-{name}.json").read_bytes())

    def measure(self, name: str, *requests: str) -> Measurement:
        """Measure a cell in its own process. Raises QuantgateError."""
        return self._bench.run(self.cell(name), requests)


@dataclass
class Pairs(Generic[A, B]):
    """Repeated measurements of both sides. pair: measures one pair; its argument is the number of earlier pairs."""

    pair: Callable[[int], tuple[A, B]]
    taken: list[tuple[A, B]] = field(default_factory=list)

    def take(self, count: int) -> tuple[list[A], list[B]]:
        """Return `count` or more values of each side, measuring those that are missing."""
        while len(self.taken) < count:
            self.taken.append(self.pair(len(self.taken)))
        return [ours for ours, _ in self.taken], [peer for _, peer in self.taken]


def one_after_the_other(ours: Callable[[], A], peer: Callable[[], B]) -> Callable[[int], tuple[A, B]]:
    """Return a function that measures a pair, and alternates which side goes first, so that a slow spell of the machine
    affects both."""

    def pair(number: int) -> tuple[A, B]:
        if number % 2 == 0:
            return ours(), peer()
        theirs = peer()
        return ours(), theirs

    return pair


@dataclass
class Bed:
    """State of one run.

    text: file that perplexity is measured on; None: the configuration's text. repeats: of timings. items: of each task;
    None: the configuration's. kernels: by side, the kernels that its processes reported.
    """

    config: Config
    matrix: Matrix
    threads: int
    repeats: int
    results: Path
    text: Path | None
    say: OnProgress
    items: int | None = None
    kernels: dict[str, set[str]] = field(default_factory=dict)
    _results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._server = Server(WORKER, self.threads)

    def close(self) -> None:
        """End the process that others were forked from."""
        self._server.close()

    @property
    def logs(self) -> Path:
        return self.results / "logs"

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return the result of `make`, which runs once for each key."""
        if key not in self._results:
            self._results[key] = make()
        result: T = self._results[key]
        return result

    def ours(self, text: Path | None = None, **workload: dict[str, Any]) -> SuiteRun:
        """Return the suite's processes for a workload: group options by metric group."""
        return self.once(f"{workload} {text}", lambda: SuiteRun(self, workload, text))

    def noted(self, record: Measurement) -> Measurement:
        """Return the record; remember the kernels of one made by llama.cpp."""
        facts = record.environment
        if "llama.cpp" in facts:
            self.kernels.setdefault("suite", set()).add(str(facts["kernels"]))
        return record

    # --- peers

    @cached_property
    def tools(self) -> Tools:
        """llama.cpp's tools, built unless they are cached."""
        folder = build.tools(self.logs, self.say)
        return Tools(folder, self.threads, self.logs)

    def tool(self, name: str, arguments: list[str], log: str) -> ToolRun:
        """Run one of llama.cpp's tools, and remember the kernels that it reports."""
        ran = self.tools.run(name, arguments, log)
        if kernels := parse.kernels(ran.output + ran.log):
            self.kernels.setdefault("tools", set()).add(kernels)
        return ran

    def beside(
        self, ours: SuiteRun, cell: str, requests: Sequence[str], tool: str, arguments: list[str], log: str
    ) -> Callable[[int], tuple[Measurement, ToolRun]]:
        """Return a function that measures a pair: a fresh process of the suite and one of a tool, in alternating order.
        It raises QuantgateError."""
        return one_after_the_other(
            lambda: self.noted(ours.measure(cell, *requests)), lambda: self.tool(tool, arguments, log)
        )

    def made(
        self, name: str, maker: Callable[..., None], modules: Sequence[str] = (), **arguments: Any
    ) -> Path:
        """Make a file below the results in a separate process, replacing an earlier one. modules: what it imports."""
        output = self.results / "made" / name
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        job = Preparation(
            title=f"make {name}",
            maker=f"{maker.__module__}:{maker.__qualname__}",
            arguments=arguments,
            output=output.resolve(),
        )
        log = self.logs / f"{name}.log"
        run_preparation(job, log, self._server, timeout=TIME_LIMIT, modules=modules)
        return output

    def lm_eval(
        self, ours: SuiteRun, *batch_sizes: int, cell: str = REFERENCE, softmax: str | None = None
    ) -> dict[int, dict[str, harness.TaskScores]]:
        """Return lm-eval's scores of the workload's tasks by batch size and task, in fp32, with the weights that the
        cell loads (a GGUF's are rounded to its format). softmax: None: lm-eval's default."""
        model, gguf = self.config.model, ours.cell(cell).checkpoint == "gguf"
        output = self.made(
            "lm-eval.json",
            harness.score,
            LM_EVAL,
            model=str(ours.checkpoint(REFERENCE)),
            gguf=str(ours.checkpoint(cell)) if gguf else None,
            add_bos=self.matrix.models[model].add_bos,
            tasks=ours.supply.specs("task"),
            batch_sizes=list(batch_sizes),
            softmax=softmax,
            threads=self.threads,
        )
        return TypeAdapter(harness.Scores).validate_json(output.read_bytes())
