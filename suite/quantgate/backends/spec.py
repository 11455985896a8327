"""What a backend declares, and all backends: files of this folder, and entry points of `quantgate.backends`. The parent
process reads them, so they import no library that computes."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field

from quantgate.config.sentences import allowed
from quantgate.discovery import discover
from quantgate.errors import InputError
from quantgate.records import Record

Capability = Literal[
    "scores", "tops", "logits", "steps", "timings", "weights", "tokenizes", "generates", "serves", "inputs"
]
"""What a loaded model can do: `quantgate.backends.base` has the methods of each. `timings`: how long `steps` takes, and
the memory that it takes, are those of the scheme, which are not simulated."""

WITH_LOGITS: frozenset[Capability] = frozenset({"scores", "tops"})
"""What comes with the capability `logits`."""

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

    def why_not(self) -> str:
        """Say what the scheme needs that is not installed, or that its device cannot do; empty: nothing."""
        return ""

    def further_libraries(self) -> dict[str, str]:
        """Return versions and builds of libraries that only such schemes need, as the environment names them."""
        return {}

    def lacks(self) -> frozenset[Capability]:
        """Return what the scheme cannot do although its backend can: `timings` where speed and memory are simulated."""
        return frozenset()

    def by_token(self) -> bool:
        """Return whether each token of a text is computed by itself, as decoding does; else many are at once."""
        return False


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """A backend, as its file declares it in `BACKEND`.

    options: model of what a scheme may say. imports: modules that loading needs. The process that forks the measuring
    ones imports them, so that no import is timed; importing them starts no threads and touches no device. libraries: by
    module that must be importable, the arguments of `pip install` that bring it. unused: distributions that the engine
    records and that do not compute in this backend's processes; what they make of texts and checkpoints is among the
    conditions. Upgrading them widens no tolerance.
    """

    options: type[SchemeOptions]
    capabilities: frozenset[Capability]
    load: Loader
    imports: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    unused: frozenset[str] = frozenset({"datasets", "llama-cpp-python", "llama.cpp", "lm_eval"})

    def __post_init__(self) -> None:
        check_capabilities(self.capabilities)
        if not (isinstance(self.options, type) and issubclass(self.options, SchemeOptions)):
            raise InputError("options must be a class derived from quantgate.backends.spec.SchemeOptions")
        if not callable(self.load):
            raise InputError("load must be a function of checkpoint, options and threads")

    def missing(self, scheme_options: Mapping[str, Any]) -> str:
        """Say why a scheme does not run here: which library is not installed, and how it is; empty: it runs."""
        return not_installed(self.libraries) or self.parsed(scheme_options).why_not()

    def can(self, scheme_options: Mapping[str, Any]) -> frozenset[Capability]:
        """Return the capabilities under a scheme."""
        implied = WITH_LOGITS if "logits" in self.capabilities else set()
        return (self.capabilities | implied) - self.parsed(scheme_options).lacks()

    def parsed(self, scheme_options: Mapping[str, Any]) -> SchemeOptions:
        """Return the options of a scheme as the backend's model has them."""
        # Bits are 0 where the checkpoint has not been read yet.
        return self.options.model_validate({**scheme_options, "bits": scheme_options.get("bits") or None})


def check_capabilities(capabilities: Iterable[str]) -> None:
    """Raise InputError for a capability that there is not: whoever needs or has it would go without cases."""
    if isinstance(capabilities, str):
        raise InputError(f'capabilities must be a frozenset, not a text: frozenset({{"{capabilities}"}})')
    for name in capabilities:
        if name not in get_args(Capability):
            raise InputError(f"capabilities: no capability {name!r}. {allowed(name, get_args(Capability))}")


@functools.cache
def backends() -> dict[str, BackendSpec]:
    """Return all backends by name. Raises InputError for a file or an entry point that cannot be imported."""
    return discover("quantgate.backends", "BACKEND", "quantgate.backends", BackendSpec)


def unused() -> dict[str, frozenset[str]]:
    """Return by backend what it does not compute with (`BackendSpec.unused`)."""
    return {name: spec.unused for name, spec in backends().items()}


def loader(module: str) -> Loader:
    """Return a loader that imports `module` when it is called, and calls its `load`."""

    def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Any:
        return importlib.import_module(module).load(checkpoint, options, threads)

    return load


def not_installed(needs: Mapping[str, str]) -> str:
    """Say which module is not installed, and how it is; empty: all are. needs: as `BackendSpec.libraries`."""
    for module, requirement in needs.items():
        if not _is_installed(module.split(".")):
            return f"{module} is not installed: pip install {requirement}"
    return ""


def _is_installed(parts: list[str], folders: Iterable[str] | None = None) -> bool:
    """Return whether a module can be found, without importing the packages around it. A folder without code that
    happens to have its name is none."""
    spec = importlib.machinery.PathFinder.find_spec(parts[0], None if folders is None else list(folders))
    if spec is None or len(parts) == 1:
        return spec is not None and spec.origin is not None
    return _is_installed(parts[1:], spec.submodule_search_locations or ())
