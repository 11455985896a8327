"""How many bytes llama.cpp's cache takes. No call of the library says so: its log has megabytes with two decimals."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable

import llama_cpp
from llama_cpp._ggml import libggml

from quantgate.errors import MeasurementError

_SIZE = re.compile(
    r"\(\s*(?P<cells>\d+) cells,\s*(?P<layers>\d+) layers,\s*\d+/(?P<streams>\d+) seqs\), "
    r"K \((?P<k>\w+)\):\s*(?P<k_mib>[\d.]+) MiB, V \((?P<v>\w+)\):\s*(?P<v_mib>[\d.]+) MiB"
)
"""What `llama_kv_cache` logs once it has allocated a cache; a model with two kinds of attention has two."""
_OTHER = re.compile(r"R \(\w+\):.*MiB, S \(\w+\):.*MiB")
"""What the memory of recurrent layers logs."""
_ROUNDED = 0.0051
"""MiB by which a size of two decimals may be off, as a float of 32 bits."""


def cache_bytes(lines: Iterable[str], keys: int, values: int) -> int | None:
    """Return the bytes of all keys and values that llama.cpp has allocated by the `lines` of its log.

    keys, values: how many numbers a token has of them in one layer. Types, layers and cells are those that the library
    logs, so that a type it did not take shows. None: that is not what the library logs as the size, since layers differ
    or have another kind of memory.
    """
    total = 0
    for line in lines:
        if _OTHER.search(line):
            return None
        if not (match := _SIZE.search(line)):
            continue
        rows = int(match["cells"]) * int(match["layers"]) * int(match["streams"])
        for kind, width in (("k", keys), ("v", values)):
            size = rows * _row_bytes(match[kind], width)
            if abs(size / 2**20 - float(match[f"{kind}_mib"])) > _ROUNDED:
                return None
            total += size
    return total or None


def type_names() -> dict[int, str]:
    """Return ggml's names of the types of this build, by number."""
    libggml.ggml_type_name.restype = ctypes.c_char_p
    names = map(libggml.ggml_type_name, range(llama_cpp.GGML_TYPE_COUNT))
    return {number: text.decode() for number, text in enumerate(names) if text}


def type_number(name: str) -> int:
    """Return ggml's number of a type. Raises MeasurementError where this build has none of that name."""
    numbers = {text: number for number, text in type_names().items()}
    if name not in numbers:
        raise MeasurementError(f"this llama-cpp-python has no type {name!r}; it has {', '.join(numbers)}")
    return numbers[name]


def _row_bytes(name: str, width: int) -> int:
    libggml.ggml_row_size.restype = ctypes.c_size_t
    libggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    return int(libggml.ggml_row_size(type_number(name), width))
