"""The tensors of a GGUF file as llama.cpp's own library lists them: names, sizes and types, no weights."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llama_cpp._ggml import libggml

FLOATS = {0: "F32", 1: "F16", 30: "BF16"}
"""ggml's numbers of the types that are not quantized."""
_NO_LINEAR = ("token_embd", "position_embd", "token_types", "norm", "conv", "rope_", "per_layer_token")
"""What the names of two-dimensional tensors have in common that are no weights of a linear layer but the head."""


class GgufTensor(NamedTuple):
    """dimensions: more than 1 for a matrix. type: ggml's number."""

    name: str
    dimensions: int
    elements: int
    type: int

    @property
    def is_linear(self) -> bool:
        """Whether it holds the weights of a linear layer, or of all experts of one, but not of the head."""
        matrix = self.dimensions > 1 and self.name.endswith(".weight") and self.name != "output.weight"
        return matrix and not any(part in self.name for part in _NO_LINEAR)


def gguf_tensors(path: Path) -> list[GgufTensor]:
    """Of one file; none where llama.cpp cannot read it."""
    context = ctypes.c_void_p()
    parameters = _Parameters(True, ctypes.pointer(context))
    file = _call("gguf_init_from_file", ctypes.c_void_p, str(path).encode(), parameters)
    if not file:
        return []
    try:
        return list(_listed(file, context))
    finally:
        _call("gguf_free", None, ctypes.c_void_p(file))
        _call("ggml_free", None, context)


def _listed(file: int, context: ctypes.c_void_p) -> Iterator[GgufTensor]:
    whole = ctypes.c_void_p(file)
    tensor = _call("ggml_get_first_tensor", ctypes.c_void_p, context)
    while tensor:
        pointer = ctypes.c_void_p(tensor)
        name: bytes = _call("ggml_get_name", ctypes.c_char_p, pointer)
        number = _call("gguf_find_tensor", ctypes.c_int64, whole, name)
        yield GgufTensor(
            name.decode(errors="replace"),
            _call("ggml_n_dims", ctypes.c_int, pointer),
            _call("ggml_nelements", ctypes.c_int64, pointer),
            _call("gguf_get_tensor_type", ctypes.c_int, whole, ctypes.c_int64(number)),
        )
        tensor = _call("ggml_get_next_tensor", ctypes.c_void_p, context, pointer)


class _Parameters(ctypes.Structure):
    """`gguf_init_params`."""

    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.POINTER(ctypes.c_void_p))]


def _call(function: str, result: Any, *arguments: Any) -> Any:
    called = getattr(libggml, function)
    called.restype = result
    return called(*arguments)
