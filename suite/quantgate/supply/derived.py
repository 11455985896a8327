"""Checkpoints that are made from a model's: dequantized, converted to GGUF, quantized by llama.cpp or llmcompressor.

Runs in the parent and only decides: which of them are in the cache, and what the others are made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.backends.llmcompressor import Options as Recipe
from quantgate.checkpoint.contents import gguf_parts, weight_files
from quantgate.checkpoint.nominal import FULL, file_type
from quantgate.config.matrix import Cell, Model
from quantgate.files import hash_of
from quantgate.machine.environment import Environment, code_hash, version_of
from quantgate.paths import FIXTURES, cache_dir
from quantgate.supply.environments import layer
from quantgate.supply.maker import Maker
from quantgate.supply.sources import ROW_CODE, Sources

CONVERTER = "llama.cpp"
"""The asset that holds llama.cpp's converter."""
REQUIREMENTS = FIXTURES / "llmcompressor.txt"
CALIBRATED_CODE = (
    "backends/llmcompressor.py",
    *(f"supply/{name}.py" for name in ("derived", "calibration", "compress", "imatrix")),
)
"""The code that makes checkpoints with a calibration set."""


class Derived:
    """Methods raise AssetError, InputError, MeasurementError. models: of the matrix, by name."""

    def __init__(self, models: Mapping[str, Model], sources: Sources, maker: Maker, threads: int) -> None:
        self._models = models
        self._sources = sources
        self._maker = maker
        self._threads = threads

    def safetensors(self, name: str) -> Path:
        """Return the model's own folder of safetensors, or one that is dequantized from its GGUF."""
        model = self._models[name]
        if model.weights is not None:
            folder = self._sources.locate(model.weights)
            weight_files(folder)
            return folder
        assert model.gguf is not None
        gguf = model.gguf
        key = hash_of([self._sources.model_hash(model), "safetensors", *self._dequantizing()])
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{name}-safetensors-{key}",
            f"make safetensors of {name}",
            "quantgate.supply.dequantize:safetensors_from_gguf",
            lambda: {"gguf": str(self._sources.locate(gguf))},
        )

    def quantized(self, name: str, ftype: str, imatrix: str | None = None) -> Path:
        """Return a GGUF in one of llama.cpp's types (`F16`, `Q4_K_M`): the model's own, where it has that type.
        imatrix: the calibration set whose activations weigh the weights."""
        full = self._gguf(name)
        if self.is_of_type(name, ftype, imatrix):
            gguf_parts(full)  # says which part is missing
            return full
        if ftype in FULL:
            return self._requantized(name, full, ftype)
        half = self._requantized(name, full, "F16")
        return self._requantized(name, half, ftype, imatrix)

    def is_of_type(self, name: str, ftype: str, imatrix: str | None = None) -> bool:
        """Return whether the model's own GGUF is what a scheme would make: then it is loaded as it is."""
        gguf = self._models[name].gguf
        return gguf is not None and imatrix is None and file_type(self._sources.locate(gguf)) == ftype

    def compressed(self, cell: Cell) -> Path:
        """Return the folder that llmcompressor makes."""
        recipe, name = Recipe.model_validate(cell.scheme_options), cell.model
        safetensors = self.safetensors(name)
        sequences = squares = None
        if recipe.calibration is not None:
            sequences = self._sequences(name, recipe.calibration)
            if recipe.high:
                squares = self._mean_squares(name, recipe.calibration)
        packages, say = requirements(), self._maker.on_progress
        key = hash_of(
            [
                self._sources.model_hash(self._models[name]),
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
            cache_dir() / "checkpoints" / f"{name}-{cell.scheme}-{key}",
            f"quantize {name} to {cell.scheme}",
            "quantgate.supply.compress:compress",
            lambda: arguments,
            command=lambda: Environment(str(layer(packages, lambda text: say(text, 0, 1)))).worker,
        )

    def made_by(self, cell: Cell) -> list[Any]:
        """Return what pins a cell's checkpoint beside its source and scheme: calibration sets, and the code and
        libraries that make it; empty for one that is not made."""
        model, options, made = self._models[cell.model], cell.scheme_options, list[Any]()
        if model.weights is None and (
            cell.checkpoint in ("safetensors", "compressed") or "imatrix" in options
        ):
            made += self._dequantizing()
        if cell.checkpoint == "gguf":
            made += [] if model.gguf else self._converting()
            made += [self._maker.identity("checkpoints", "llama-cpp-python")]
        sets = [options[key] for key in ("calibration", "imatrix") if key in options]
        if sets or cell.checkpoint == "compressed":
            made += [*map(self._sources.calibration_identity, sets), code_hash(*CALIBRATED_CODE)]
        if cell.checkpoint == "compressed":
            made += [requirements(), version_of("compressed-tensors")]
        return made

    def _dequantizing(self) -> list[Any]:
        maker = self._maker.identity("dequantize", "transformers", "gguf")
        return [maker, code_hash("supply/splitting.py")]

    def _converting(self) -> list[Any]:
        # By one converter, in this environment, whichever llama.cpp reads the file: both sides of an A/B run share it.
        versions = Environment().versions
        return [
            self._sources.pinned(CONVERTER).folder.name,
            code_hash("supply/gguf*.py", "checkpoint/contents.py"),
            *(versions[package] for package in ("torch", "transformers", "tokenizers")),
        ]

    def _gguf(self, name: str) -> Path:
        """Return the model's own GGUF, or one in F32 that is written from its safetensors."""
        model = self._models[name]
        if model.gguf is not None:
            return self._sources.locate(model.gguf)
        pin = self._sources.pinned(CONVERTER)
        key = hash_of([self._sources.model_hash(model), "F32", *self._converting()])
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{name}-F32-{key}.gguf",
            f"write {name} as GGUF by the converter of {pin.parts[0].package} {pin.parts[0].version}",
            "quantgate.supply.gguf:gguf_from_safetensors",
            lambda: {
                "safetensors": str(self.safetensors(name)),
                "converter": str(self._sources.asset(CONVERTER)),
            },
            command=lambda: Environment().worker,
        )

    def _requantized(self, name: str, source: Path, ftype: str, imatrix: str | None = None) -> Path:
        made_from: list[Any] = [
            self._sources.model_hash(self._models[name]),
            # The name of what was made here tells how; a file of the user's may be called anything.
            source.name if source.parent == cache_dir() / "checkpoints" else None,
            ftype,
            self._maker.identity("checkpoints", "llama-cpp-python"),
            self._maker.environment.llama_library,
        ]
        arguments = {"gguf": str(source), "ftype": ftype, "threads": self._threads}
        if imatrix is not None:
            squares = self._mean_squares(name, imatrix)
            arguments["mean_squares"] = str(squares)
            made_from += [squares.name, code_hash("supply/imatrix.py")]
            ftype = f"{ftype}-{imatrix}"
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{name}-{ftype}-{hash_of(made_from)}.gguf",
            f"quantize {name} to {ftype}",
            "quantgate.supply.checkpoints:quantize_gguf",
            lambda: arguments,
        )

    def _sequences(self, name: str, calibration: str) -> Path:
        """Return the file of a calibration set's token ids, JSON lists."""
        model = self._models[name]
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

    def _mean_squares(self, name: str, calibration: str) -> Path:
        """Return the file of the mean squares of the inputs of each linear layer, safetensors."""
        safetensors, sequences = self.safetensors(name), self._sequences(name, calibration)
        key = hash_of(
            [
                sequences.name,
                safetensors.name,
                self._maker.identity("calibration", "torch", "transformers"),
                code_hash("backends/runtime/linear.py", "backends/runtime/transformers.py"),
            ]
        )
        return self._maker.make(
            cache_dir() / "calibration" / f"{name}-{calibration}-{key}.safetensors",
            f"activations of {name} on {calibration}",
            "quantgate.supply.calibration:make_mean_squares",
            lambda: {
                "safetensors": str(safetensors),
                "sequences": str(sequences),
                "threads": self._threads,
            },
        )


def requirements() -> list[str]:
    """Return the requirements of llmcompressor's environment beyond this one's."""
    lines = (line.strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
