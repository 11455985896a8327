"""Mean squares of activations as llama.cpp's quantizer takes an importance matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import AssetError


@dataclass(frozen=True)
class ImportanceMatrix:
    """entries: a C array of `llama_model_imatrix_data`, its last one empty. values: what it points into; it has to live
    as long."""

    entries: Any
    values: dict[bytes, NDArray[np.float32]]


def importance_matrix(gguf: Path, mean_squares: Path) -> ImportanceMatrix:
    """Of the tensors of `gguf` by the mean squares of the inputs of transformers' layers (safetensors)."""
    import ctypes

    import llama_cpp
    from safetensors.numpy import load_file

    found = load_file(mean_squares)
    names = gguf_names(gguf, found)
    values = {names[layer].encode(): np.ascontiguousarray(found[layer], dtype=np.float32) for layer in names}
    entries = (llama_cpp.llama_model_imatrix_data * (len(values) + 1))()  # the last one is zero: the end
    for entry, (name, value) in zip(entries, values.items(), strict=False):
        entry.name = name
        entry.data = value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = value.size
    return ImportanceMatrix(entries, values)


def gguf_names(path: Path, layers: Iterable[str]) -> dict[str, str]:
    """The tensors of a GGUF file by the names that transformers gives to their layers. Raises AssetError where a layer
    has none: its architecture is another."""
    import gguf

    reader = gguf.GGUFReader(path)
    architecture = str(reader.get_field("general.architecture").contents())
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    blocks = int(reader.get_field(f"{architecture}.block_count").contents())
    known = gguf.get_tensor_name_map(number, blocks)
    there = {t.name for t in reader.tensors}
    found = {}
    for layer in layers:
        name = known.get_name(f"{layer}.weight", try_suffixes=(".weight",))
        if name not in there:
            raise AssetError(f"{path}: has no tensor for {layer}; was it made from another model?")
        found[layer] = name
    return found
