"""Checkpoints that are made from a model's own: dequantized, converted to GGUF, quantized by llama.cpp.

Runs in the parent and only decides: which of them are in the cache, and what the others are made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate.checkpoint.contents import gguf_parts, weight_files
from quantgate.checkpoint.nominal import file_type
from quantgate.config.matrix import Model
from quantgate.files import hash_of
from quantgate.machine.environment import Environment, code_hash
from quantgate.paths import cache_dir
from quantgate.supply.calibrated import Calibrated
from quantgate.supply.maker import Maker
from quantgate.supply.sources import Sources

CONVERTER = "llama.cpp"
"""The asset that holds llama.cpp's converter."""


class Derived:
    """Methods return paths and raise AssetError, InputError, MeasurementError. name: the model's, in the matrix."""

    def __init__(self, sources: Sources, maker: Maker, calibrated: Calibrated, threads: int) -> None:
        self._sources = sources
        self._maker = maker
        self._calibrated = calibrated
        self._threads = threads

    def safetensors(self, name: str, model: Model) -> Path:
        """The model's own folder of safetensors, or one that is dequantized from its GGUF."""
        if model.weights is not None:
            folder = self._sources.locate(model.weights)
            weight_files(folder)
            return folder
        assert model.gguf is not None
        gguf = model.gguf
        key = hash_of(
            [
                self._sources.model_hash(model),
                "safetensors",
                self._maker.identity("dequantize", "transformers", "gguf"),
                code_hash("supply/splitting.py"),
            ]
        )
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{name}-safetensors-{key}",
            f"make safetensors of {name}",
            "quantgate.supply.dequantize:safetensors_from_gguf",
            lambda: {"gguf": str(self._sources.locate(gguf))},
        )

    def quantized(self, name: str, model: Model, ftype: str, imatrix: str | None = None) -> Path:
        """A GGUF in one of llama.cpp's types (`F16`, `Q4_K_M`): the model's own, where it has that type. imatrix: the
        calibration set whose activations weigh the weights."""
        full = self._gguf(name, model)
        if self.is_of_type(model, ftype, imatrix):
            gguf_parts(full)  # says which part is missing
            return full
        if ftype in ("F32", "F16"):
            return self._requantized(name, model, full, ftype)
        half = self._requantized(name, model, full, "F16")
        return self._requantized(name, model, half, ftype, imatrix)

    def is_of_type(self, model: Model, ftype: str, imatrix: str | None = None) -> bool:
        """Return whether the model's own GGUF is what a scheme would make: then it is loaded as it is."""
        if model.gguf is None or imatrix is not None:
            return False
        return file_type(self._sources.locate(model.gguf)) == ftype

    def _gguf(self, name: str, model: Model) -> Path:
        """The model's own GGUF, or one in F32 that is written from its safetensors."""
        if model.gguf is not None:
            return self._sources.locate(model.gguf)
        assert model.weights is not None
        weights = model.weights
        # By one converter, in this environment, whichever llama.cpp reads the file: both sides of an A/B run share it.
        here = Environment()
        pin = self._sources.pinned(CONVERTER)
        key = hash_of(
            [
                self._sources.model_hash(model),
                "F32",
                pin.folder.name,
                code_hash("supply/gguf*.py", "checkpoint/contents.py"),
                *(here.versions[p] for p in ("torch", "transformers", "tokenizers")),
            ]
        )
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{name}-F32-{key}.gguf",
            f"write {name} as GGUF by the converter of {pin.parts[0].package} {pin.parts[0].version}",
            "quantgate.supply.gguf:gguf_from_safetensors",
            lambda: {
                "safetensors": str(self._sources.locate(weights)),
                "converter": str(self._sources.asset(CONVERTER)),
            },
            command=lambda: here.worker,
        )

    def _requantized(
        self, name: str, model: Model, source: Path, ftype: str, imatrix: str | None = None
    ) -> Path:
        made_from: list[Any] = [
            self._sources.model_hash(model),
            # The name of what was made here tells how; a file of the user's may be called anything.
            source.name if source.parent == cache_dir() / "checkpoints" else None,
            ftype,
            self._maker.identity("checkpoints", "llama-cpp-python"),
            self._maker.environment.llama_library,
        ]
        arguments = {"gguf": str(source), "ftype": ftype, "threads": self._threads}
        if imatrix is not None:
            squares = self._calibrated.mean_squares(name, model, self.safetensors(name, model), imatrix)
            arguments["mean_squares"] = str(squares)
            made_from += [squares.name, code_hash("supply/imatrix.py")]
            ftype = f"{ftype}-{imatrix}"
        return self._maker.make(
            cache_dir() / "checkpoints" / f"{name}-{ftype}-{hash_of(made_from)}.gguf",
            f"quantize {name} to {ftype}",
            "quantgate.supply.checkpoints:quantize_gguf",
            lambda: arguments,
        )
