"""Checkpoints that are made with a calibration set.

Runs in the parent and only decides: which of them are in the cache, and what the others are made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate.backends.llmcompressor import Options as Recipe
from quantgate.config.matrix import Cell, Model
from quantgate.files import hash_of
from quantgate.machine.environment import Environment, code_hash, version_of
from quantgate.paths import FIXTURES, cache_dir
from quantgate.supply.environments import layer
from quantgate.supply.maker import Maker
from quantgate.supply.sources import ROW_CODE, Sources

REQUIREMENTS = FIXTURES / "llmcompressor.txt"
CODE = (
    "backends/llmcompressor.py",
    *(f"supply/{name}.py" for name in ("calibrated", "calibration", "compress", "imatrix")),
)
"""The code that makes calibrated checkpoints."""


class Calibrated:
    """Methods raise AssetError, InputError, MeasurementError."""

    def __init__(self, sources: Sources, maker: Maker, threads: int) -> None:
        self._sources = sources
        self._maker = maker
        self._threads = threads

    def identity(self, cell: Cell) -> list[Any]:
        """What pins a calibrated checkpoint beside its source and scheme; empty for a cell without calibration."""
        names = [cell.scheme_options[key] for key in ("calibration", "imatrix") if key in cell.scheme_options]
        sets = [self._sources.calibration_identity(name) for name in names]
        made = code_hash(*CODE)
        if cell.checkpoint == "compressed":
            return [*sets, made, requirements(), version_of("compressed-tensors")]
        return [*sets, made] if sets else []

    def sequences(self, name: str, model: Model, calibration: str) -> Path:
        """The file of a calibration set's token ids, JSON lists."""
        source = model.tokenizer_source
        key = hash_of(
            [
                self._sources.identity(source),
                model.add_bos,
                self._sources.calibration_identity(calibration),
                self._maker.identity("calibration", "transformers", "tokenizers", "datasets"),
                code_hash("supply/encoder.py", *ROW_CODE),
            ]
        )
        return self._maker.make(
            cache_dir() / "calibration" / f"{name}-{calibration}-{key}.json",
            f"tokenize {calibration} for {name}",
            "quantgate.supply.calibration:make_sequences",
            lambda: {
                "tokenizer": str(self._sources.locate(source)),
                "add_bos": model.add_bos,
                "name": calibration,
                **self._sources.calibration(calibration),
            },
        )

    def mean_squares(self, name: str, model: Model, safetensors: Path, calibration: str) -> Path:
        """The file of the mean squares of the inputs of each linear layer, safetensors."""
        sequences = self.sequences(name, model, calibration)
        key = hash_of(
            [sequences.name, safetensors.name, self._maker.identity("calibration", "torch", "transformers")]
        )
        arguments = {
            "safetensors": str(safetensors),
            "sequences": str(sequences),
            "threads": self._threads,
        }
        return self._maker.make(
            cache_dir() / "calibration" / f"{name}-{calibration}-{key}.safetensors",
            f"activations of {name} on {calibration}",
            "quantgate.supply.calibration:make_mean_squares",
            lambda: arguments,
        )

    def compressed(self, cell: Cell, model: Model, safetensors: Path) -> Path:
        """The folder that llmcompressor makes from `safetensors`."""
        recipe = Recipe.model_validate(cell.scheme_options)
        sequences = squares = None
        if recipe.calibration is not None:
            sequences = self.sequences(cell.model, model, recipe.calibration)
            if recipe.high:
                squares = self.mean_squares(cell.model, model, safetensors, recipe.calibration)
        packages, say = requirements(), self._maker.on_progress
        key = hash_of(
            [
                self._sources.model_hash(model),
                safetensors.name,
                self._maker.identity("compress", "torch"),
                recipe.model_dump(),
                sequences.name if sequences else None,
                squares.name if squares else None,
                packages,
                code_hash("supply/compress.py", "backends/llmcompressor.py"),
            ]
        )
        arguments = {
            "safetensors": str(safetensors),
            "recipe": recipe.model_dump(),
            "threads": self._threads,
            "sequences": str(sequences) if sequences and recipe.method != "rtn" else None,
            "mean_squares": str(squares) if squares else None,
        }
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{cell.model}-{cell.scheme}-{key}",
            f"quantize {cell.model} to {cell.scheme}",
            "quantgate.supply.compress:compress",
            lambda: arguments,
            command=lambda: Environment(str(layer(packages, lambda text: say(text, 0, 1)))).worker,
        )


def requirements() -> list[str]:
    """The requirements of llmcompressor's environment beyond this one's."""
    lines = (line.strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
