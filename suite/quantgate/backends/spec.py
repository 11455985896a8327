"""What a backend declares of itself. The parent process reads it, so it imports no library that computes."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from quantgate.records import Record

Capability = Literal["scores", "logits", "steps", "timings", "weights", "tokenizes", "generates", "inputs"]
"""What a loaded model can do: `quantgate.backends.base` has the methods of each. `timings`: how long `steps` takes, and
the memory that it takes, are those of the scheme, which are not simulated."""

Loader = Callable[[Path, dict[str, Any], int], Any]
"""Loads a checkpoint with scheme options, to compute with so many threads; returns the loaded model."""


class SchemeOptions(Record):
    """What every backend is given of a scheme. Values are of their types: no text stands for a number."""

    model_config = ConfigDict(strict=True)

    bits: float | None = Field(gt=0, le=64)
    """None, with `as_is`: as the checkpoint says."""
    device: Literal["cpu", "cuda"] = "cpu"
    as_is: bool = False
    """The checkpoint is loaded as it is: it has the scheme's precision already. Given for a scheme that says so, and
    for a cell whose model names a checkpoint for it (`[models.NAME.checkpoints]`)."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """A backend, as its file declares it in `BACKEND`.

    options: model of what a scheme may say. imports: modules that loading needs. The process that forks the measuring
    ones imports them, so that no import is timed; importing them starts no threads and touches no device. libraries: by
    module that must be importable, the arguments of `pip install` that bring it.
    """

    options: type[SchemeOptions]
    capabilities: frozenset[Capability]
    load: Loader
    imports: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str:
        """Say which library is not installed, and how it is; empty: all are."""
        for module, requirement in self.libraries.items():
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: pip install {requirement}"
        return ""


def loader(module: str) -> Loader:
    """Return a loader that imports `module` when it is called, and calls its `load`."""

    def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Any:
        return importlib.import_module(module).load(checkpoint, options, threads)

    return load
