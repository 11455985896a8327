"""Give each cell's process its checkpoint and its workload, made in the cache if they are missing.

Runs in the parent and decides from file names alone; `quantgate.supply.maker` starts a process for whatever has to be
made. The name of each thing contains a hash of all that went into it: source, scheme, version and build of its maker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from quantgate.checkpoint.checks import leaves_out_bos
from quantgate.checkpoint.gguf_header import gguf_puts_bos, read_header
from quantgate.config.matrix import NO_WORK, Cell, Matrix, Tier
from quantgate.config.source import Source
from quantgate.errors import AssetError, QuantgateError
from quantgate.files import hash_of
from quantgate.items import MISSING
from quantgate.jobs import Needs
from quantgate.judge.environment import CHECKPOINT, CHECKPOINT_NAME, MADE_FROM
from quantgate.machine.environment import Environment, code_hash, work_facts
from quantgate.paths import cache_dir
from quantgate.processes.progress import OnProgress
from quantgate.supply.as_is import AsIs
from quantgate.supply.chat import read_chats
from quantgate.supply.derived import Derived
from quantgate.supply.fitness import Length, check_cell, check_gguf, check_model
from quantgate.supply.maker import Maker
from quantgate.supply.shipped import LEFT_OUT, UNDER_TEST, check_measured, shipped
from quantgate.supply.sources import ROW_CODE, Sources

MAKE_WORKLOAD = "quantgate.supply.workload:main"
WORKLOAD_CODE = (
    "supply/encoder.py", "supply/tasks.py", "supply/choices.py", "supply/programs.py", "supply/questions.py",
    "supply/rules.py", "supply/lines.py", "supply/splitting.py", "supply/chat.py", "supply/conversations.py",
    "checkpoint/template.py", *ROW_CODE,
)  # fmt: skip
"""The code that it calls."""


class Part(NamedTuple):
    """A text or task of a workload. place: finds it, for the process that makes the workload. identity: of its content.
    size: how much of it is needed, and how it is asked."""

    place: Callable[[str], dict[str, Any]]
    identity: Callable[[str], Any]
    size: dict[str, Any]


class Supply:
    """The checkpoints and workloads of one matrix and tier. Methods raise AssetError, InputError, MeasurementError."""

    def __init__(
        self,
        matrix: Matrix,
        tier: Tier,
        threads: int,
        logs: Path,
        on_progress: OnProgress,
        text: Path | None,
        needs: Needs,
        lengths: Sequence[Length] = (),
        environment: Environment | None = None,
    ) -> None:
        """logs: the folder for the logs of making processes. text: the user's own, in place of every text of the tier.
        environment: whose libraries make what is made; None: this process's."""
        self.environment = environment or Environment()
        self._matrix = matrix
        self._tier = tier
        self._threads = threads
        self._maker = Maker(logs, tier.time_limit, on_progress, self.environment)
        self._sources = Sources(matrix.path, text, self._maker, matrix.texts, matrix.tasks)
        self._derived = Derived(matrix.models, self._sources, self._maker, threads)
        self._as_is = AsIs(matrix.path, self._sources, self._maker)
        self._needs = needs
        self._checked: set[str] = set()
        """Models whose GGUF header, which takes a while to read, goes with the matrix."""
        self._lengths = lengths

    @cached_property
    def _room(self) -> TemporaryDirectory[str]:
        """For workloads of this run alone; `close` removes it."""
        return TemporaryDirectory(prefix="quantgate-")

    def close(self) -> None:
        """Remove what was made for this run alone."""
        if "_room" in self.__dict__:
            self._room.cleanup()

    def refused(self, cell: Cell) -> str:
        """Return which licence terms the user has yet to accept for the cell; empty: none."""
        model = self._matrix.models[cell.model]
        return self._sources.refused(model.weights, model.gguf, cell.as_is)

    def check(self) -> None:
        """Raise InputError for a text or task that does not exist."""
        for text in [*self._needs.texts, *self._needs.lines]:
            self._sources.text_identity(text)
        for task in [*self._needs.tasks, *self._needs.programs, *self._needs.questions]:
            self._sources.check_task(task)
        for name, size in self._needs.prompts.items():
            read_chats(Path(self._sources.prompts(name)["path"]), size.items)

    def check_fit(self, cell: Cell, *, local: bool = False) -> None:
        """Raise InputError or AssetError if the model's checkpoint does not go with the matrix, the tier or the scheme.
        local: check local checkpoints only, so that nothing is fetched."""
        model, source = self._matrix.models[cell.model], self._matrix.models[cell.model].tokenizer_source
        if cell.as_is is not None:
            self._as_is.check(cell, local=local)
        if local and source.path is None:
            return
        if model.weights is None:
            if cell.model not in self._checked:
                gguf = self._sources.locate(source)
                check_gguf(self._matrix.path, cell.model, model, gguf)
                if shipped(model, self._sources):
                    check_measured(self._matrix, cell.model, gguf)
                self._checked.add(cell.model)
        elif (folder := self._sources.locate(source)).is_dir():  # if not, its loader says so
            check_model(self._matrix.path, cell.model, model, self._lengths, folder)
            if cell.as_is is None and (cell.checkpoint != "gguf" or model.gguf is None):
                check_cell(cell, folder, derived=cell.checkpoint == "gguf")

    def source_hash(self, model: str) -> str:
        """Return what has to be equal before values of the model's cells are compared: the identity of its weights
        before any quantization; of a model that is itself under test, only that it is."""
        entry = self._matrix.models[model]
        return UNDER_TEST if shipped(entry, self._sources) else self._sources.model_hash(entry)

    def checkpoint(self, cell: Cell) -> Path:
        """Return the folder of safetensors or the GGUF file that the cell's backend loads, made if necessary."""
        model = self._matrix.models[cell.model]
        self.check_fit(cell)
        if cell.as_is is not None:
            return self._as_is.checkpoint(cell, model)
        if cell.checkpoint == "none":  # for its vocabulary
            return self._sources.locate(model.tokenizer_source)
        if cell.checkpoint == "safetensors":
            return self._derived.safetensors(cell.model)
        if cell.checkpoint == "compressed":
            return self._derived.compressed(cell)
        options = cell.scheme_options
        return self._derived.quantized(cell.model, options["ftype"], options.get("imatrix"))

    def under_test(self, cell: Cell) -> dict[str, str]:
        """Return, by key of the environment, the identity and the name of a checkpoint that the cell loads as it is
        (its own, or the model's GGUF of its type), or that its weights are made from where the model is itself under
        test."""
        model, options = self._matrix.models[cell.model], cell.scheme_options
        recipe = str(options.get("ftype")), options.get("imatrix")
        key = CHECKPOINT
        source: Source | None = cell.as_is
        if source is None and cell.checkpoint == "gguf" and self._derived.is_of_type(cell.model, *recipe):
            source = model.gguf
        if source is None and cell.checkpoint != "none":
            key, source = MADE_FROM, shipped(model, self._sources)
        if source is None:
            return {}
        return {key: hash_of(self._sources.identity(source)), CHECKPOINT_NAME: source.short}

    def conditions(self, cell: Cell) -> dict[str, str]:
        """Return what has to be equal before the cell's values are compared, beside what metric groups state: that a
        checkpoint under test does not put the token which the matrix puts, so that its users go without."""
        model = self._matrix.models[cell.model]
        source = cell.as_is or shipped(model, self._sources)
        if source is None or not model.add_bos:
            return {}
        path = self._sources.locate(source)
        left_out = not gguf_puts_bos(read_header(path).values) if path.is_file() else leaves_out_bos(path)
        return {LEFT_OUT: "one that add_bos puts"} if left_out else {}

    def scheme_options(self, cell: Cell) -> dict[str, Any]:
        """Return what the cell's backend is given. `tokenizer`: the folder of the model's, for a checkpoint as it is
        that has none."""
        options = dict(cell.scheme_options)
        if cell.as_is is not None and self._as_is.takes_tokenizer(cell):
            options["tokenizer"] = str(self._derived.safetensors(cell.model))
        return options

    def identity(self, cell: Cell) -> list[Any]:
        """Return what pins the cell's checkpoint beside the model and the scheme: its files, if it is loaded as it is,
        or what makes it."""
        return [self._as_is.identity(cell)] if cell.as_is is not None else self._derived.made_by(cell)

    def left(self, reference: Cell, group: str, options: Any, worker: Sequence[str]) -> Path:
        """Return where a reference's process leaves what a metric group of its cells needs.

        options: of the group. worker: the command of that process; another interpreter has libraries of its own.
        """
        key = hash_of(
            [
                reference.model_dump(exclude=NO_WORK),
                *self.identity(reference),
                self.workload_hash(reference.model),
                group,
                options,
                work_facts(self.environment.libraries),
                self._threads,
                list(worker),
            ]
        )
        return cache_dir() / "logprobs" / f"{reference.id.replace('/', '-')}-{group}-{key}"

    @cached_property
    def _parts(self) -> dict[str, dict[str, Part]]:
        """By kind, as `quantgate.items.part` takes it, and name."""
        needs, sources = self._needs, self._sources
        text = sources.text, sources.text_identity
        task = sources.task, sources.task_identity
        prompts = sources.prompts, sources.prompts_identity
        return {
            "text": {name: Part(*text, {"tokens": count}) for name, count in needs.texts.items()},
            "lines": {name: Part(*text, {"characters": count}) for name, count in needs.lines.items()},
            "task": {name: Part(*task, posed.model_dump()) for name, posed in needs.tasks.items()},
            "questions": {name: Part(*task, posed.model_dump()) for name, posed in needs.questions.items()},
            "programs": {name: Part(*task, {"items": count}) for name, count in needs.programs.items()},
            "prompts": {name: Part(*prompts, size.model_dump()) for name, size in needs.prompts.items()},
        }

    def specs(self, kind: str, *, partial: bool = False) -> dict[str, dict[str, Any]]:
        """Return what the texts or tasks of a kind are made of, for `quantgate.supply.workload.MAKERS`. partial: of one
        that cannot be fetched, as `missing`, the reason."""
        specs = {}
        for name, part in self._parts[kind].items():
            try:
                place = part.place(name)
            except AssetError as error:
                if not partial:
                    raise
                place = {"missing": str(error)}
            specs[name] = {**place, **part.size}
        return specs

    def workload_hash(self, model: str) -> str:
        """Return the identity of one model's workload: its contents, and the code and packages that make it."""
        parts = {kind: {n: p.identity(n) for n, p in named.items()} for kind, named in self._parts.items()}
        return hash_of(
            [
                self._sources.model_hash(self._matrix.models[model]),
                self._matrix.models[model].add_bos,
                self._needs.model_dump(),
                parts,
                self._maker.identity("workload", "transformers", "tokenizers", "lm_eval", "datasets"),
                code_hash(*WORKLOAD_CODE),
            ]
        )

    def workload(self, model: str) -> Path:
        """Return the folder with the tokenized texts and tasks of one model, made if necessary."""
        output = cache_dir() / "workloads" / f"{model}-{self.workload_hash(model)}"
        title = f"tokenize texts and tasks for {model}"
        try:
            return self._maker.make(
                output, title, MAKE_WORKLOAD, lambda: self._workload_arguments(model, output)
            )
        except QuantgateError:
            # A workload of this run alone, with the texts and tasks that can be had; workloads in the cache are whole.
            if not (partial := self._partial(output)).exists():
                raise
            return partial

    def _partial(self, output: Path) -> Path:
        return Path(self._room.name) / "workloads" / output.name

    def missing(self, model: str) -> dict[str, str]:
        """Return why texts and tasks are missing in the workload of one model, by name."""
        reasons: dict[str, str] = json.loads((self.workload(model) / MISSING).read_bytes())
        return reasons

    def _workload_arguments(self, name: str, output: Path) -> dict[str, Any]:
        model = self._matrix.models[name]
        return {
            "tokenizer": str(self._sources.locate(model.tokenizer_source)),
            "add_bos": model.add_bos,
            "key": f"{self._matrix.path}: models.{name}.add_bos",
            "specs": {kind: self.specs(kind, partial=True) for kind in self._parts},
            "chats": self._needs.chats,
            "openings": self._needs.openings,
            "partial": str(self._partial(output)),
        }
