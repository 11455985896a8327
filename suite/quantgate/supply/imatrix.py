"""Give llama.cpp's quantizer mean squares of activations as an importance matrix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantgate.checkpoint.gguf_header import read_header
from quantgate.errors import AssetError


class ImportanceMatrix(NamedTuple):
    """entries: a C array of `llama_model_imatrix_data`, its last one empty. values: what it points into; keep it as
    long."""

    entries: Any
    values: dict[bytes, NDArray[np.float32]]


def importance_matrix(gguf: Path, mean_squares: Path) -> ImportanceMatrix:
    """Return the importance matrix of the tensors of `gguf`. mean_squares: of the inputs of transformers' layers, by
    their names (safetensors). Raises AssetError."""
    import ctypes

    import llama_cpp
    from safetensors.numpy import load_file

    layers = load_file(mean_squares)
    tensors = gguf_names(gguf, layers)
    values = {
        tensors[layer].encode(): np.ascontiguousarray(squares, dtype=np.float32)
        for layer, squares in layers.items()
    }
    entries = (llama_cpp.llama_model_imatrix_data * (len(values) + 1))()  # the last one is zero: the end
    for entry, (name, value) in zip(entries, values.items(), strict=False):
        entry.name = name
        entry.data = value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = value.size
    return ImportanceMatrix(entries, values)


def gguf_names(path: Path, layers: Iterable[str]) -> dict[str, str]:
    """Return the tensors of a GGUF file by transformers' names of their layers. Raises AssetError where a layer has
    none: its architecture is another."""
    import gguf

    header = read_header(path)
    architecture = header.values["general.architecture"]
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    mapping = gguf.get_tensor_name_map(number, int(header.values[f"{architecture}.block_count"]))
    names = {layer: mapping.get_name(f"{layer}.weight", try_suffixes=(".weight",)) for layer in layers}
    for layer, name in names.items():
        if name not in header.tensors:
            raise AssetError(f"{path}: has no tensor for {layer}; was it made from another model?")
    return names
