"""Checkpoints that are made with a calibration set: which are there already, and what the others are made from.

Runs in the parent, as `quantgate.supply.supply` does, and only decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from quantgate.config.matrix import Cell, Model
from quantgate.config.toml_input import validate
from quantgate.files import hash_of
from quantgate.machine.environment import Environment, code_hash
from quantgate.paths import FIXTURES, cache_dir
from quantgate.supply.environments import layer
from quantgate.supply.recipe import Recipe
from quantgate.supply.sources import ROWS, Sources

REQUIREMENTS = FIXTURES / "llmcompressor.txt"
CODE = tuple(f"supply/{n}.py" for n in ("calibrated", "calibration", "compress", "imatrix", "recipe"))
"""Makes calibrated checkpoints."""


class Make(Protocol):
    """`Supply`'s: makes `output` in a process of its own, unless it is there. worker: the command of that
    process, asked for when something has to be made."""

    def __call__(
        self,
        output: Path,
        title: str,
        maker: str,
        arguments: Callable[[], dict[str, Any]],
        worker: Callable[[], Sequence[str]] | None = None,
    ) -> None: ...


class Calibrated:
    """Methods raise AssetError, InputError, MeasurementError.

    versions: of the packages that make sequences and activations. path: of the matrix, for messages.
    """

    def __init__(
        self,
        path: Path,
        sources: Sources,
        make: Make,
        versions: Callable[..., list[Any]],
        threads: int,
        on_progress: Callable[[str, float, float], None],
    ) -> None:
        self._path = path
        self._sources = sources
        self._make = make
        self._versions = versions
        self._threads = threads
        self._on_progress = on_progress

    def identity(self, cell: Cell) -> list[Any]:
        """What a cell's checkpoint is calibrated on and made by, beside source and scheme; empty: none of this."""
        named = [cell.scheme_options[key] for key in ("calibration", "imatrix") if key in cell.scheme_options]
        sets = [self._sources.calibration_identity(name) for name in named]
        made = code_hash(*CODE)
        if cell.checkpoint == "compressed":
            return [*sets, made, requirements(), _loader()]
        return [*sets, made] if sets else []

    def sequences(self, name: str, model: Model, calibration: str) -> Path:
        """JSON lists of token ids."""
        source = model.weights or model.gguf
        assert source is not None
        key = hash_of(
            [
                self._sources.identity(source),
                model.add_bos,
                self._sources.calibration_identity(calibration),
                self._versions("calibration", "transformers", "tokenizers", "datasets"),
                code_hash("supply/workload.py", *ROWS),
            ]
        )
        output = cache_dir() / "calibration" / f"{name}-{calibration}-{key}.json"
        maker = "quantgate.supply.calibration:make_sequences"
        self._make(
            output,
            f"tokenize {calibration} for {name}",
            maker,
            lambda: {
                "tokenizer": str(self._sources.locate(source)),
                "add_bos": model.add_bos,
                "name": calibration,
                **self._sources.calibration(calibration),
            },
        )
        return output

    def mean_squares(self, name: str, model: Model, safetensors: Path, calibration: str) -> Path:
        """What the linear layers are given, as safetensors."""
        sequences = self.sequences(name, model, calibration)
        key = hash_of(
            [sequences.name, safetensors.name, self._versions("calibration", "torch", "transformers")]
        )
        output = cache_dir() / "calibration" / f"{name}-{calibration}-{key}.safetensors"
        arguments = {
            "safetensors": str(safetensors),
            "sequences": str(sequences),
            "threads": self._threads,
        }
        maker = "quantgate.supply.calibration:make_mean_squares"
        self._make(output, f"activations of {name} on {calibration}", maker, lambda: arguments)
        return output

    def compressed(self, cell: Cell, model: Model, safetensors: Path, source_hash: str) -> Path:
        """A folder that llmcompressor has made from `safetensors`."""
        recipe = validate(
            Recipe, cell.scheme_options, self._path, f"backends.{cell.backend}.schemes.{cell.scheme}"
        )
        sequences = squares = None
        if recipe.calibration is not None:
            sequences = self.sequences(cell.model, model, recipe.calibration)
            if recipe.high:
                squares = self.mean_squares(cell.model, model, safetensors, recipe.calibration)
        wanted = requirements()
        key = hash_of(
            [
                source_hash,
                safetensors.name,
                self._versions("compress", "torch"),
                recipe.model_dump(),
                sequences.name if sequences else None,
                squares.name if squares else None,
                wanted,
                code_hash("supply/compress.py", "supply/recipe.py"),
            ]
        )
        output = cache_dir() / "checkpoints" / f"{cell.model}-{cell.scheme}-{key}"
        arguments = {
            "safetensors": str(safetensors),
            "recipe": recipe.model_dump(),
            "threads": self._threads,
            "sequences": str(sequences) if sequences and recipe.method != "rtn" else None,
            "mean_squares": str(squares) if squares else None,
        }
        maker = "quantgate.supply.compress:compress"
        self._make(
            output,
            f"quantize {cell.model} to {cell.scheme}",
            maker,
            lambda: arguments,
            lambda: Environment(str(layer(wanted, self._say))).worker,
        )
        return output

    def _say(self, text: str) -> None:
        self._on_progress(text, 0, 1)


def _loader() -> str | None:
    """Version of what loads the checkpoints; None: is not installed."""
    try:
        return metadata.version("compressed-tensors")
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[str]:
    """What llmcompressor's environment has over the suite's own."""
    lines = (line.strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
