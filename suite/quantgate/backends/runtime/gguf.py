"""Which weights of a GGUF file are those of linear layers, and of which types they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from quantgate.checkpoint.contents import gguf_parts
from quantgate.checkpoint.gguf_header import read_header

FLOATS = {0: "F32", 1: "F16", 30: "BF16"}
"""ggml's numbers of the types that are not quantized."""
_OTHERS = ("token_embd", "position_embd", "token_types", "norm", "conv", "rope_", "per_layer_token")
"""What is in the names of matrices that are no weights of a linear layer; the head is `output.weight`."""


class LinearTensor(NamedTuple):
    """The weights of a linear layer, or of all experts of one. type: `F32`, `F16`, `BF16`; empty: a quantized one."""

    name: str
    elements: int
    type: str


def linear_tensors(path: Path) -> list[LinearTensor]:
    """Return the linear layers' tensors of a file, or of all parts of a split one, without the head."""
    return [
        LinearTensor(name, math.prod(shape), FLOATS.get(kind, ""))
        for part in gguf_parts(path)
        for name, (shape, kind, _) in read_header(part).tensors.items()
        if len(shape) > 1 and name.endswith(".weight") and name != "output.weight"
        if not any(part in name for part in _OTHERS)
    ]


def in_scheme(tensors: Sequence[LinearTensor], ftype: str) -> int:
    """Count the weights that the scheme's precision holds. ftype: the scheme's; empty: as the file, which is quantized
    if any of it is. K-quants fall back to other types where a row is no multiple of 256: any quantized type counts."""
    scheme_type = ftype if ftype in FLOATS.values() else ""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.type] += tensor.elements
    if not ftype and not counts[""]:
        return max(counts.values(), default=0)
    return counts[scheme_type]


def learns_positions(path: Path) -> bool:
    """Whether the model has a vector for each position."""
    return "position_embd.weight" in read_header(path).tensors
