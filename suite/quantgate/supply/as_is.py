"""Checkpoints that a cell loads as they are (`[models.NAME.checkpoints]`): located, checked, never written.

Runs in the parent and only decides; a process of its own compares tokenizers (`quantgate.supply.same_tokens`). What is
wrong with one is an AssetError, so that the other cells are judged.
"""

from __future__ import annotations

import json
from pathlib import Path

from quantgate.checkpoint.checks import check_no_adapter
from quantgate.checkpoint.contents import contents
from quantgate.checkpoint.kinds import check_folder, check_packed
from quantgate.checkpoint.nominal import file_type, nominal_bits
from quantgate.config.matrix import Cell, Model
from quantgate.config.source import Checkpoint
from quantgate.errors import AssetError, InputError
from quantgate.files import hash_of
from quantgate.machine.environment import code_hash
from quantgate.paths import cache_dir
from quantgate.supply.maker import Maker
from quantgate.supply.sources import Sources

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which a folder with a tokenizer has one at least."""
TOKENIZER_CODE = (
    "supply/encoder.py",
    "supply/lines.py",
    "supply/splitting.py",
    "checkpoint/checks.py",
    "checkpoint/gguf_header.py",
)
"""The code that reads tokenizers."""


class AsIs:
    """Methods raise AssetError, InputError, MeasurementError. matrix: the file, for messages."""

    def __init__(self, matrix: Path, sources: Sources, maker: Maker) -> None:
        self._matrix = matrix
        self._sources = sources
        self._maker = maker

    def identity(self, cell: Cell) -> str:
        """Return a hash of all files that the cell loads."""
        return hash_of(self._sources.identity(_checkpoint(cell)))

    def check(self, cell: Cell, *, local: bool = False) -> None:
        """Check the files by their headers and JSON. local: of a local checkpoint only, so that nothing is fetched."""
        source = _checkpoint(cell)
        if local and source.path is None:
            return
        path = self._sources.locate(source)
        check_kind(cell, path)
        contents(path)
        if path.is_dir():
            try:
                check_no_adapter(path)
            except InputError as error:
                raise AssetError(str(error)) from None
            check_folder(path)
            check_packed(path)
        check_bits(cell, path)
        check_type(cell, path)

    def checkpoint(self, cell: Cell, model: Model) -> Path:
        """Return the file or folder that the cell loads, its checksums and tokenizer checked. `check` comes before."""
        path = self._sources.locate(_checkpoint(cell))
        self._check_sha256(cell, contents(path))
        self._check_tokenizer(cell, model, path)
        return path

    def takes_tokenizer(self, cell: Cell) -> bool:
        """Return whether the checkpoint has no tokenizer: it takes the model's."""
        path = self._sources.locate(_checkpoint(cell))
        return path.is_dir() and not has_tokenizer(path)

    def _check_sha256(self, cell: Cell, files: dict[str, Path]) -> None:
        pins = _checkpoint(cell).sha256 or {}
        key = f"{self._matrix}: models.{cell.model}.checkpoints: {cell.backend}/{cell.scheme}: sha256"
        if isinstance(pins, str):
            if len(files) != 1:
                raise AssetError(
                    f"{key}: is one checksum, and {len(files)} files are loaded: give checksums by name: "
                    f'{{ "{next(iter(files))}" = "..." }}'
                )
            pins = {next(iter(files)): pins}
        for name, expected in pins.items():
            if name not in files:
                raise AssetError(f"{key}: {name}: no such file is loaded; there are: {', '.join(files)}")
            if (actual := self._sources.sha256(files[name])) != expected:
                raise AssetError(
                    f"{key}: {files[name]} has changed: its SHA-256 is {actual}, not {expected}; fetch it again, or "
                    "accept it by writing the new one"
                )

    def _check_tokenizer(self, cell: Cell, model: Model, path: Path) -> None:
        source = model.tokenizer_source
        key = hash_of(
            [
                self._sources.identity(source),
                self.identity(cell),
                model.add_bos,
                self._maker.identity("same_tokens", "transformers", "tokenizers", "llama-cpp-python"),
                code_hash(*TOKENIZER_CODE),
            ]
        )
        result = self._maker.make(
            cache_dir() / "tokenizers" / f"{cell.id.replace('/', '-')}-{key}.json",
            f"compare the tokenizer of {cell.id} with the model's",
            "quantgate.supply.same_tokens:main",
            lambda: {
                "model": str(self._sources.locate(source)),
                "checkpoint": str(path),
                "tokenizer": path.is_file() or has_tokenizer(path),
                "add_bos": model.add_bos,
            },
        )
        if problem := json.loads(result.read_bytes())["problem"]:
            raise AssetError(f"{path}: {problem}")


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS)


def check_kind(cell: Cell, path: Path) -> None:
    """Raise AssetError where the backend loads another kind of checkpoint than `path` is."""
    if cell.checkpoint == "gguf" and path.is_dir():
        raise AssetError(f"{path}: is a folder, and {cell.backend} loads a GGUF file: name that (`file`)")
    if cell.checkpoint != "gguf" and path.is_file():
        raise AssetError(f"{path}: is a file, and {cell.backend} loads a folder with safetensors: name that")


def check_bits(cell: Cell, path: Path) -> None:
    """Raise AssetError where the checkpoint has other nominal bits than the scheme."""
    bits = nominal_bits(path)
    if not bits or not cell.bits or bits == cell.bits:
        return
    if path.is_dir() and min(bits, cell.bits) >= 16:
        return  # floats are loaded as the scheme says
    raise AssetError(
        f"{path}: holds weights of {bits:g} bits{_stated(path)}, and {cell.backend}/{cell.scheme} has {cell.bits:g}: "
        f"{_remedy('bits')}"
    )


def _stated(path: Path) -> str:
    """Return where a GGUF file says so; empty: its tensors say it."""
    return f" (general.file_type: {name})" if path.is_file() and (name := file_type(path)) else ""


def check_type(cell: Cell, path: Path) -> None:
    """Raise AssetError where a GGUF file states another type than the one that the scheme makes (`ftype`)."""
    wanted = cell.scheme_options.get("ftype")
    if wanted is not None and path.is_file() and (kind := file_type(path)) not in ("", wanted):
        raise AssetError(
            f"{path}: is in {kind} (general.file_type), and {cell.backend}/{cell.scheme} in {wanted}: "
            f"{_remedy('ftype')}"
        )


def _remedy(key: str) -> str:
    """Return what to do where a file is another than the scheme's `key` says."""
    return (
        f"name it under a scheme of its {key}, or under one of your own with as_is = true and without {key}, which "
        "takes what the file has"
    )


def _checkpoint(cell: Cell) -> Checkpoint:
    assert cell.as_is is not None
    return cell.as_is
