"""The header of a safetensors file: what the file should hold, read without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from quantgate.errors import AssetError
from quantgate.files import lfs_problem


class Tensor(NamedTuple):
    """Where a tensor lies: its file, the offsets of its first byte and of the byte after its last one, its shape."""

    file: Path
    begin: int
    end: int
    shape: list[int]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name. Raises AssetError where the header cannot be read, or the file is shorter
    than the header says."""
    if problem := lfs_problem(file):
        raise AssetError(problem)
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or 8 + length > size:
                raise AssetError(f"{file}: is cut off: {size:,} bytes, not even its header; fetch it again")
            header = json.loads(stream.read(length))
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = Tensor(file, 8 + length + begin, 8 + length + end, entry["shape"])
        needed = max((tensor.end for tensor in tensors.values()), default=8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AssetError(
            f"{file}: is not a safetensors file: its header cannot be read; fetch it again"
        ) from None
    if needed > size:
        raise AssetError(
            f"{file}: is cut off: its header needs {needed:,} bytes, the file has {size:,}; fetch it again"
        )
    return tensors
