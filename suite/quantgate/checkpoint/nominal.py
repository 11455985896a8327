"""The precision that a checkpoint states: llama.cpp's type of a GGUF file, nominal bits."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.checkpoint.checks import config_of, quantization_bits, quantization_of
from quantgate.checkpoint.contents import gguf_parts
from quantgate.checkpoint.gguf_header import read_header
from quantgate.errors import AssetError


@functools.cache
def file_type(gguf: Path) -> str:
    """Return what a GGUF file was quantized to (`Q4_K_M`, `F16`), as its `general.file_type` says; empty: it says
    nothing, a type of a later llama.cpp, or what its matrices contradict. Raises AssetError."""
    from gguf.constants import LlamaFileType

    number = read_header(gguf).values.get("general.file_type")
    try:
        # A guess of the reader is marked by a bit of its own.
        name = LlamaFileType(int(number) & ~LlamaFileType.GUESSED.value).name if number is not None else ""
    except ValueError:
        return ""
    name = re.sub("^(ALL|MOSTLY)_", "", name)
    return "" if _contradicted(name, _matrices(gguf)) else name


def commonest_type(gguf: Path) -> str:
    """Return the type that most weights of matrices have (`Q4_K`); empty: there are none. Raises AssetError."""
    counts: Counter[str] = Counter()
    for matrix in _matrices(gguf):
        counts[matrix.type] += matrix.weights
    return next((name for name, _ in counts.most_common()), "")


class _Matrix(NamedTuple):
    """bits: of a weight, with scales."""

    type: str
    weights: int
    bits: float


def _matrices(gguf: Path) -> list[_Matrix]:
    """Return the matrices of a GGUF file whose types are known to this version of gguf."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    matrices = []
    for part in gguf_parts(gguf):
        for shape, kind, _ in read_header(part).tensors.values():
            if len(shape) > 1 and kind in set(GGMLQuantizationType):
                block, taken = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
                name = GGMLQuantizationType(kind).name
                matrices.append(_Matrix(name, math.prod(shape), 8 * taken / block))
    return matrices


def _contradicted(name: str, matrices: Sequence[_Matrix]) -> bool:
    """Return whether matrices cannot be those of a file of this type: they have fewer bits a weight on average than it
    says, or none is quantized. No quantizer of llama.cpp goes below the bits in its type's name; single matrices, and
    those whose rows do not fit its blocks, may have more."""
    if not matrices or (bits := _bits(name)) is None:
        return False
    if sum(m.bits * m.weights for m in matrices) < bits * sum(m.weights for m in matrices):
        return True
    return name not in FULL and all(m.type in FULL for m in matrices)


FULL = ("F32", "F16", "BF16")
"""Types of a GGUF file that is not quantized."""


def is_quantized(checkpoint: Path) -> bool:
    """Return whether a GGUF file or a folder of safetensors says that its weights are quantized. Raises AssetError."""
    if checkpoint.is_dir():
        return bool(quantization_of(checkpoint))
    return (file_type(checkpoint) or commonest_type(checkpoint)) not in FULL


@functools.cache
def nominal_bits(checkpoint: Path) -> float:
    """Return the nominal bits of a GGUF file or of a folder of safetensors; 0: it does not say, or cannot be read."""
    try:
        if not checkpoint.is_dir():
            name = file_type(checkpoint) or commonest_type(checkpoint)
        elif stored := quantization_of(checkpoint):
            return _number(quantization_bits(stored))
        else:
            config = config_of(checkpoint)
            name = str(config.get("dtype") or config.get("torch_dtype") or "")
    except (AssetError, OSError):
        return 0
    return _bits(name) or 0


def _bits(name: str) -> float | None:
    """Return the bits in the name of a type (`Q4_K_M`, `bfloat16`); None: there are none."""
    return float(match[0]) if (match := re.search(r"\d+", name)) else None


def _number(bits: Any) -> float:
    """Return what a configuration that anybody may have written gives as bits; 0: it is no number of bits."""
    try:
        number = float(bits)
    except (TypeError, ValueError):
        return 0
    return number if 0 < number <= 64 else 0
