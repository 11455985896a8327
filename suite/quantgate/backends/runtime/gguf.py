"""Which weights of a GGUF file are those of linear layers, and of which types they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from quantgate.checkpoint.contents import gguf_parts
from quantgate.checkpoint.gguf_header import read_header
from quantgate.errors import AssetError

FLOATS = {0: "F32", 1: "F16", 30: "BF16"}
"""ggml's numbers of the types that are not quantized."""
_OTHERS = ("token_embd", "position_embd", "token_types", "norm", "conv", "rope_", "per_layer_token")
"""What is in the names of matrices that are no weights of a linear layer; the head is `output.weight`."""


class LinearTensor(NamedTuple):
    """The weights of a linear layer, or of all experts of one. number: ggml's, of its type. row: weights of a row."""

    name: str
    elements: int
    number: int
    row: int

    @property
    def type(self) -> str:
        """`F32`, `F16`, `BF16`; empty: a quantized one."""
        return FLOATS.get(self.number, "")

    def type_in(self, names: Mapping[int, str]) -> str:
        """Return the type (`Q4_K`). names: of ggml's types, by number."""
        return names.get(self.number, str(self.number)).upper()


def linear_tensors(path: Path) -> list[LinearTensor]:
    """Return the linear layers' tensors of a file, or of all parts of a split one, without the head."""
    return [
        LinearTensor(name, math.prod(shape), kind, shape[0])
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


def other_types(tensors: Sequence[LinearTensor], ftype: str, names: Mapping[int, str]) -> str:
    """Say which types most of the weights have where that is not the one of a quantized `ftype` (`Q4_K` of `Q4_K_M`);
    empty: it is. names: of ggml's types, by number."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.type_in(names)] += tensor.elements
    total = counts.total()
    others = {name: 100 * count / total for name, count in counts.most_common() if not _is_of(name, ftype)}
    if ftype in ("", *FLOATS.values()) or sum(others.values()) <= 50:
        return ""
    listed = ", ".join(f"{name} {percent:.0f} %" for name, percent in others.items() if round(percent))
    return f"{ftype} is in other types for the most part: {listed}; llama.cpp takes them where rows do not fit its own"


def check_applied(tensors: Sequence[LinearTensor], ftype: str, names: Mapping[int, str]) -> None:
    """Raise AssetError where no weight has the type of `ftype` although there are rows that fit its blocks: llama.cpp
    has another rule, as that of MXFP4, which is for experts. A mix (`Q2_K`, `IQ3_M`) has each layer in a type by its
    place, and may have none in the one of its name: Q3_K is what Q2_K makes of those that go back to the model's
    width."""
    mixed = "_K" in ftype or ftype.startswith("IQ")
    if mixed or ftype in FLOATS.values() or any(_is_of(t.type_in(names), ftype) for t in tensors):
        return
    block = 256 if ftype.startswith("TQ") else 32
    if fitting := [t for t in tensors if t.row and t.row % block == 0]:
        made = " and ".join(sorted({t.type_in(names) for t in fitting}))
        rule = " (MXFP4 is for experts, which it has none of)" if ftype.startswith("MXFP4") else ""
        raise AssetError(
            f"ftype {ftype}: llama.cpp has made {made} of the linear layers of this model, and nothing else{rule}: "
            f"name what is made, or another ftype"
        )


def _is_of(name: str, ftype: str) -> bool:
    """Return whether a type of tensors is that of an ftype; of an IQ one, any of its bits (`IQ3_S` of `IQ3_M`)."""
    base = ftype.removesuffix("_MOE")
    return base == name or base.startswith(f"{name}_") or (base[:2] == "IQ" and name[:3] == base[:3])


def learns_positions(path: Path) -> bool:
    """Whether the model has a vector for each position."""
    return "position_embd.weight" in read_header(path).tensors
