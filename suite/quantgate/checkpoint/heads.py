"""The output projection of a safetensors folder: which tensor it is, and whether it is the embeddings. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from quantgate.checkpoint.checks import configurations, tensors_of
from quantgate.checkpoint.safetensors_header import Tensor
from quantgate.errors import AssetError

HEADS = ("head.weight", "embed_out.weight", "output.weight")
EMBEDDINGS = (
    "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight",
    ".embeddings.weight",
)  # fmt: skip
TIED = "tie_word_embeddings"


def check_head(folder: Path, *, derived: bool) -> None:
    """Raise AssetError where the file's output projection is not the one that the configuration promises.

    Tied, and the file has another head than its embeddings: libraries disagree which of both counts. derived: a GGUF is
    made of it: there a missing head silently becomes the embeddings.
    """
    tensors, tied = tensors_of(folder), is_tied(folder)
    head, embeddings = head_and_embeddings(tensors)
    if tied and head and embeddings and not is_one_of(tensors, head, embeddings):
        raise AssetError(
            f"{tensors[head].file}: holds {head}, which differs from {embeddings[0]}, while config.json says "
            "tie_word_embeddings = true: set it to false if the model has a head of its own, or remove the tensor"
        )
    if derived and tied is False and head is None:
        raise AssetError(
            f"{folder}: config.json says tie_word_embeddings = false, and no file holds lm_head.weight: fetch the "
            "checkpoint again, or set it to true if the head is the embeddings"
        )


def head_and_embeddings(tensors: Iterable[str]) -> tuple[str | None, list[str]]:
    """Return the names of the output projection, None: there is none, and of the embeddings."""
    names = list(tensors)
    return next(filter(is_head, names), None), [name for name in names if name.endswith(EMBEDDINGS)]


def is_head(name: str) -> bool:
    """Return whether a tensor is the output projection, by its name: not that of an attention (RWKV's
    `blocks.0.attention.output.weight`), nor of a layer that predicts further tokens."""
    return name.endswith(HEADS) and not re.search(r"\.\d+\.", name)


def is_tied(folder: Path) -> bool | None:
    """Return whether config.json says that the head is the embeddings, for the model or for the part of it that reads
    text; None: it does not say."""
    stated = [bool(part[TIED]) for part in configurations(folder) if part.get(TIED) is not None]
    return any(stated) if stated else None


def is_one_of(tensors: Mapping[str, Tensor], head: str, embeddings: Iterable[str]) -> bool:
    """Return whether the head has the bytes of one of the embeddings."""
    return any(_equal(tensors[head], tensors[name]) for name in embeddings)


def _equal(one: Tensor, other: Tensor) -> bool:
    size = one.end - one.begin
    if one.shape != other.shape or size != other.end - other.begin:
        return False
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.begin)
        second.seek(other.begin)
        while size > 0:
            part = min(size, 1 << 22)
            if first.read(part) != second.read(part):
                return False
            size -= part
    return True
