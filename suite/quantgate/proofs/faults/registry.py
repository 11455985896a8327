"""Define faults, and helpers that faults are written with. Importing it loads no library that runs a model."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.measure.session import Session

REPRODUCTION = "perplexity/reproduction"
"""The gate that compares the computation with the baseline's, window by window."""
ITEMS = "accuracy/*/margin/reproduction"
"""The same, item by item: by how much the right answer leads."""


@dataclass(frozen=True)
class Fault:
    """A silent error.

    cell: `backend/scheme` that it is tried on. gates: patterns of metric names; a red metric must match each of them.
    groups: the metric groups to measure; empty: all of the tier but throughput. beside_clean: compare with clean
    processes on this machine, in alternation, instead of the stored baseline. ends: text of the error of a fault that
    makes the measurement fail; any other error means that the fault itself is broken. no_gate: why no gate sees the
    fault yet; it is tried all the same, and missed. line: no gate turns red, but the report says that the metric is not
    reproducible. tier: the only one that it is tried on, since others do not measure its groups.
    """

    name: str
    kind: str
    text: str
    cell: str
    gates: tuple[str, ...]
    apply: Callable[[], None]
    groups: tuple[str, ...] = ()
    beside_clean: bool = False
    ends: str = ""
    no_gate: str = ""
    line: bool = False
    tier: str = ""


FAULTS: dict[str, Fault] = {}
"""By name, in the order of the files. `quantgate.proofs.faults.catalogue` fills it."""


def fault(
    text: str, cell: str, *gates: str, **further: Any
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Add the decorated function to the catalogue; the fault is named after it, with hyphens."""

    def register(apply: Callable[[], None]) -> Callable[[], None]:
        name = apply.__name__.replace("_", "-")
        kind = apply.__module__.rpartition(".")[2]
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, kind, text, cell, gates, apply, **further)
        return apply

    return register


def wrap(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Replace `owner.name` by the decorated function, which gets the original as its first argument."""

    def decorate(function: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def patched(*arguments: Any, **keywords: Any) -> Any:
            return function(original, *arguments, **keywords)

        setattr(owner, name, patched)

    return decorate


def loading(change: Callable[[Path, dict[str, Any], int], tuple[Path, dict[str, Any], int]]) -> None:
    """Change what the backend loads: checkpoint, scheme options, threads. The change counts in the timed load."""

    @wrap(Session, "load")
    def load(original: Any, session: Session, loader: Any) -> float:
        return float(original(session, lambda *arguments: loader(*change(*arguments))))


def loaded(change: Callable[[Any], object]) -> None:
    """Change the backend once it has loaded the model, before anything is computed."""

    @wrap(Session, "load")
    def load(original: Any, session: Session, loader: Any) -> float:
        def faulty(*arguments: Any) -> Any:
            backend = loader(*arguments)
            change(backend)
            return backend

        return float(original(session, faulty))


def layers_of(backend: Any) -> Any:
    """Return the decoder layers of a transformers model."""
    return backend._model.model.layers


_folders: list[tempfile.TemporaryDirectory[str]] = []
"""Edited checkpoints: removed when the process ends, since they are memory-mapped until then."""


def edited(edit: Callable[[Mapping[str, Any]], object]) -> None:
    """Load an edited copy of the GGUF file. `edit` is given its tensors by name, as `gguf.ReaderTensor`, writable."""

    @loading
    def change(checkpoint: Path, options: dict[str, Any], threads: int) -> tuple[Path, dict[str, Any], int]:
        import gguf

        _folders.append(tempfile.TemporaryDirectory(prefix="quantgate-fault-"))
        copy = Path(_folders[-1].name, checkpoint.name)
        shutil.copyfile(checkpoint, copy)
        reader = gguf.GGUFReader(copy, "r+")
        edit({tensor.name: tensor for tensor in reader.tensors})
        reader.data.flush()
        return copy, options, threads


def rewrite(tensor: Any, change: Callable[[Any], Any]) -> None:
    """Dequantize a tensor of a GGUF file, change its values [rows, columns], quantize it to the type that it has."""
    import gguf

    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    tensor.data[...] = gguf.quants.quantize(change(values), tensor.tensor_type).view(tensor.data.dtype)


def middle(tensors: Mapping[str, Any]) -> int:
    """Return the number of the middle layer of a GGUF file."""
    return (1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blk."))) // 2


def text_of(backend: Any, ids: list[int]) -> str:
    """Return the text of token ids, by the tokenizer of the backend under test."""
    if hasattr(backend, "_tokenizer"):
        return str(backend._tokenizer.decode(ids))
    import ctypes

    import llama_cpp

    tokens = (llama_cpp.llama_token * len(ids))(*ids)
    room = ctypes.create_string_buffer(64 * len(ids) + 64)
    length = llama_cpp.llama_detokenize(backend._vocab, tokens, len(ids), room, len(room), False, True)
    return room.raw[:length].decode(errors="replace")
