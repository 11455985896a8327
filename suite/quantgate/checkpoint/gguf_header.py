"""The header of a GGUF file: what a file promises to hold, read without its weights."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from quantgate.errors import AssetError
from quantgate.files import lfs_problem

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letters by number of the type, as GGUF numbers them."""
_STRING, _ARRAY = 8, 9
_COUNTS = ("general.alignment", "general.file_type", "split.count", "split.no", "split.tensors.count")

LLAMA_3 = (
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken",
)  # fmt: skip
"""Vocabularies (`tokenizer.ggml.pre`) that llama.cpp's `llama-vocab.cpp` reads as that of Llama 3: words are one token
where they are in it, and it puts the beginning-of-sequence token unless a file says no. Files of Llama 3 and Mistral
NeMo that were made before 2025 do not say."""
PUT_BOS = (*LLAMA_3, "chameleon")
"""Vocabularies of which llama.cpp puts the beginning-of-sequence token unless a file says no."""


class Header(NamedTuple):
    """values: scalars and strings, and the arrays that were asked for, by key. tensors: shape, number of the
    type and offset in the data, by name. data: where in the file the data begins."""

    values: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]
    data: int

    @property
    def split_count(self) -> int:
        return int(self.values.get("split.count", 1)) or 1  # 0 of a file that was merged

    @property
    def split_number(self) -> int:
        return int(self.values.get("split.no", 0))


def read_header(path: Path, arrays: Collection[str] = ()) -> Header:
    """arrays: keys of arrays of numbers or strings that are read, too. Raises AssetError: is no GGUF file, or ends
    within its header."""
    if problem := lfs_problem(path):
        raise AssetError(problem)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return _header(file, arrays)
    except _NoGgufError as error:
        raise AssetError(f"{path}: is not a GGUF file that can be read here: {error}") from None
    except (EOFError, struct.error, MemoryError, OverflowError, RecursionError):
        raise AssetError(
            f"{path}: is cut off or damaged: its {size:,} bytes end within its header; fetch it again"
        ) from None


def check_whole(path: Path) -> Header:
    """The header of a file that is as long as its header says. Raises AssetError with both lengths."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    header = read_header(path)
    end, last = header.data if header.tensors else 0, "its header"
    for name, (shape, kind, offset) in header.tensors.items():
        try:
            block, taken = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except ValueError:
            continue  # a type of a later llama.cpp, which says so itself
        if (needed := header.data + offset + math.prod(shape) // block * taken) > end:
            end, last = needed, name
    size = path.stat().st_size
    if size < end:
        raise AssetError(
            f"{path}: is cut off: {last} ends at byte {end:,}, the file at {size:,}; fetch it again"
        )
    return header


def gguf_puts_bos(values: Mapping[str, Any]) -> bool:
    """Return whether llama.cpp puts the token, by a GGUF file's header; without the key it does for SentencePiece
    vocabularies (`llama`), and for `PUT_BOS`; for Gemma 4 whatever the key says."""
    if "tokenizer.ggml.bos_token_id" not in values:
        return False
    if "gemma4" in (values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")):
        return True
    puts = values.get("tokenizer.ggml.add_bos_token")
    if puts is not None:
        return bool(puts)
    return values.get("tokenizer.ggml.model") == "llama" or values.get("tokenizer.ggml.pre") in PUT_BOS


class _NoGgufError(Exception):
    pass


def _header(file: BinaryIO, arrays: Collection[str] = ()) -> Header:
    magic = _take(file, 4)
    if magic != b"GGUF":
        raise _NoGgufError(f"it begins with {magic!r}, not with b'GGUF'")
    version, tensors, pairs = struct.unpack("<IQQ", _take(file, 20))
    if version not in (2, 3):
        raise _NoGgufError(f"its version is {version}; only versions 2 and 3, little-endian, can be read")
    values = {}
    for _ in range(pairs):
        key = _string(file)
        value = _value(file, _number(file, "I"), keep=key in arrays)
        if value is not None:
            if key in _COUNTS and (not isinstance(value, int) or value < 0):
                raise _NoGgufError(f"its {key} is {value!r}, which is not a count")
            values[key] = value
    table = {}
    for _ in range(tensors):
        name = _string(file)
        dimensions = _number(file, "I")
        shape = struct.unpack(f"<{dimensions}Q", _take(file, 8 * dimensions))
        table[name] = (shape, _number(file, "I"), _number(file, "Q"))
    alignment = int(values.get("general.alignment", 32)) or 32
    return Header(values, table, -(-file.tell() // alignment) * alignment)


def _value(file: BinaryIO, kind: int, *, keep: bool = False) -> Any:
    """A scalar or a string; None of an array, which is passed over, unless it is one of these to `keep`."""
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _letter(kind))
    inner, count = _number(file, "I"), _number(file, "Q")
    if inner == _STRING:
        if keep:
            return [_string(file) for _ in range(count)]
        for _ in range(count):  # of a vocabulary: hundreds of thousands
            _take(file, int.from_bytes(_take(file, 8), "little"))
    elif inner == _ARRAY:
        for _ in range(count):
            _value(file, inner)
    else:
        letter = _letter(inner)
        data = _take(file, count * struct.calcsize(letter))
        return list(struct.unpack(f"<{count}{letter}", data)) if keep else None
    return None


def _letter(kind: int) -> str:
    if kind not in _SCALARS:
        raise _NoGgufError(f"it has a value of an unknown type, {kind}")
    return _SCALARS[kind]


def _string(file: BinaryIO) -> str:
    return _take(file, _number(file, "Q")).decode(errors="replace")


def _number(file: BinaryIO, letter: str) -> Any:
    return struct.unpack(f"<{letter}", _take(file, struct.calcsize(letter)))[0]


def _take(file: BinaryIO, count: int) -> bytes:
    if count > 1 << 32:
        raise EOFError
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
