"""What a cell's process is given: its checkpoint and its workload, made in the cache where missing.

Runs in the parent, which decides from file names alone; the making is done in processes of its own. The name
of whatever is made contains a hash of all that went into it: source, scheme, producer's version and build.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quantgate.cache.kept import discard, intact, keep, read_entry
from quantgate.checkpoint.contents import weight_files
from quantgate.config.matrix import Cell, Matrix, Model, Tier
from quantgate.errors import AssetError, InputError, QuantgateError
from quantgate.files import hash_of
from quantgate.items import MISSING
from quantgate.locks import locked
from quantgate.machine.environment import Environment, code_hash, work_facts
from quantgate.paths import cache_dir
from quantgate.processes.isolate import run_isolated
from quantgate.records import Needs, Preparation
from quantgate.supply.calibrated import Calibrated
from quantgate.supply.fitness import Length, check_cell, check_model
from quantgate.supply.sources import ROWS, Sources

DOWNLOAD = 10
"""A download may take so many times the tier's time limit, which holds for anything else that is made."""

CONVERTER = "llama.cpp"
"""The asset that holds llama.cpp's converter."""

OnProgress = Callable[[str, float, float], None]


class Supply:
    """Checkpoints and workloads of one matrix and tier. Methods raise AssetError, InputError, MeasurementError."""

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
        self.environment = environment or Environment()
        """Whose libraries make what is made."""
        self._matrix = matrix
        self._tier = tier
        self._threads = threads
        self._logs = logs
        self._on_progress = on_progress
        self._sources = Sources(matrix.path, text, self._make, on_progress, DOWNLOAD * tier.time_limit)
        self._needs = needs
        self._lengths = lengths
        self._errors: dict[Path, Exception] = {}
        self._room = TemporaryDirectory(prefix="quantgate-")
        """For what is of this run alone; removed with this object."""
        self._calibrated = Calibrated(
            matrix.path, self._sources, self._make, self._makers, threads, on_progress
        )

    def refused(self, model: str) -> str:
        """Which licence terms of the model the user has not accepted; empty when there are none."""
        return self._sources.refused(self._matrix.models[model])

    def check(self) -> None:
        """Raise InputError for a text or task that nobody knows."""
        for text in [*self._needs.texts, *self._needs.lines]:
            self._sources.text_identity(text)
        for task in [*self._needs.tasks, *self._needs.programs]:
            self._sources.check_task(task)

    def check_fit(self, cell: Cell, *, local: bool = False) -> None:
        """Raise InputError or AssetError where the model's checkpoint does not go with the matrix, the tier or the
        scheme.
        local: nothing is fetched for it."""
        model = self._matrix.models[cell.model]
        if model.weights is None or (local and model.weights.path is None):
            return
        folder = self._sources.locate(model.weights)
        if not folder.is_dir():
            return  # whoever opens it says so
        check_model(self._matrix.path, cell.model, model, self._lengths, folder)
        if cell.checkpoint != "gguf" or model.gguf is None:
            check_cell(cell, folder, derived=cell.checkpoint == "gguf")

    def source_hash(self, model: str) -> str:
        """Identity of the model's weights before any quantization."""
        entry = self._matrix.models[model]
        return hash_of([self._sources.identity(s) for s in (entry.weights, entry.gguf) if s])

    def checkpoint(self, cell: Cell) -> Path:
        """The folder of safetensors or the GGUF file that the cell's backend loads."""
        model = self._matrix.models[cell.model]
        self.check_fit(cell)
        if cell.checkpoint == "safetensors":
            return self._safetensors(cell.model, model)
        if cell.checkpoint == "compressed":
            return self._calibrated.compressed(
                cell, model, self._safetensors(cell.model, model), self.source_hash(cell.model)
            )
        ftype = cell.scheme_options.get("ftype")
        if not isinstance(ftype, str):
            raise InputError(
                f"{self._matrix.path}: backends.{cell.backend}.schemes.{cell.scheme}.ftype: is missing"
            )
        source = self._gguf(cell.model, model)
        if ftype in ("F32", "F16"):
            return self._quantized(cell.model, source, ftype)
        return self._quantized(
            cell.model, self._quantized(cell.model, source, "F16"), ftype, cell.scheme_options.get("imatrix")
        )

    def calibration(self, cell: Cell) -> list[Any]:
        """Identity of what the cell's checkpoint is calibrated on and by; empty for one without."""
        return self._calibrated.identity(cell)

    def logprobs(self, reference: Cell, options: Sequence[Any], worker: Sequence[str]) -> Path:
        """Where the log-probabilities of a reference are, once its process has left them
        (`quantgate.measure.logprobs`).

        options: of the metric groups that need them. worker: the command of that process; another interpreter has
        libraries of its own.
        """
        key = hash_of(
            [
                reference.model_dump(),
                self.workload_hash(reference.model),
                *options,
                work_facts(self.environment.libraries),
                self._threads,
                list(worker),
            ]
        )
        return cache_dir() / "logprobs" / f"{reference.id.replace('/', '-')}-{key}.npy"

    def text(self, name: str) -> dict[str, Any]:
        """Where a text lies, as `quantgate.supply.workload.read_text` takes it."""
        return self._sources.text(name)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Where the documents of each task lie and what is taken of them, as `make_task` takes it."""
        return {
            t: {**self._sources.task(t), "items": count, "fewshot": self._needs.fewshot}
            for t, count in self._needs.tasks.items()
        }

    def workload_hash(self, model: str) -> str:
        """Identity of the workload of one model: what was asked for, and what the makers were."""
        asked = {
            "bos": self._matrix.models[model].add_bos,
            "needs": self._needs.model_dump(),
            "texts": {t: self._sources.text_identity(t) for t in [*self._needs.texts, *self._needs.lines]},
            "tasks": {t: self._sources.task_identity(t) for t in [*self._needs.tasks, *self._needs.programs]},
        }
        return hash_of(
            [
                self.source_hash(model),
                asked,
                self._makers("workload", "transformers", "tokenizers", "lm_eval", "datasets"),
                code_hash("supply/programs.py", "supply/lines.py", "supply/splitting.py", *ROWS),
            ]
        )

    def workload(self, model: str) -> Path:
        """The folder with tokenized texts and tasks of one model."""
        output = cache_dir() / "workloads" / f"{model}-{self.workload_hash(model)}"
        maker = "quantgate.supply.workload:make_workload"
        title = f"tokenize texts and tasks for {model}"
        try:
            self._make(output, title, maker, lambda: self._workload_arguments(model))
        except QuantgateError:
            return self._without_what_is_missing(output, title, maker, model)
        return output

    def _without_what_is_missing(self, whole: Path, title: str, maker: str, model: str) -> Path:
        """A workload of this run alone, with the texts and tasks that can be had: in the cache they are whole. Where
        none can be made either, raises what was raised first."""
        output = Path(self._room.name) / "workloads" / whole.name
        arguments = {**self._workload_arguments(model, partial=True), "partial": True}
        try:
            self._make(output, title, maker, lambda: arguments)
        except QuantgateError:
            raise self._errors[whole] from None
        return output

    def missing(self, model: str) -> dict[str, str]:
        """Why texts and tasks are not in the workload of one model, by name."""
        found: dict[str, str] = json.loads((self.workload(model) / MISSING).read_bytes())
        return found

    def _workload_arguments(self, name: str, *, partial: bool = False) -> dict[str, Any]:
        """partial: a text or task that cannot be fetched says so in place of where it lies."""
        model = self._matrix.models[name]
        source = model.weights or model.gguf
        assert source is not None
        needs, sources = self._needs, self._sources

        def place(find: Callable[[str], dict[str, Any]], wanted: str) -> dict[str, Any]:
            try:
                return find(wanted)
            except AssetError as error:
                if not partial:
                    raise
                return {"missing": str(error)}

        return {
            "tokenizer": str(sources.locate(source)),
            "add_bos": model.add_bos,
            "key": f"{self._matrix.path}: models.{name}.add_bos",
            "texts": {t: {**place(sources.text, t), "tokens": count} for t, count in needs.texts.items()},
            "tasks": {
                t: {**place(sources.task, t), "items": count, "fewshot": needs.fewshot}
                for t, count in needs.tasks.items()
            },
            "programs": {
                t: {**place(sources.task, t), "items": count} for t, count in needs.programs.items()
            },
            "lines": {t: {**place(sources.text, t), "characters": count} for t, count in needs.lines.items()},
        }

    def _safetensors(self, name: str, model: Model) -> Path:
        if model.weights is not None:
            folder = self._sources.locate(model.weights)
            weight_files(folder)
            return folder
        assert model.gguf is not None
        gguf = model.gguf
        key = hash_of(
            [
                self.source_hash(name),
                "safetensors",
                self._makers("dequantize", "transformers", "gguf"),
                code_hash("supply/splitting.py"),
            ]
        )
        output = cache_dir() / "checkpoints" / f"{name}-safetensors-{key}"
        maker = "quantgate.supply.dequantize:safetensors_from_gguf"
        self._make(
            output, f"make safetensors of {name}", maker, lambda: {"gguf": str(self._sources.locate(gguf))}
        )
        return output

    def _gguf(self, name: str, model: Model) -> Path:
        """In full precision: the model's own, or one written from its safetensors."""
        if model.gguf is not None:
            return self._sources.locate(model.gguf)
        assert model.weights is not None
        weights = model.weights
        # By the same converter and in this environment, whatever llama.cpp reads the file: A/B runs share it.
        here = Environment()
        pin = self._sources.pinned(CONVERTER)
        key = hash_of(
            [
                self.source_hash(name),
                "F32",
                pin.folder.name,
                code_hash("supply/gguf.py", "checkpoint/contents.py"),
                *(here.versions[p] for p in ("torch", "transformers", "tokenizers")),
            ]
        )
        output = cache_dir() / "checkpoints" / f"{name}-F32-{key}.gguf"
        maker = "quantgate.supply.gguf:gguf_from_safetensors"
        self._make(
            output,
            f"write {name} as GGUF by the converter of {pin.parts[0].package} {pin.parts[0].version}",
            maker,
            lambda: {
                "safetensors": str(self._sources.locate(weights)),
                "converter": str(self._sources.asset(CONVERTER)),
            },
            lambda: here.worker,
        )
        return output

    def _quantized(self, name: str, source: Path, ftype: str, imatrix: str | None = None) -> Path:
        """imatrix: the calibration set whose activations weigh the weights."""
        made_from: list[Any] = [
            self.source_hash(name),
            # The name of what was made here says how; a file of the user's own is called as he likes.
            source.name if source.parent == cache_dir() / "checkpoints" else None,
            ftype,
            self._makers("checkpoints", "llama-cpp-python"),
            self.environment.llama_library,
        ]
        arguments = {"gguf": str(source), "ftype": ftype, "threads": self._threads}
        if imatrix is not None:
            model = self._matrix.models[name]
            squares = self._calibrated.mean_squares(name, model, self._safetensors(name, model), imatrix)
            arguments["mean_squares"] = str(squares)
            made_from += [squares.name, code_hash("supply/imatrix.py")]
            ftype = f"{ftype}-{imatrix}"
        key = hash_of(made_from)
        output = cache_dir() / "checkpoints" / f"{name}-{ftype}-{key}.gguf"
        maker = "quantgate.supply.checkpoints:quantize_gguf"
        self._make(output, f"quantize {name} to {ftype}", maker, lambda: arguments)
        return output

    def _makers(self, code: str, *packages: str) -> list[Any]:
        """What makes a thing: the module of suite/quantgate/supply and the packages it uses."""
        libraries = self.environment.libraries
        made_by = [libraries.get(key) for p in packages for key in (p, f"build of {p}")]
        return [code_hash(f"supply/{code}.py"), *made_by]

    def _make(
        self,
        output: Path,
        title: str,
        maker: str,
        arguments: Callable[[], dict[str, Any]],
        worker: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Make `output` unless it is there and as it was made; only once where two runs want it. A failure is
        remembered. worker: gives the command of the making process; None: of this environment's."""
        if output in self._errors:
            raise self._errors[output]
        try:
            if output.parent.name == "hub" and output.exists() and read_entry(output) is None:
                keep(
                    output
                )  # of an earlier version: whole when it got its name, and not to be had offline again
            if intact(output):
                return
            with locked(cache_dir() / "locks" / f"{output.name}.lock", title):
                if intact(output):
                    return
                discard(output)
                job = Preparation(title=title, maker=maker, arguments=arguments(), output=output)
                run_isolated(
                    job,
                    self._logs / f"{output.name}.log",
                    timeout=self._tier.time_limit * (DOWNLOAD if output.parent.name == "hub" else 1),
                    on_progress=self._on_progress,
                    command=worker() if worker else self.environment.worker,
                )
                keep(output)
        except Exception as error:
            self._errors[output] = error
            raise
